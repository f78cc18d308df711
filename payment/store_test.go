package payment

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/tollgraph/tollgraph/voucher"
)

func TestMigrate(t *testing.T) {
	path := t.TempDir() + "/db"
	var wg sync.WaitGroup
	for range 4 { // several processes start at once
		db := dial(t, path)
		wg.Go(func() {
			if err := Migrate(t.Context(), db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	db := open(t, path)
	w := newWallet(t, db, keyOf(t, 1), Policy{})
	ch := channelTo(t, w, keyOf(t, 2).Address())
	must(t, Migrate(t.Context(), db)) // again: nothing is lost
	laneIn(t, w, ch)
}

func TestSchemaRefused(t *testing.T) {
	db := fresh(t)
	_, err := db.ExecContext(t.Context(), `UPDATE payment_schema SET version = 7`)
	must(t, err)
	key := keyOf(t, 1)
	_, werr := NewWallet(db, key, WalletConfig{})
	_, terr := NewTill(db, key.Address(), TillConfig{})
	for _, err := range []error{Migrate(t.Context(), db), werr, terr} {
		if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "version 7") {
			t.Errorf("newer tables: %v", err)
		}
	}
	empty := dial(t, t.TempDir()+"/db")
	_, werr = NewWallet(empty, key, WalletConfig{})
	_, terr = NewTill(empty, key.Address(), TillConfig{})
	for _, err := range []error{werr, terr} {
		if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "Migrate") {
			t.Errorf("no tables: %v", err)
		}
	}
	plain, err := sql.Open("sqlite", "file:"+t.TempDir()+"/db")
	must(t, err)
	defer plain.Close()
	if err := Migrate(t.Context(), plain); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "WAL") {
		t.Errorf("journal mode: %v", err)
	}
}

func TestMigrateLeavesNothingHalf(t *testing.T) {
	db := dial(t, t.TempDir()+"/db")
	_, err := db.ExecContext(t.Context(), `CREATE TABLE payment_credits (x)`) // somebody else's
	must(t, err)
	if err := Migrate(t.Context(), db); err == nil {
		t.Fatal("migrated over another table")
	}
	var n int
	must(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM sqlite_schema WHERE type = 'table'`).Scan(&n))
	if n != 1 {
		t.Errorf("%d tables after a migration that failed", n)
	}
}

func TestInMemory(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1) // every connection would be a database of its own
	must(t, Migrate(t.Context(), db))
	w := newWallet(t, db, keyOf(t, 1), Policy{})
	ch := channelTo(t, w, keyOf(t, 2).Address())
	lane := laneIn(t, w, ch)
	var wg sync.WaitGroup
	for i := range uint64(8) { // one connection is enough
		wg.Go(func() {
			if _, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(i+1), lane); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Whoever opened the database: what is committed is synced.
func TestCommitsAreSynced(t *testing.T) {
	path := t.TempDir() + "/db"
	open(t, path)
	l := newLedger(dial(t, path, "synchronous(OFF)"))
	var level int
	must(t, l.do(t.Context(), func(x *tx) error {
		x.row(`PRAGMA synchronous`, nil, &level)
		return nil
	}))
	if level != 2 {
		t.Errorf("synchronous = %d, want 2 (FULL)", level)
	}
}

// lockedOut returns a wallet and a lane in it, and a till, on a database that
// another process is writing to until release is called.
func lockedOut(t *testing.T) (w *Wallet, till *Till, lane uint64, release func()) {
	path := t.TempDir() + "/db"
	holder := open(t, path)
	db := dial(t, path, "busy_timeout(20)")
	payee := keyOf(t, 2).Address()
	w, till = newWallet(t, db, keyOf(t, 1), Policy{}), newTill(t, db, payee, voucher.OneFIL)
	lane = laneIn(t, w, channelTo(t, w, payee))
	conn, err := holder.Conn(t.Context())
	must(t, err)
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	must(t, err)
	return w, till, lane, func() {
		_, err := conn.ExecContext(t.Context(), "ROLLBACK")
		must(t, err)
		must(t, conn.Close())
	}
}

func TestLockedDatabase(t *testing.T) {
	w, till, lane, release := lockedOut(t)
	payee := till.Address()
	ch, err := ChannelAddress(w.Address(), payee)
	must(t, err)
	v := signed(t, keyOf(t, 1), payee, 1, 1, 1)
	if got, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(1), lane); got != nil || err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("signed: %v, %v", got, err)
	}
	if worth, err := save(t.Context(), till, v); !worth.IsZero() || err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("credited: %s, %v", worth, err)
	}
	if _, err := w.Lanes(t.Context(), ch); err != nil { // reading needs no lock
		t.Error(err)
	}
	release()
	wantSpent(t, w, payee, 0)
	wantCredit(t, till, w.Address(), 1e18, 0)
	if _, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(1), lane); err != nil {
		t.Error(err)
	}
	if _, err := save(t.Context(), till, v); err != nil {
		t.Error(err)
	}
}

func TestClosedDatabase(t *testing.T) {
	db := fresh(t)
	w := newWallet(t, db, keyOf(t, 1), Policy{})
	ch := channelTo(t, w, keyOf(t, 2).Address())
	lane := laneIn(t, w, ch)
	must(t, db.Close())
	if v, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(1), lane); v != nil || err == nil {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := w.Channels(t.Context()); err == nil {
		t.Error("list from a closed database")
	}
}

// A damaged row is an error, never a zero amount that could be paid again.
func TestDamagedRows(t *testing.T) {
	for _, damage := range []string{
		`UPDATE payment_lanes SET amount = x'01'`,
		`UPDATE payment_lanes SET budget = zeroblob(17)`,
		`UPDATE payment_channels SET payee = x'ff'`,
		`UPDATE payment_channels SET total = x''`,
		`UPDATE payment_policy SET total = x''`,
		`UPDATE payment_spent SET amount = x''`,
		`UPDATE payment_credits SET amount = x''`,
		`UPDATE payment_accounts SET settled = x''`,
		`UPDATE payment_accounts SET line = x''`,
	} {
		db := fresh(t)
		w, till := newWallet(t, db, keyOf(t, 1), Policy{}), newTill(t, db, keyOf(t, 2).Address(), voucher.OneFIL)
		ch := channelTo(t, w, till.Address())
		lane := laneIn(t, w, ch)
		_, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(1), lane)
		must(t, err)
		_, err = save(t.Context(), till, signed(t, keyOf(t, 1), till.Address(), 1, 1, 1))
		must(t, err)
		_, err = db.ExecContext(t.Context(), damage)
		must(t, err)
		_, werr := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(2), lane)
		_, terr := save(t.Context(), till, signed(t, keyOf(t, 1), till.Address(), 1, 2, 2))
		if err := errors.Join(werr, terr); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", damage, err)
		}
	}
}

func TestLedgerAttempt(t *testing.T) {
	db := fresh(t)
	l := newLedger(db)
	refusal := errors.New("no")
	var runs [4]int
	insert := func(i int) func(*tx) error {
		return func(x *tx) error {
			runs[i]++
			x.exec(`INSERT INTO payment_settlements (channel, at, amount, note) VALUES (x'', ?, x'', '')`, i)
			return nil
		}
	}
	batch := []*op{
		{decide: insert(0), done: make(chan struct{})},
		{decide: func(*tx) error { runs[1]++; return refusal }, done: make(chan struct{})},
		{decide: func(x *tx) error { runs[2]++; x.exec(`INSERT INTO none VALUES (1)`); return nil }, done: make(chan struct{})},
		{decide: insert(3), done: make(chan struct{})},
	}
	again := l.attempt(t.Context(), batch)
	if len(again) != 3 || again[0] != batch[0] || again[2] != batch[3] {
		t.Fatalf("%d to be run again", len(again))
	}
	if rest := l.attempt(t.Context(), again); len(rest) != 0 {
		t.Fatalf("%d to be run a third time", len(rest))
	}
	for i, o := range batch {
		<-o.done
		if want := []error{nil, refusal, nil, nil}[i]; i != 2 && !errors.Is(o.err, want) {
			t.Errorf("op %d: %v", i, o.err)
		}
	}
	if err := batch[2].err; err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("the broken one: %v", err)
	}
	if runs != [4]int{2, 2, 1, 1} {
		t.Errorf("runs %v", runs)
	}
	var n, sum int
	must(t, db.QueryRowContext(t.Context(), `SELECT count(*), sum(at) FROM payment_settlements`).Scan(&n, &sum))
	if n != 2 || sum != 3 {
		t.Errorf("%d rows, sum %d", n, sum)
	}
}

func TestCancelledContext(t *testing.T) {
	l := newLedger(fresh(t))
	ctx, cancel := context.WithCancel(t.Context())
	// Its own decision ends the context of the one who commits: others may be in
	// the same transaction, so it is committed all the same.
	err := l.do(ctx, func(x *tx) error {
		cancel()
		x.exec(`UPDATE payment_policy SET today = 5`)
		return nil
	})
	must(t, err)
	if err := l.do(ctx, func(*tx) error { t.Error("ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var today int
	must(t, l.db.QueryRowContext(t.Context(), `SELECT today FROM payment_policy`).Scan(&today))
	if today != 5 {
		t.Errorf("today = %d", today)
	}
}
