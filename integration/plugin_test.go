package integration

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// homestead has a stack of its own, with two trades on it, and buys and sells on it.
type homestead struct {
	*trader
	trades []*trade
	own    *shelf // the stack's blocks
}

func newHomestead(t *testing.T, guarded bool, size int64) *homestead {
	t.Helper()
	s, own := homemade(t, guarded)
	p := &homestead{own: own}
	p.trades = []*trade{newTrade(t, s.transfers, "program/one/1", nil), newTrade(t, s.transfers, "program/two/1", newShelf())}
	p.trader = newTrader(t, s, size)
	return p
}

// shelf is where the blocks of a trade are.
func (p *homestead) shelf(trade int) *shelf {
	if s := p.trades[trade].store; s != nil {
		return s
	}
	return p.own
}

// TestBesideOtherVouchers: two programs trade with each other under voucher types
// of their own, and in both directions, and at the same time sell to and buy from
// each other, all on one manager each. Everything arrives, and nobody sees or
// touches what is not its own.
func TestBesideOtherVouchers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ guarded bool }{"plain stack": {false}, "guarded stack": {true}} {
		t.Run(name, func(t *testing.T) {
			one, two := newHomestead(t, c.guarded, 8<<20), newHomestead(t, c.guarded, 9<<20)
			ctx := within(t, longest)
			must(t, one.host.Connect(ctx, two.addr()))
			var all sync.WaitGroup
			all.Go(func() { one.buy(ctx, two.trader) })
			all.Go(func() { two.buy(ctx, one.trader) })
			for i := range one.trades {
				for seed := range byte(3) {
					one.tradeWith(ctx, &all, two, i, false, 2*seed)
					two.tradeWith(ctx, &all, one, i, false, 2*seed+1)
				}
			}
			all.Wait()
			for _, p := range []*homestead{one, two} {
				p.checkSold(1)
				p.checkTrades(3)
			}
		})
	}
}

// tradeWith moves a DAG of other under one of the trades, aside.
func (p *homestead) tradeWith(ctx context.Context, all *sync.WaitGroup, other *homestead, trade int, push bool, seed byte) {
	p.t.Helper()
	from := other
	if push {
		from = p
	}
	root, size := from.shelf(trade).fill(p.t, 16, 10*byte(trade)+seed)
	all.Go(func() {
		st, err := p.trades[trade].move(ctx, p.site, push, other.host.ID(), root)
		switch {
		case err != nil:
			p.t.Errorf("trade %d: %v", trade, err)
		case st.Status() != datatransfer.Completed:
			p.t.Errorf("trade %d: %s: %s", trade, st.Status(), st.Message())
		case !push && st.Received() != uint64(size):
			p.t.Errorf("trade %d: %d bytes, want %d", trade, st.Received(), size)
		}
	})
}

// checkTrades says that each trade was asked about so many channels, all its own.
func (p *homestead) checkTrades(channels int) {
	p.t.Helper()
	for _, tr := range p.trades {
		tr.mu.Lock()
		if len(tr.seen) != channels || len(tr.strange) != 0 {
			p.t.Errorf("%s was asked about %d channels, want %d, and shown %q of others", tr.name, len(tr.seen), channels, tr.strange)
		}
		tr.mu.Unlock()
	}
}

// TestPushes: what a program pushes under a voucher type of its own goes beside the
// market on a manager that is not guarded; a guarded one says that it does not push,
// and is not pushed to.
func TestPushes(t *testing.T) {
	t.Parallel()
	one, two := newHomestead(t, false, 1<<20), newHomestead(t, false, 2<<20)
	ctx := within(t, longest)
	must(t, one.host.Connect(ctx, two.addr()))
	var all sync.WaitGroup
	all.Go(func() { one.buy(ctx, two.trader) })
	one.tradeWith(ctx, &all, two, 0, true, 1)
	two.tradeWith(ctx, &all, one, 1, true, 2)
	all.Wait()
	two.checkSold(1)

	guarded := newHomestead(t, true, 1<<20)
	_, err := guarded.transfers.OpenPushDataChannel(ctx, two.host.ID(), datatransfer.TypedVoucher{}, two.root, nil)
	if !errors.Is(err, datatransfer.ErrUnsupported) {
		t.Errorf("a guarded manager pushes: %v", err)
	}
	must(t, one.host.Connect(ctx, guarded.addr()))
	root, _ := one.shelf(0).fill(t, 16, 3)
	soon, cancel := context.WithTimeout(ctx, 2*time.Second) // nothing tells of what is not taken
	defer cancel()
	if st, err := one.trades[0].move(soon, one.site, true, guarded.host.ID(), root); err == nil && st.Status() == datatransfer.Completed {
		t.Error("a guarded manager takes what is pushed")
	}
	guarded.checkTrades(0)
}

// TestAfterTheMarket: a market that is closed leaves the manager to what else is
// on it.
func TestAfterTheMarket(t *testing.T) {
	t.Parallel()
	one, two := newHomestead(t, true, 1<<20), newHomestead(t, true, 1<<20)
	ctx := within(t, longest)
	must(t, one.host.Connect(ctx, two.addr()))
	one.buy(ctx, two.trader)
	must(t, two.provider.Close())
	must(t, two.client.Close())
	var all sync.WaitGroup
	one.tradeWith(ctx, &all, two, 0, false, 1)
	two.tradeWith(ctx, &all, one, 1, false, 2)
	all.Wait()
	if _, err := one.client.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: two.addr()}, Root: two.root, Budget: voucher.OneFIL}); err != nil {
		t.Errorf("what was bought is not at hand without the provider: %v", err)
	}
}

// TestSecondProvider: a manager has one provider; another is refused, and does
// the first no harm.
func TestSecondProvider(t *testing.T) {
	t.Parallel()
	one, two := newHomestead(t, true, 1<<20), newHomestead(t, true, 1<<20)
	db, err := market.OpenDatabase(t.TempDir() + "/second.db")
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	second, err := market.NewProvider(market.ProviderConfig{
		Host: two.host, Transfers: two.transfers, UseStore: transport.UseStore, Pieces: two.goods, DB: db, Logger: testLogger(),
	})
	must(t, err)
	if err := second.Start(t.Context()); err == nil {
		t.Error("a second provider started")
	}
	must(t, second.Close())
	one.buy(within(t, longest), two.trader)
	two.checkSold(1)
}

// TestTwoClients: two clients on one manager buy at the same time, each for
// itself.
func TestTwoClients(t *testing.T) {
	t.Parallel()
	one, two := newHomestead(t, true, 6<<20), newHomestead(t, true, 7<<20)
	on, _ := homemade(t, true)
	ctx := within(t, longest)
	var both sync.WaitGroup
	for _, seller := range []*homestead{one, two} {
		b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.Host, c.Transfers = on.host, on.transfers })
		client := &trader{site: on, t: t, client: b.Client}
		both.Go(func() { client.buy(ctx, seller.trader) })
	}
	both.Wait()
	one.checkSold(1)
	two.checkSold(1)
}
