package payment

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// dump returns every row of every table of this package.
func dump(t *testing.T, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	for _, table := range []string{"schema", "channels", "lanes", "spent", "policy", "accounts", "credits", "settlements"} {
		rows, err := db.QueryContext(t.Context(), `SELECT * FROM payment_`+table)
		must(t, err)
		columns, err := rows.Columns()
		must(t, err)
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(sql.RawBytes)
			}
			must(t, rows.Scan(values...))
			b.WriteString(table)
			for _, v := range values {
				fmt.Fprintf(&b, " %x", *v.(*sql.RawBytes))
			}
			b.WriteByte('\n')
		}
		must(t, rows.Err())
		must(t, rows.Close())
	}
	return b.String()
}

// node is a client and a provider in one database, as a demo has them.
type node struct {
	w      *Wallet
	till   *Till
	ch     address.Address
	lanes  []uint64
	signed []*voucher.SignedVoucher
}

// act does one random thing.
func (n *node) act(t *testing.T, r *rand.Rand) {
	t.Helper()
	ctx := t.Context()
	switch k := r.IntN(10); {
	case k == 0 || len(n.lanes) == 0:
		n.lanes = append(n.lanes, laneIn(t, n.w, n.ch))
	case k == 1:
		must(t, n.till.Settle(ctx, n.w.Address(), voucher.Atto(1+r.Uint64N(50)), "x"))
	case k == 2:
		must(t, n.till.SetCredit(ctx, n.w.Address(), voucher.Atto(1000+r.Uint64N(1000))))
	case k == 3:
		must(t, n.w.SetPolicy(ctx, Policy{PerDay: voucher.Atto(1e6 + r.Uint64N(10))}))
	case k < 7 || len(n.signed) == 0:
		v, err := n.w.CreatePaymentVoucher(ctx, n.ch, voucher.Atto(1+r.Uint64N(500)), n.lanes[r.IntN(len(n.lanes))])
		must(t, err)
		n.signed = append(n.signed, v)
	default:
		_, _ = save(ctx, n.till, n.signed[r.IntN(len(n.signed))]) // refused or not: the dump tells
	}
}

// The power fails at any byte of the log: what comes back is the state after
// the last call that returned, whole, with the very vouchers that were given away.
func TestPowerCut(t *testing.T) {
	path := t.TempDir() + "/db"
	db := dial(t, path, "wal_autocheckpoint(0)") // the log only grows, so a cut is a prefix of it
	must(t, Migrate(t.Context(), db))
	key, payee := keyOf(t, 1), keyOf(t, 2).Address()
	n := node{w: newWallet(t, db, key, Policy{}), till: newTill(t, db, payee, voucher.Atto(1000))}
	n.ch = channelTo(t, n.w, payee)
	r := rand.New(rand.NewPCG(1, 2))
	type point struct {
		size  int64 // of the log once the call had returned
		state string
	}
	logSize := func() int64 {
		info, err := os.Stat(path + "-wal")
		must(t, err)
		return info.Size()
	}
	points := []point{{logSize(), dump(t, db)}}
	for range 60 {
		n.act(t, r)
		points = append(points, point{logSize(), dump(t, db)})
	}
	file, err := os.ReadFile(path)
	must(t, err)
	log, err := os.ReadFile(path + "-wal")
	must(t, err)
	check := func(cut int64, want string) {
		t.Helper()
		path := t.TempDir() + "/db"
		must(t, os.WriteFile(path, file, 0o600))
		must(t, os.WriteFile(path+"-wal", log[:cut], 0o600))
		db := dial(t, path)
		defer db.Close()
		if got := dump(t, db); got != want {
			t.Fatalf("log cut at %d:\n%s\nwant\n%s", cut, got, want)
		}
	}
	for i, p := range points[:len(points)-1] {
		check(p.size, p.state)
		if next := points[i+1].size; next > p.size {
			check(next-1, p.state)
			check(p.size+r.Int64N(next-p.size), p.state)
		}
	}
	check(int64(len(log)), points[len(points)-1].state)
}

// A client that comes back from an old copy of its database knows nothing of what
// it gave away since. What it signs for less changes nothing, and what it signs
// for more is taken at once.
func TestOldCopyOfWallet(t *testing.T) {
	dir := t.TempDir()
	key, payee := keyOf(t, 1), keyOf(t, 2).Address()
	db := open(t, dir+"/db")
	w, till := newWallet(t, db, key, Policy{}), newTill(t, fresh(t), payee, voucher.OneFIL)
	ch := channelTo(t, w, payee)
	lane := laneIn(t, w, ch)
	_, err := db.ExecContext(t.Context(), `VACUUM INTO '`+dir+`/copy'`)
	must(t, err)
	for _, amount := range []uint64{10, 20} {
		v, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(amount), lane)
		must(t, err)
		_, err = save(t.Context(), till, v)
		must(t, err)
	}
	db = dial(t, dir+"/copy")
	w, err = NewWallet(db, key, WalletConfig{Now: fixed(noon.Add(time.Second))})
	must(t, err)
	for _, c := range []struct{ amount, worth uint64 }{{15, 20}, {20, 20}, {30, 30}, {40, 40}} {
		v, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(c.amount), lane)
		must(t, err)
		worth, err := save(t.Context(), till, v)
		if err != nil || worth != voucher.Atto(c.worth) {
			t.Errorf("%d with nonce %d: worth %s, %v", c.amount, v.Nonce, worth, err)
		}
	}
	if fresh := laneIn(t, w, ch); fresh == lane {
		t.Error("a lane was used again")
	}
}

// What is signed is on disk before it is returned: another process sees it.
func TestVisibleAtOnce(t *testing.T) {
	path := t.TempDir() + "/db"
	a := newWallet(t, open(t, path), keyOf(t, 1), Policy{PerDay: voucher.Atto(100)})
	b := newWallet(t, open(t, path), keyOf(t, 1), Policy{PerDay: voucher.Atto(100)})
	ch := channelTo(t, a, keyOf(t, 2).Address())
	lane := laneIn(t, a, ch)
	for i := uint64(1); i <= 20; i++ {
		v, err := a.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(i), lane)
		must(t, err)
		same, err := b.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(i), lane)
		must(t, err)
		if !bytes.Equal(encode(t, v), encode(t, same)) {
			t.Fatalf("%+v and %+v", v, same)
		}
	}
}
