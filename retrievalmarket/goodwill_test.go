package retrievalmarket

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// account is that of a deal at price in which so many bytes moved and were paid for.
func account(price voucher.Price, moved, paid Bytes) revalidator.Account {
	return revalidator.Account{Terms: voucher.Terms{Price: price, Interval: 1 << 20}, Moved: moved, Paid: price.Of(paid)}
}

// TestGoodwillTable pins what is lent to a client after its deals, to two deals at once.
func TestGoodwillTable(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		over         []revalidator.Account
		price        voucher.Price
		first, other Bytes
	}{
		"new":                       {nil, 3, 0, 0},
		"paid":                      {[]revalidator.Account{account(3, 64*mib, 64*mib)}, 3, 2 * mib, 0},
		"paid for two deals' worth": {[]revalidator.Account{account(3, 704*mib, 704*mib)}, 3, 16 * mib, 6 * mib},
		"paid, and dearer now":      {[]revalidator.Account{account(3, 64*mib, 64*mib)}, 6, mib, 0},
		"paid, and for free now":    {[]revalidator.Account{account(3, 64*mib, 64*mib)}, 0, 0, 0},
		"paid for what never came":  {[]revalidator.Account{account(3, 32*mib, 64*mib)}, 3, mib, 0},
		"paid but the last":         {[]revalidator.Account{account(3, 64*mib, 63*mib)}, 3, 63*mib/32 - mib, 0},
		"ran away":                  {[]revalidator.Account{account(3, 640*mib, 640*mib), account(3, 20*mib, 0)}, 3, 0, 0},
		"ran away, and paid since":  {[]revalidator.Account{account(3, 20*mib, 0), account(3, 64*mib, 64*mib)}, 3, 2 * mib, 0},
		"had it for free":           {[]revalidator.Account{account(0, 640*mib, 0)}, 3, 0, 0},
	} {
		g := newGoodwill(16 * mib)
		for _, a := range tc.over {
			g.over("client", 0, a)
		}
		first := g.lend("client", tc.price)
		if other := g.lend("client", tc.price); first != tc.first || other != tc.other {
			t.Errorf("%s: lent %d and %d, want %d and %d", name, first, other, tc.first, tc.other)
		}
		if n := g.lend("another", tc.price); n != 0 {
			t.Errorf("%s: lent %d to another", name, n)
		}
	}
}

// TestGoodwillOff: without it nothing is lent, and nothing is remembered.
func TestGoodwillOff(t *testing.T) {
	g := newGoodwill(0)
	g.over("client", 0, account(3, 1<<30, 1<<30))
	if n := g.lend("client", 3); n != 0 || len(g.clients) != 0 {
		t.Errorf("lent %d, %d remembered", n, len(g.clients))
	}
}

// TestGoodwillLaws: whatever deals a client has, at once and one after the other, and
// however they end within what was lent, it never has more beyond what it paid for, of
// what it was lent, than a share of what it paid.
func TestGoodwillLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGoodwill(Bytes(rapid.Uint64Range(0, 1<<24).Draw(t, "most")))
		type open struct {
			price voucher.Price
			lent  Bytes
		}
		var deals []open
		var paid, lost voucher.Amount
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "begins") || len(deals) == 0 {
				d := open{price: voucher.Price(rapid.Uint64Range(0, 1000).Draw(t, "price"))}
				if d.lent = g.lend("client", d.price); d.lent > g.most {
					t.Fatalf("lent %d of %d", d.lent, g.most)
				}
				deals = append(deals, d)
				continue
			}
			i := rapid.IntRange(0, len(deals)-1).Draw(t, "which")
			d := deals[i]
			deals = append(deals[:i], deals[i+1:]...)
			moved := Bytes(rapid.Uint64Range(0, 1<<26).Draw(t, "moved"))
			owes := min(moved, Bytes(rapid.Uint64Range(0, uint64(d.lent)).Draw(t, "owes")))
			g.over("client", d.lent, account(d.price, moved, moved-owes))
			paid, lost = paid.Add(d.price.Of(moved-owes)), lost.Add(d.price.Of(owes))
		}
		out := lost
		for _, d := range deals {
			out = out.Add(d.price.Of(d.lent))
		}
		if share := voucher.Price(earnedShare).Of(Bytes(out.Big().Uint64())); paid.Less(share) {
			t.Fatalf("%s lost or lent, %s paid", out, paid)
		}
	})
}

// TestGoodwillBounded: not more clients are remembered than there is room for, and
// none is forgotten that is lent something.
func TestGoodwillBounded(t *testing.T) {
	g := newGoodwill(1 << 20)
	g.over("debtor", 0, account(3, 1<<26, 1<<26))
	lent := g.lend("debtor", 3)
	for i := range 3 * throttled {
		g.over(peer.ID(fmt.Sprint(i)), 0, account(3, 1<<26, 1<<26))
	}
	known := len(g.clients)
	for i := range 3 * throttled { // who pays for next to nothing, or nothing, drives out nobody
		g.over(peer.ID(fmt.Sprint("dust", i)), 0, account(3, 1<<20, Bytes(i%2)<<20))
	}
	if len(g.clients) != known || g.clients["dust1"] != (standing{}) {
		t.Errorf("%d clients, and %d with dust", known, len(g.clients))
	}
	if len(g.clients) > throttled || lent == 0 || g.lend("debtor", 3) != 1<<20 {
		t.Errorf("%d clients, %+v lent %d", len(g.clients), g.clients["debtor"], lent)
	}
}
