package integration

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestGoodwill: a client that has paid is lent what it has earned in its next deals, once
// for all of them, and one that kept it without paying is lent it no more.
func TestGoodwill(t *testing.T) {
	t.Parallel()
	const size, block = 12 << 20, 10_000
	ask := voucher.Ask{PricePerByte: 3, PaymentInterval: 64 << 10}
	var cars []string
	var roots []cid.Cid
	var all uint64 // of the first
	for i := range int64(4) {
		car, root, n := makeCAR(t, t.TempDir(), size-i, block)
		if i == 0 {
			all = n
		}
		cars, roots = append(cars, car), append(roots, root)
	}
	s := newSeller(t, t.TempDir(), newHost(t, true), cars, ask, voucher.OneFIL, func(c *market.ProviderConfig) {
		c.EarnedCredit, c.IdleTimeout = 1<<20, 5*time.Second
	})
	over := make(chan voucher.DealID, 16)
	s.SubscribeToEvents(func(ev market.ProviderEvent, d market.ProviderDealState) {
		if ev == market.ProviderEventComplete || ev == market.ProviderEventError {
			over <- d.ID
		}
	})
	f := newFreeloader(t, roots[0])
	ctx := within(t, longest)
	ended := func(n int) {
		t.Helper()
		for range n {
			select {
			case <-over:
			case <-ctx.Done():
				t.Fatal("deals do not end")
			}
		}
	}
	unpaid := func(chid datatransfer.ChannelID, want uint64) {
		t.Helper()
		if got := served(ctx, t, s, chid, want); got >= want+block {
			t.Errorf("%d bytes sent without a payment, want %d and at most a block of %d", got, want, block)
		}
	}
	interval := uint64(ask.PaymentInterval)

	chid := f.open(s, roots[0], 1, ask)
	unpaid(chid, interval)
	f.pay(s, chid, 1, ask.PricePerByte.Of(2*size))
	ended(1)

	one, two := f.open(s, roots[1], 2, ask), f.open(s, roots[2], 3, ask)
	both := served(ctx, t, s, one, interval) + served(ctx, t, s, two, interval)
	if want := 2*interval + all/32; both < want || both >= want+2*block {
		t.Errorf("%d bytes sent in two deals without a payment, want %d and at most two blocks of %d", both, want, block)
	}
	ended(2)
	unpaid(f.open(s, roots[3], 4, ask), interval)
}
