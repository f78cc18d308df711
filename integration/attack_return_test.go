package integration

import (
	"context"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	gsmsg "github.com/ipfs/go-graphsync/message"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// returner is a raider with a wallet: it comes back to its deal again and again,
// and may pay.
type returner struct {
	*raider
	*crook
	shop *shop
	next datatransfer.TransferID
	last gsmsg.GraphSyncRequest
	paid uint64 // intervals
}

func newReturner(t *testing.T, s *seller, shop *shop, id voucher.DealID) *returner {
	t.Helper()
	key, err := voucher.NewKey()
	must(t, err)
	r := newRaider(t, s.host)
	c := &crook{freeloader: &freeloader{stack: &stack{t: t, host: r.host}, t: t}, s: s, key: key, id: id}
	return &returner{raider: r, crook: c, shop: shop, next: datatransfer.TransferID(id)}
}

// begin opens the deal's first channel, or another one, that skips so many links.
func (r *returner) begin(ctx context.Context, skip int64) { r.open(ctx, skip, false) }

// again restarts the channel, without the request that it had.
func (r *returner) again(ctx context.Context, skip int64) { r.open(ctx, skip, true) }

func (r *returner) open(ctx context.Context, skip int64, restart bool) {
	r.raider.t.Helper()
	if r.last.ID() != (gsmsg.GraphSyncRequest{}).ID() {
		r.send(ctx, gsmsg.NewCancelRequest(r.last.ID()))
		if !restart {
			r.next++
		}
	}
	v := proposalFor(r.raider.t, r.id, r.shop.deal, selectors.All())
	m, err := message.NewRequest(r.next, restart, true, &v, r.shop.deal, selectors.All())
	must(r.raider.t, err)
	r.last = gsRequest(r.shop.deal, dtExt(r.raider.t, m), skipFirst(skip))
	r.ask(ctx, r.last)
}

// pay pays for one more interval.
func (r *returner) payNext(ctx context.Context) {
	r.raider.t.Helper()
	r.paid++
	if code, why := r.frame(ctx, r.id, encodePayment(r.raider.t, r.id, r.channel(), r.voucher(1, r.paid, intervals(r.paid), nil))); code != 0 {
		r.raider.t.Errorf("payment refused: %s", why)
	}
}

// TestReturnOwing: a client that lost what it owes for is sent that again, and
// nothing new whatever it does; when it has paid it goes on, to the end. Both ways
// to come back are the same: another channel, and data-transfer's own restart.
func TestReturnOwing(t *testing.T) {
	shop := newShop(t)
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	for name, back := range map[string]func(*returner, context.Context, int64){"another channel": (*returner).begin, "restart": (*returner).again} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReturner(t, sel, shop, 7)
			r.begin(ctx, 0)
			for paid := uint64(0); paid*shopInterval < shop.dealSize; paid++ {
				allowed := min(paid*shopInterval+shopCredit, shop.dealSize)
				r.has(ctx, min((paid+1)*shopInterval, shop.dealSize))
				before := r.loot(ctx, shop)
				for range 2 {
					back(r, ctx, int64(4*paid)) // it has lost the last interval and a block
				}
				got := r.loot(ctx, shop)
				if got.unique > allowed || got.unique != before.unique {
					t.Fatalf("%d intervals paid: %+v, then %+v, %d bytes are lent", paid, before, got, allowed)
				}
				if got.total == before.total {
					t.Fatalf("%d intervals paid: nothing was sent again", paid)
				}
				r.payNext(ctx)
			}
			r.has(ctx, shop.dealSize)
		})
	}
}

// TestReturnForPaid: what was paid for is sent again only as far as it can have
// been on the way, in one return and over all of them.
func TestReturnForPaid(t *testing.T) {
	shop := newShop(t)
	ctx := within(t, longest)
	const allowance = 5 * shopBlock
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) { c.ResendAllowance = allowance })
	begun := func(t *testing.T) *returner {
		r := newReturner(t, sel, shop, 7)
		r.begin(ctx, 0)
		for range 3 {
			r.payNext(ctx)
		}
		r.has(ctx, 4*shopInterval)
		return r
	}
	t.Run("from the first block", func(t *testing.T) {
		t.Parallel()
		r := begun(t)
		before := r.loot(ctx, shop)
		r.begin(ctx, 0)
		if got := r.loot(ctx, shop); got.total > before.total+shopBlock {
			t.Errorf("%d bytes were sent again", got.total-before.total)
		}
		d := sel.ListDeals()[market.ProviderDealID{From: r.raider.host.ID(), ID: 7}]
		if code, _, ok := voucher.ParseRefusal(d.Message); !ok || code != voucher.RefusedResume {
			t.Errorf("the deal says %q", d.Message)
		}
	})
	t.Run("from within reach", func(t *testing.T) {
		t.Parallel()
		r := begun(t)
		before := r.loot(ctx, shop)
		for range 20 {
			r.begin(ctx, 14) // two blocks and a bit
		}
		got := r.loot(ctx, shop)
		if again := got.total - before.total; again < allowance || again > allowance+before.unique+3*shopBlock {
			t.Errorf("%d bytes were sent again", again)
		}
		if got.unique > 3*shopInterval+shopCredit {
			t.Errorf("%+v for three intervals", got)
		}
	})
	honestSale(t, ctx, sel, shop.deal, shop.dealSize)
}

// TestReturnBefore: another channel of a deal does not begin before the first one did.
// What lies there is in no account, and a client whose first channel asks for the last
// block would have everything for that.
func TestReturnBefore(t *testing.T) {
	shop := newShop(t)
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	for name, skip := range map[string]int64{"from the root": 0, "from a block before": 15} {
		for name, paid := range map[string]uint64{name + ", owing": 0, name + ", paid": 1, name + ", to the end": 8} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newReturner(t, sel, shop, 7)
				r.begin(ctx, 16)
				r.has(ctx, shopInterval)
				for range paid {
					r.payNext(ctx)
				}
				before := r.loot(ctx, shop)
				if before.unique < min(paid*shopInterval, shop.dealSize/3) {
					t.Fatalf("%+v for %d intervals", before, paid)
				}
				r.begin(ctx, skip)
				if got := r.loot(ctx, shop); got.unique != before.unique {
					t.Errorf("%+v, then %+v", before, got)
				}
				r.begin(ctx, 17) // it has no more of it by what it asked for in between
				if got := r.loot(ctx, shop); got.unique != before.unique {
					t.Errorf("%+v, in the end %+v", before, got)
				}
			})
		}
	}
}

// TestReturnAfterDone: the word that a client wants no more lets only a channel go that
// has come to its end, not the one that took its place.
func TestReturnAfterDone(t *testing.T) {
	const block = 64 << 10
	car, root, size := makeCAR(t, t.TempDir(), 40*block, block)
	shop := &shop{deal: root, cars: []string{car}, dealSize: size}
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	r := newReturner(t, sel, shop, 7)
	r.begin(ctx, 39)
	r.rest(ctx, r.last.ID())
	before := r.loot(ctx, shop)
	r.payNext(ctx)
	r.begin(ctx, 0)
	if code, why := r.done(ctx, r.id, encodePayment(t, r.id, r.channel(), r.voucher(1, r.paid+1, intervals(r.paid), nil))); code != 0 {
		t.Errorf("the last word: %s", why)
	}
	if got := r.loot(ctx, shop); got.unique != before.unique {
		t.Errorf("%+v, then %+v of %d", before, got, size)
	}
}
