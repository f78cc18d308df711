package integration

import (
	"context"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// requestAttack is an attack by graphsync requests alone.
type requestAttack struct {
	name string
	run  func(ctx context.Context, r *raider, s *shop)
	// hurts says whether the plain stack was damaged; nil: it is not, and why is
	// said where the attack is.
	hurts func(loot) bool
	// again is how often a seller sends what it lends once more to one who does
	// this: he may have lost it on the way.
	again uint64
	deals uint64 // how many deals it makes, each of which is lent for; 0: one
}

func free(l loot) bool    { return l.total > shopCredit }
func foreign(l loot) bool { return l.foreign != 0 }

// skipFirst is do-not-send-first-blocks.
func skipFirst(n int64) graphsync.ExtensionData {
	return graphsync.ExtensionData{Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: basicnode.NewInt(n)}
}

func voucherExt(r *raider, id voucher.DealID, s *shop) graphsync.ExtensionData {
	v := proposalFor(r.t, id, s.deal, selectors.All())
	m, err := message.VoucherRequest(datatransfer.TransferID(id), &v)
	must(r.t, err)
	return dtExt(r.t, m)
}

// restarts cancels a request and restarts its channel, n times, from the first block.
func restarts(ctx context.Context, r *raider, s *shop, first gsmsg.GraphSyncRequest, n int) {
	for range n {
		r.send(ctx, gsmsg.NewCancelRequest(first.ID()))
		r.rest(ctx, graphsync.RequestID{}) // or the restart could meet the request that it replaces
		first = gsRequest(s.deal, pullMessage(r.t, 7, true, s.deal))
		r.ask(ctx, first)
	}
}

// staggered opens channels of one deal, each of which skips so many links.
func (r *raider) staggered(s *shop, skips ...int64) []gsmsg.GraphSyncRequest {
	r.t.Helper()
	var all []gsmsg.GraphSyncRequest
	for i, skip := range skips {
		v := proposalFor(r.t, 7, s.deal, selectors.All())
		m, err := message.NewRequest(datatransfer.TransferID(7+i), false, true, &v, s.deal, selectors.All())
		must(r.t, err)
		all = append(all, gsRequest(s.deal, dtExt(r.t, m), skipFirst(skip)))
	}
	return all
}

// cancelled is how many channels an attack cancels.
const cancelled = 10

var requestAttacks = []requestAttack{
	// A request that knows nothing of deals. Graphsync's own rule for selectors
	// takes any that is not too deep.
	{"bare request", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsmsg.NewRequest(graphsync.NewRequestID(), s.other, selectors.Depth(50), 0))
	}, free, 0, 0},
	// A deal for one root, a request for another: data-transfer checks the one and
	// graphsync serves the other.
	{"mismatched root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.other, pullMessage(r.t, 7, false, s.deal)))
	}, foreign, 0, 0},
	// Another voucher for the channel, on a request of its own, makes that request
	// valid; up to the index that was paid for, blocks count for nothing.
	{"voucher on another root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		for range 3 {
			r.ask(ctx, gsRequest(s.other, voucherExt(r, 7, s)))
		}
	}, func(l loot) bool { return free(l) && foreign(l) }, 0, 0},
	// The same with the same root, again and again.
	{"voucher, again and again", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		for range 3 {
			r.ask(ctx, gsRequest(s.deal, voucherExt(r, 7, s)))
		}
	}, free, 0, 0},
	// An update that says that the client goes on has no voucher at all.
	{"update on another root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		for range 3 {
			r.ask(ctx, gsRequest(s.other, dtExt(r.t, message.UpdateRequest(7, false))))
		}
	}, nil, 0, 0},
	// A restart is checked against the channel, and serves what its request asks for.
	{"restart on another root", func(ctx context.Context, r *raider, s *shop) {
		first := gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal))
		r.ask(ctx, first)
		r.send(ctx, gsmsg.NewCancelRequest(first.ID()))
		r.rest(ctx, graphsync.RequestID{})
		r.ask(ctx, gsRequest(s.other, pullMessage(r.t, 7, true, s.deal)))
	}, foreign, 0, 0},
	// Every restart has everything sent again, and one block more.
	{"restarts from the first block", func(ctx context.Context, r *raider, s *shop) {
		first := gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal))
		r.ask(ctx, first)
		restarts(ctx, r, s, first, 5)
	}, free, 5, 0},
	// What is skipped in the first request is behind the count in the next one.
	{"skip, then restart", func(ctx context.Context, r *raider, s *shop) {
		first := gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal), skipFirst(20))
		r.ask(ctx, first)
		restarts(ctx, r, s, first, 1)
	}, free, 1, 0},
	// The same on another root.
	{"skip on another root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.other, pullMessage(r.t, 7, false, s.deal), skipFirst(2)))
	}, foreign, 0, 0},
	// A provider that accepts pushes fetches what it is offered, to its own disk.
	{"push", func(ctx context.Context, r *raider, s *shop) {
		v := proposalFor(r.t, 7, s.deal, selectors.All())
		m, err := message.NewRequest(7, false, false, &v, cidOfNobody(), selectors.All())
		must(r.t, err)
		r.sendTransfer(ctx, m)
		r.rest(ctx, graphsync.RequestID{})
	}, func(l loot) bool { return l.asked != 0 }, 0, 0},
	// A push in a graphsync request is checked as a push, and served as a pull of
	// what the request asks for.
	{"push in a request", func(ctx context.Context, r *raider, s *shop) {
		v := proposalFor(r.t, 7, s.deal, selectors.All())
		m, err := message.NewRequest(7, false, false, &v, s.deal, selectors.All())
		must(r.t, err)
		r.ask(ctx, gsRequest(s.other, dtExt(r.t, m)))
	}, foreign, 0, 0},
	// The answer of one who is pushed to makes a request valid if the channel is
	// there; nobody pushes here. See TestAttackResponse for one who pulls.
	{"response", func(ctx context.Context, r *raider, s *shop) {
		m, err := message.NewResponse(7, true, false, nil)
		must(r.t, err)
		r.ask(ctx, gsRequest(s.other, dtExt(r.t, m)))
	}, nil, 0, 0},
	// Cancelled in data-transfer's own way, a channel is forgotten, its limit too, while
	// graphsync goes on to serve the request. Whoever is quick enough has it all.
	{"cancelled while it is served", func(ctx context.Context, r *raider, s *shop) {
		for id := voucher.DealID(7); id < 7+cancelled; id++ {
			q := gsRequest(s.deal, pullMessage(r.t, id, false, s.deal))
			r.send(ctx, q)
			r.sendTransfer(ctx, message.CancelRequest(datatransfer.TransferID(id)))
			r.rest(ctx, q.ID())
		}
	}, func(l loot) bool { return l.total > cancelled*shopCredit }, 0, cancelled},
	// One deal, many channels in one message, each of which claims to hold what the
	// one before it is sent. Every channel has a limit of its own, and what is
	// skipped costs nothing.
	{"one deal, many channels", func(ctx context.Context, r *raider, s *shop) {
		r.send(ctx, r.staggered(s, 0, 5, 10, 15, 20, 25)...)
		r.rest(ctx, graphsync.RequestID{})
	}, free, 5, 0},
	// The same, one after the other.
	{"one deal, channel after channel", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, r.staggered(s, 0, 5, 10, 15, 20, 25)...)
	}, free, 5, 0},
	// One channel, many requests in one message.
	{"one channel, many requests", func(ctx context.Context, r *raider, s *shop) {
		var all []gsmsg.GraphSyncRequest
		for range 20 {
			all = append(all, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		}
		r.send(ctx, all...)
		r.rest(ctx, graphsync.RequestID{})
	}, nil, 0, 0},
}

// TestAttackRequests runs them. The plain stack serves what nobody paid for; a
// seller serves at most what it lends, of the deal's own DAG, and then serves an
// honest client.
func TestAttackRequests(t *testing.T) {
	s := newShop(t)
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
	for _, a := range requestAttacks {
		t.Run(a.name, func(t *testing.T) {
			t.Run("plain", func(t *testing.T) {
				t.Parallel()
				ctx := within(t, longest)
				p := newPlain(t, s.links(), shopInterval)
				r := newRaider(t, p.host)
				a.run(ctx, r, s)
				got := r.loot(ctx, s)
				for a.hurts != nil && !a.hurts(got) && ctx.Err() == nil { // it may be slow to serve
					got = r.loot(ctx, s)
				}
				t.Logf("%+v", got)
				if a.hurts != nil && !a.hurts(got) {
					t.Errorf("the plain stack stood it: %+v", got)
				}
				if a.hurts == nil && (free(got) || foreign(got)) {
					t.Errorf("this attack works after all: %+v", got)
				}
			})
			t.Run("tollgraph", func(t *testing.T) {
				t.Parallel()
				ctx := within(t, longest)
				r := newRaider(t, sel.host)
				a.run(ctx, r, s)
				got := r.loot(ctx, s)
				t.Logf("%+v", got)
				if lent := max(a.deals, 1) * shopCredit; got.unique > lent || got.foreign != 0 || got.asked != 0 {
					t.Errorf("%+v, only %d bytes are lent", got, lent)
				}
				if again := got.total - got.unique; a.deals == 0 && again > a.again*shopCredit || a.deals != 0 && got.total > a.deals*shopCredit {
					t.Errorf("%d bytes were sent again", again)
				}
			})
		})
	}
	honestSale(t, within(t, longest), sel, s.deal, s.dealSize)
}
