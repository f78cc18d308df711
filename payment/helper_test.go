package payment

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	fbig "github.com/filecoin-project/go-state-types/big"
	_ "modernc.org/sqlite"

	"github.com/tollgraph/tollgraph/voucher"
)

// noon is when tests begin.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fixed is a clock that stands.
func fixed(at time.Time) func() time.Time { return func() time.Time { return at } }

// dial returns the database in the file at path, with these pragmas besides a node's
// or instead of them.
func dial(t testing.TB, path string, pragmas ...string) *sql.DB {
	t.Helper()
	dsn := "file:" + path + "?"
	for _, p := range append(pragmas, "busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)") {
		if name, _, _ := strings.Cut(p, "("); !strings.Contains(dsn, name) {
			dsn += "&_pragma=" + p
		}
	}
	db, err := sql.Open("sqlite", dsn)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// open returns the migrated database in the file at path, as a node opens it.
func open(t testing.TB, path string) *sql.DB {
	t.Helper()
	db := dial(t, path)
	must(t, Migrate(t.Context(), db))
	return db
}

func fresh(t testing.TB) *sql.DB { return open(t, filepath.Join(t.TempDir(), "node.db")) }

// keyOf returns the same key for the same n, above zero.
func keyOf(t testing.TB, n byte) voucher.Key {
	t.Helper()
	secret := make([]byte, 32)
	secret[31] = n
	k, err := voucher.KeyFromBytes(secret)
	must(t, err)
	return k
}

func newWallet(t testing.TB, db *sql.DB, key voucher.Key, p Policy) *Wallet {
	t.Helper()
	w, err := NewWallet(db, key, WalletConfig{Policy: p, Now: fixed(noon)})
	must(t, err)
	return w
}

func newTill(t testing.TB, db *sql.DB, payee address.Address, credit voucher.Amount) *Till {
	t.Helper()
	till, err := NewTill(db, payee, TillConfig{DefaultCredit: credit, Now: fixed(noon)})
	must(t, err)
	return till
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// channelTo returns the wallet's channel to payee, on record.
func channelTo(t testing.TB, w *Wallet, payee address.Address) address.Address {
	t.Helper()
	ch, err := w.GetOrCreatePaymentChannel(t.Context(), w.Address(), payee, voucher.Atto(0))
	must(t, err)
	return ch
}

// laneIn returns a fresh lane without a budget of its own.
func laneIn(t testing.TB, w *Wallet, ch address.Address) uint64 {
	t.Helper()
	lane, err := w.AllocateLane(t.Context(), ch, voucher.MaxAmount)
	must(t, err)
	return lane
}

// signed returns what key would sign, with changes, whatever a Wallet thinks of it.
func signed(t testing.TB, key voucher.Key, payee address.Address, lane, nonce, amount uint64, change ...func(*voucher.SignedVoucher)) *voucher.SignedVoucher {
	t.Helper()
	ch, err := ChannelAddress(key.Address(), payee)
	must(t, err)
	v := &voucher.SignedVoucher{ChannelAddr: ch, Lane: lane, Nonce: nonce, Amount: fbig.NewIntUnsigned(amount)}
	for _, c := range change {
		c(v)
	}
	must(t, key.Sign(v))
	return v
}

// save gives v to the till for the channel that it names.
func save(ctx context.Context, till *Till, v *voucher.SignedVoucher) (voucher.Amount, error) {
	return till.SavePaymentVoucher(ctx, v.ChannelAddr, v, nil, voucher.Amount{})
}
