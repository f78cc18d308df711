package integration

import (
	"context"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// unserved reports whether an honest request to a plain provider is not answered.
func unserved(ctx context.Context, t *testing.T, p *plain, s *shop) bool {
	t.Helper()
	patience, cancel := context.WithTimeout(ctx, 3*time.Second) // served, it takes some milliseconds
	defer cancel()
	honest := newRaider(t, p.host)
	q := gsRequest(s.deal, pullMessage(t, 100, false, s.deal))
	honest.send(patience, q)
	return honest.answered(patience, q.ID()) == 0
}

// TestAttackUnreadTwice: a peer that does not read what it asked for asks again.
// Plain graphsync waits for memory for the answer on the one goroutine that serves
// all, with all of its workers idle. A seller stays below that memory.
func TestAttackUnreadTwice(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	again := func(r *raider) {
		for i := range 4 {
			sloth(ctx, r, gsRequest(s.deal, pullMessage(t, voucher.DealID(i+1), false, s.deal)))
			r.rest(ctx, graphsync.RequestID{}) // what can be queued is
		}
	}
	t.Run("plain", func(t *testing.T) {
		p := newPlain(t, s.links(), 0, gsimpl.MaxMemoryPerPeerResponder(256<<10))
		again(newRaider(t, p.host))
		if !unserved(ctx, t, p, s) {
			t.Error("the plain stack stands it")
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		dir := t.TempDir()
		on := newStack(t, newHost(t, true), dir, func(c *transport.Config) { c.MemoryPerPeer = 256 << 10 })
		sel := newSellerOn(t, on, dir, s.cars, voucher.Ask{PricePerByte: 3, PaymentInterval: 4 << 20}, voucher.OneFIL)
		again(newRaider(t, sel.host))
		b := newBuyer(t, t.TempDir())
		got, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: sel.addr()}, Root: s.deal, Budget: voucher.OneFIL})
		if err != nil || uint64(got.TotalReceived) != s.dealSize {
			t.Errorf("%d bytes: %v", got.TotalReceived, err)
		}
	})
}

// TestAttackRestartMeetsResume: a restart arrives before the resume that a payment
// causes, and both wait for the goroutine that serves all. In data-transfer the
// resume holds the channel's lock while it waits for that goroutine, and there the
// restart waits for the lock: nobody is served any more. A seller's resume holds
// nothing up.
func TestAttackRestartMeetsResume(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	t.Run("plain", func(t *testing.T) {
		p := newPlain(t, s.links(), shopInterval)
		busy, free := make(chan struct{}), make(chan struct{})
		p.gs.RegisterIncomingRequestHook(func(_ peer.ID, q graphsync.RequestData, _ graphsync.IncomingRequestHookActions) {
			if q.Root().Equals(s.other) {
				close(busy)
				<-free
			}
		})
		r := newRaider(t, p.host)
		r.ask(ctx, gsRequest(s.deal, pullMessage(t, 7, false, s.deal)))
		r.send(ctx, gsRequest(s.other, pullMessage(t, 8, false, s.other)))
		wait(ctx, t, busy)
		r.send(ctx, gsRequest(s.deal, pullMessage(t, 7, true, s.deal)))
		r.rest(ctx, graphsync.RequestID{}) // it waits its turn
		go func() {                        // it never ends
			_ = p.manager.UpdateValidationStatus(ctx, datatransfer.ChannelID{Initiator: r.host.ID(), Responder: p.host.ID(), ID: 7}, raise)
		}()
		r.rest(ctx, graphsync.RequestID{})
		close(free)
		if !unserved(ctx, t, p, s) {
			t.Error("the plain stack stands it")
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		busy, free := make(chan struct{}), make(chan struct{})
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
			c.Pricing = heldUp(s.other, busy, free)
		})
		r := newReturner(t, sel, s, 7)
		r.begin(ctx, 0)
		blocker := newRaider(t, sel.host)
		blocker.send(ctx, gsRequest(s.other, pullMessage(t, 8, false, s.other)))
		wait(ctx, t, busy)
		r.send(ctx, gsRequest(s.deal, pullMessage(t, 7, true, s.deal)))
		r.rest(ctx, graphsync.RequestID{})
		paying := make(chan struct{})
		go func() {
			defer close(paying)
			r.payNext(ctx)
		}()
		r.rest(ctx, graphsync.RequestID{})
		close(free)
		wait(ctx, t, paying)
		honestSale(t, ctx, sel, s.deal, s.dealSize)
	})
}

// heldUp prices a payload only when it may, and says when it waits for that. It is
// called on the goroutine that serves all.
func heldUp(root cid.Cid, busy, free chan struct{}) func(market.PricingInput) voucher.Ask {
	say := once(func() { close(busy) })
	return func(in market.PricingInput) voucher.Ask {
		if in.Payload.PayloadCID.Equals(root) {
			say()
			<-free
		}
		return in.Ask
	}
}

// TestAttackVanish: a client goes away while its response is paused. Plain graphsync
// keeps the response, for ever; for how long is of no use to wait here. A seller
// ends it after a while: see TestGone of transport.
func TestAttackVanish(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	p := newPlain(t, s.links(), shopInterval)
	r := newRaider(t, p.host)
	q := gsRequest(s.deal, pullMessage(t, 7, false, s.deal))
	r.ask(ctx, q)
	gone := make(chan struct{})
	said := once(func() { close(gone) })
	p.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { said() }})
	must(t, r.host.Close())
	wait(ctx, t, gone)
	<-time.After(2 * calm)
	if _, kept := p.gs.(*gsimpl.GraphSync).PeerState(r.host.ID()).IncomingState.RequestStates[q.ID()]; !kept {
		t.Error("the plain stack has let go of it")
	}
}
