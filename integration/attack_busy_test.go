package integration

import (
	"context"
	"errors"
	"math/big"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestBusy: over either limit of deals, of all and of one client, a client is told
// so in words, on the wire and by its own node, and gets in when there is room.
func TestBusy(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for name, limit := range map[string]sellerOption{
		"of all":        func(c *market.ProviderConfig) { c.MaxDeals = 1 },
		"of one client": func(c *market.ProviderConfig) { c.MaxDealsPerPeer = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, longest)
			sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, limit)
			c := newCrook(ctx, t, sel, s, 7)
			refused := c.refusals(t)
			c.open(sel, s.deal, 8, shopAsk)
			if got := wait(ctx, t, refused); got != voucher.RefusedBusy {
				t.Errorf("refused with %v", got)
			}
			if name == "of all" {
				turnedAway(ctx, t, sel, s)
			}
			must(t, sel.CancelDeal(market.ProviderDealID{From: c.host.ID(), ID: 7}))
			honestSale(t, ctx, sel, s.deal, s.dealSize)
		})
	}
}

// refusals tells with which codes a client's deals are refused.
func (f *freeloader) refusals(t *testing.T) <-chan voucher.Refusal {
	t.Helper()
	codes := make(chan voucher.Refusal, 8)
	t.Cleanup(f.node.Transfers().SubscribeToEvents(func(e datatransfer.Event, st datatransfer.ChannelState) {
		if e.Code != datatransfer.NewVoucherResult {
			return
		}
		r, err := voucher.DecodeDealResponse(st.LastVoucherResult().Voucher)
		if err != nil {
			t.Error(err)
			return
		}
		if code, _, ok := voucher.ParseRefusal(r.Message); ok && r.Status == voucher.DealStatusRejected {
			codes <- code
		}
	}))
	return codes
}

// turnedAway is a client for whom there is no room: it waits, and then says why it
// has got nothing.
func turnedAway(ctx context.Context, t *testing.T, sel *seller, s *shop) {
	t.Helper()
	b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.Patience, c.StallTimeout = 4*time.Second, time.Second })
	defer b.stop()
	got, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: sel.addr()}, Root: s.deal, Budget: voucher.OneFIL})
	if !errors.Is(err, market.ErrSuspended) || !errors.Is(err, voucher.RefusedBusy) || got.TotalReceived != 0 || !got.FundsSpent.IsZero() {
		t.Errorf("%d bytes for %s: %v", got.TotalReceived, got.FundsSpent, err)
	}
}

// TestBusyUnpaid: deals that wait for a payment, and have paid nothing or next to
// nothing, take no place that another deal needs. One of them is ended, with a word for
// its client, if it has waited long enough or if there are many of its kind, and never
// one that was paid for; a client that thinks about its first payment for a while buys
// all the same.
func TestBusyUnpaid(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for name, c := range map[string]struct {
		deals int           // of crooks, that pay nothing
		pays  int64         // attoFIL, each of them
		after time.Duration // UnpaidFor
		room  bool          // for one deal more
	}{
		"no longer":   {1, 0, time.Nanosecond, true},
		"not yet":     {1, 0, time.Hour, false},
		"an attoFIL":  {2, 1, time.Nanosecond, true},
		"not yet, it": {1, 1, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, longest)
			sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(p *market.ProviderConfig) {
				p.MaxDeals, p.UnpaidFor = c.deals+1, c.after
			})
			paid := newReturner(t, sel, s, 7)
			paid.begin(ctx, 0)
			paid.payNext(ctx)
			var told []<-chan voucher.Refusal
			for range c.deals {
				k := newCrook(ctx, t, sel, s, 7)
				took(ctx, t, sel, k.chid, shopInterval)
				if c.pays != 0 {
					k.payDust(ctx, c.pays)
				}
				told = append(told, k.refusals(t))
			}
			stands(ctx, sel, c.deals+1)
			if !c.room {
				turnedAway(ctx, t, sel, s)
				return
			}
			honestSale(t, ctx, sel, s.deal, s.dealSize)
			if got := wait(ctx, t, told[0]); got != voucher.RefusedBusy { // the one that waits longest
				t.Errorf("its client is told %v", got)
			}
			for paid.paid*shopInterval < s.dealSize {
				paid.payNext(ctx)
			}
			paid.has(ctx, s.dealSize)
		})
	}
}

// TestBusyParked: a deal whose client has no money left makes room when the time that
// it has paid for is over. When there is money again the rest is bought in another
// deal; no byte is paid for twice, and at most an interval is left unpaid.
func TestBusyParked(t *testing.T) {
	s := newShop(t)
	ctx := within(t, time.Minute)
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
		c.MaxDeals, c.UnpaidFor = 1, time.Nanosecond
	})
	b := newBuyer(t, t.TempDir())
	parked := make(chan struct{})
	park := once(func() { close(parked) })
	defer b.SubscribeToEvents(func(e market.ClientEvent, _ market.ClientDealState) {
		if e == market.ClientEventFundsExpended {
			park()
		}
	})()
	id, err := b.Retrieve(ctx, market.Request{
		Provider: market.RetrievalPeer{AddrInfo: sel.addr(), Address: sel.till.Address()}, Root: s.deal, Ask: &shopAsk, Budget: shopAsk.PricePerByte.Of(shopInterval),
	})
	must(t, err)
	wait(ctx, t, parked)
	honestSale(t, ctx, sel, s.deal, s.dealSize)
	first := sel.waitFor(t, id, voucher.DealStatusRejected)
	must(t, b.AddMoreFunds(ctx, id, voucher.OneFIL))
	last, err := b.Wait(ctx, id)
	must(t, err)
	deals, err := b.Deals(ctx, 10)
	must(t, err)
	var received voucher.Bytes
	for _, d := range deals {
		received += d.TotalReceived
	}
	whole, spent, owed := shopAsk.Terms().Cost(voucher.Bytes(s.dealSize)), b.spent(t), shopAsk.Terms().Cost(shopCredit)
	if last.ID == id || uint64(received) != s.dealSize || whole.Less(spent) || spent.Less(whole.Sub(owed)) || first.FundsReceived.IsZero() {
		t.Errorf("%d of %d bytes for %s of %s, the last in deal %d; the first: %+v", received, s.dealSize, spent, whole, last.ID, first)
	}
}

// TestBusyHolder: a client that comes back to many deals of which it holds everything
// is not taken for one whose deals come to nothing; it, and others, may begin more.
func TestBusyHolder(t *testing.T) {
	s := newShop(t)
	ctx := within(t, time.Minute)
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
	r := newRaider(t, sel.host)
	for id := range voucher.DealID(200) {
		q := gsRequest(s.deal, pullMessage(t, id+1, false, s.deal), skipFirst(1<<20))
		r.send(ctx, q)
		if got := r.answered(ctx, q.ID()); got != graphsync.RequestCompletedFull {
			t.Fatalf("deal %d: %v", id+1, got)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total != 0 {
		t.Errorf("%d bytes came", r.total)
	}
}

// payDust pays so many attoFIL.
func (c *crook) payDust(ctx context.Context, atto int64) {
	c.t.Helper()
	if code, why := c.frame(ctx, c.id, encodePayment(c.t, c.id, c.channel(), c.voucher(1, 1, big.NewInt(atto), nil))); code != 0 {
		c.t.Errorf("payment refused: %s", why)
	}
}

// stands waits until nothing moves in n deals.
func stands(ctx context.Context, s *seller, n int) {
	tick := time.NewTicker(50 * time.Millisecond) // the provider tells nobody when it does nothing
	defer tick.Stop()
	for since, last := time.Now(), voucher.Bytes(0); ctx.Err() == nil; <-tick.C {
		var sum voucher.Bytes
		deals := s.ListDeals()
		for _, d := range deals {
			sum += d.TotalSent
		}
		if sum != last || len(deals) < n {
			last, since = sum, time.Now()
		}
		if time.Since(since) > 5500*time.Millisecond { // what counts as standing still
			return
		}
	}
}

// stuck is a manager whose updates do not come to their end: as with a client that
// opens no stream for what it is told.
type stuck struct {
	market.Transfers
	in   chan struct{} // one is under way
	free chan struct{} // closed when they may end
}

func (s *stuck) UpdateValidationStatus(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.ValidationResult) error {
	select {
	case s.in <- struct{}{}:
	default:
	}
	<-s.free
	return s.Transfers.UpdateValidationStatus(context.WithoutCancel(ctx), chid, v)
}

// TestBusyTelling: a payment is answered at once also while the client does not
// take what it is told of the one before. When it does, it gets what it paid for.
func TestBusyTelling(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	slow := &stuck{in: make(chan struct{}, 1), free: make(chan struct{})}
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
		slow.Transfers, c.Transfers = c.Transfers, slow
	})
	free := once(func() { close(slow.free) })
	defer free() // the provider could not be closed
	r := newReturner(t, sel, s, 7)
	r.begin(ctx, 0)
	r.payNext(ctx)
	wait(ctx, t, slow.in)
	for range 2 {
		r.payNext(ctx) // it waits for the answer, and gives up in time
	}
	free()
	r.has(ctx, 4*shopInterval)
}

// TestBusyAway: the deals of clients that went away without paying are in nobody's
// way, even of one from their own network.
func TestBusyAway(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
		c.MaxDeals, c.UnpaidFor = 2, time.Hour
	})
	for range 2 {
		k := newCrook(ctx, t, sel, s, 7)
		took(ctx, t, sel, k.chid, shopInterval)
		must(t, k.host.Close())
	}
	honestSale(t, ctx, sel, s.deal, s.dealSize)
}
