package integration

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/ipfs/go-cid"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// newLongShop offers a DAG of so many blocks, far more than an interval has, and a small
// one for free.
func newLongShop(t *testing.T, blocks int64) (s *shop, free cid.Cid) {
	t.Helper()
	car, root, size := makeCAR(t, t.TempDir(), blocks*shopBlock, shopBlock)
	gift, free, _ := makeCAR(t, t.TempDir(), 5*shopBlock, shopBlock)
	return &shop{deal: root, cars: []string{car, gift}, dealSize: size}, free
}

// givesAway makes a payload free.
func givesAway(free cid.Cid) sellerOption {
	return func(c *market.ProviderConfig) {
		c.Pricing = func(in market.PricingInput) voucher.Ask {
			if in.Payload.PayloadCID == free {
				return voucher.Ask{}
			}
			return in.Ask
		}
	}
}

// reopens returns a seller, and what ends it and starts the next one in its place.
func reopens(t *testing.T, shop *shop, opts ...sellerOption) (*seller, func(ctx context.Context, r *returner)) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	dir := t.TempDir()
	sel := newSeller(t, dir, newHostWithKey(t, key, true), shop.cars, shopAsk, voucher.OneFIL, opts...)
	return sel, func(ctx context.Context, r *returner) {
		addr := sel.host.Addrs()[0].String()
		sel.stop()
		sel = newSeller(t, dir, newHostAt(t, key, addr), shop.cars, shopAsk, voucher.OneFIL, opts...)
		must(t, r.raider.host.Network().ClosePeer(sel.host.ID()))
		r.moved(ctx, sel.host)
		r.s, r.last = sel, gsmsg.GraphSyncRequest{} // its request is gone
	}
}

// newRecalled is a returner that began at a link and paid for one interval of two, and
// whose seller was restarted since.
func newRecalled(ctx context.Context, t *testing.T, shop *shop, skip int64) *returner {
	t.Helper()
	sel, reopen := reopens(t, shop)
	r := newReturner(t, sel, shop, 7)
	r.begin(ctx, skip)
	r.has(ctx, shopInterval)
	r.payNext(ctx)
	r.has(ctx, 2*shopInterval)
	reopen(ctx, r)
	return r
}

// leave cancels the request of a returner, and waits until nothing comes any more.
func (r *returner) leave(ctx context.Context) loot {
	r.send(ctx, gsmsg.NewCancelRequest(r.last.ID()))
	return r.loot(ctx, r.shop)
}

// onlyPaid fails if a returner has more than it paid for, an interval, and what one
// request may be sent beyond that before it is ended: three blocks.
func (r *returner) onlyPaid(ctx context.Context, what string) {
	r.raider.t.Helper()
	if got, allowed := r.loot(ctx, r.shop), (r.paid+1)*shopInterval+4*shopBlock; got.unique > allowed {
		r.raider.t.Errorf("%s: %+v of %d, %d allowed", what, got, r.shop.dealSize, allowed)
	}
}

// TestRestartGap: a client leaves out the middle when it restarts its channel, and comes
// back for it. Data-transfer does not count again what lies before the furthest link.
func TestRestartGap(t *testing.T) {
	t.Parallel()
	shop, _ := newLongShop(t, 400)
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	for _, far := range []int64{300, 390} {
		r := newReturner(t, sel, shop, 7)
		r.begin(ctx, 0)
		r.has(ctx, shopInterval)
		r.leave(ctx)
		r.payNext(ctx)
		r.again(ctx, far)
		for range 2 {
			r.again(ctx, 4)
		}
		r.onlyPaid(ctx, "behind the gap")
	}
}

// TestRestartLaterBase: a client that was sent nothing yet restarts its channel further
// on, so that the deal seems to begin there, and again where it began.
func TestRestartLaterBase(t *testing.T) {
	t.Parallel()
	shop, _ := newLongShop(t, 400)
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	for _, skip := range []int64{0, 3, 100} {
		r := newReturner(t, sel, shop, 7)
		v := proposalFor(t, r.id, shop.deal, selectors.All())
		m, err := message.NewRequest(r.next, false, true, &v, shop.deal, selectors.All())
		must(t, err)
		r.last = gsRequest(shop.deal, dtExt(t, m), skipFirst(skip))
		r.send(ctx, r.last)
		r.leave(ctx) // at once
		r.again(ctx, 395)
		r.again(ctx, skip)
		r.onlyPaid(ctx, "where it began")
	}
}

// TestRestartRecalled: after a restart of the provider, which knows less of what was
// sent, a client restarts its channel, or opens another, where it never was.
func TestRestartRecalled(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]func(context.Context, *returner){
		"before the deal": func(ctx context.Context, r *returner) { r.again(ctx, 0) },
		"behind a gap": func(ctx context.Context, r *returner) {
			r.next++
			r.begin(ctx, 390)
			r.begin(ctx, 204)
			r.again(ctx, 389)
			r.again(ctx, 204)
		},
		"behind a gap, restarted": func(ctx context.Context, r *returner) {
			r.again(ctx, 390)
			r.again(ctx, 204)
		},
	} {
		t.Run(name, func(t *testing.T) {
			shop, _ := newLongShop(t, 400)
			ctx := within(t, longest)
			r := newRecalled(ctx, t, shop, 200)
			way(ctx, r)
			r.onlyPaid(ctx, "in the end")
		})
	}
}

// propose proposes a deal on a channel, or restarts that.
func (r *returner) propose(ctx context.Context, on datatransfer.TransferID, p voucher.DealProposal, restart bool, skip int64) gsmsg.GraphSyncRequest {
	r.raider.t.Helper()
	node, err := p.Encode()
	must(r.raider.t, err)
	v := datatransfer.TypedVoucher{Voucher: node, Type: voucher.ProposalType}
	m, err := message.NewRequest(on, restart, true, &v, p.PayloadCID, selectors.All())
	must(r.raider.t, err)
	q := gsRequest(p.PayloadCID, dtExt(r.raider.t, m), skipFirst(skip))
	r.ask(ctx, q)
	return q
}

// stands waits until a channel has stood still for longer than a deal takes to look
// whether it stands still.
func (r *returner) stands(ctx context.Context, id datatransfer.TransferID) {
	r.raider.t.Helper()
	chid := datatransfer.ChannelID{Initiator: r.raider.host.ID(), Responder: r.s.host.ID(), ID: id}
	standing(ctx, r.raider.t, r.s, chid, 0, 50*time.Millisecond, 5*time.Second)
}

// TestForeignChannel: a client proposes a free deal on the channel of one that costs.
// Data-transfer refuses that, but it asks the market first; and after a restart the
// market does not know whose the channel is.
func TestForeignChannel(t *testing.T) {
	t.Parallel()
	shop, free := newLongShop(t, 400)
	gift := voucher.DealProposal{PayloadCID: free, ID: 8, Params: voucher.Params{Selector: selectors.All()}}
	for name, restarts := range map[string]bool{"same run": false, "next run": true} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, longest)
			sel, reopen := reopens(t, shop, givesAway(free))
			r := newReturner(t, sel, shop, 7)
			r.begin(ctx, 0)
			r.has(ctx, shopInterval)
			r.leave(ctx)
			r.payNext(ctx)
			if restarts {
				reopen(ctx, r)
			}
			r.propose(ctx, r.next, gift, false, 0)
			r.again(ctx, 4)
			r.stands(ctx, r.next)
			r.onlyPaid(ctx, "for free")
		})
	}
}

// TestForeignChannelPaid: what was paid for one deal is not lent again to another, on
// whose channel it is proposed once more.
func TestForeignChannelPaid(t *testing.T) {
	t.Parallel()
	shop, _ := newLongShop(t, 200)
	car, other, _ := makeCAR(t, t.TempDir(), 300*shopBlock, 60_000) // of other blocks
	ctx := within(t, longest)
	sel := newSeller(t, t.TempDir(), newHost(t, true), append(shop.cars, car), shopAsk, voucher.OneFIL)
	r := newReturner(t, sel, shop, 7)
	r.begin(ctx, 0)
	r.paid = 40
	r.payNext(ctx)
	r.has(ctx, 42*shopInterval)
	r.leave(ctx)
	r.payNext(ctx)
	on := func(id voucher.DealID, root cid.Cid, restart bool, skip int64) gsmsg.GraphSyncRequest {
		return r.propose(ctx, 900, voucher.DealProposal{PayloadCID: root, ID: id, Params: voucher.Params{Selector: selectors.All(), PricePerByte: shopAsk.PricePerByte, PaymentInterval: shopAsk.PaymentInterval}}, restart, skip)
	}
	r.last = on(9, other, false, 0)
	before := r.leave(ctx)
	if code, why := r.frame(ctx, 9, encodePayment(t, 9, r.channel(), r.voucher(2, 1, intervals(1), nil))); code != 0 {
		t.Fatal(why)
	}
	on(7, shop.deal, false, 0)
	on(9, other, true, 4)
	r.stands(ctx, 900)
	if got := r.loot(ctx, shop); got.unique > before.unique+shopInterval+4*shopBlock {
		t.Errorf("%d bytes more of another deal, one interval of %d was paid", got.unique-before.unique, shopInterval)
	}
}
