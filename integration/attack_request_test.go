package integration

import (
	"context"
	"testing"
	"time"

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
	// lent is how much more than shopCredit a seller lends to one who does this.
	lent uint64
}

// lentToRestarts is two blocks for each amount paid. data-transfer stops a
// restarted channel only behind its first new block, and one that may have lost
// blocks on the way must have them again before it can pay for them.
const lentToRestarts = 2 * (shopBlock + 1024)

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

var requestAttacks = []requestAttack{
	// A request that knows nothing of deals. Graphsync's own rule for selectors
	// takes any that is not too deep.
	{"bare request", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsmsg.NewRequest(graphsync.NewRequestID(), s.other, selectors.Depth(50), 0))
	}, free, 0},
	// A deal for one root, a request for another: data-transfer checks the one and
	// graphsync serves the other.
	{"mismatched root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.other, pullMessage(r.t, 7, false, s.deal)))
	}, foreign, 0},
	// Another voucher for the channel, on a request of its own, makes that request
	// valid; up to the index that was paid for, blocks count for nothing.
	{"voucher on another root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		for range 3 {
			r.ask(ctx, gsRequest(s.other, voucherExt(r, 7, s)))
		}
	}, func(l loot) bool { return free(l) && foreign(l) }, 0},
	// The same with the same root, again and again.
	{"voucher, again and again", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		for range 3 {
			r.ask(ctx, gsRequest(s.deal, voucherExt(r, 7, s)))
		}
	}, free, 0},
	// An update that says that the client goes on has no voucher at all.
	{"update on another root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		for range 3 {
			r.ask(ctx, gsRequest(s.other, dtExt(r.t, message.UpdateRequest(7, false))))
		}
	}, nil, 0},
	// A restart is checked against the channel, and serves what its request asks for.
	{"restart on another root", func(ctx context.Context, r *raider, s *shop) {
		first := gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal))
		r.ask(ctx, first)
		r.send(ctx, gsmsg.NewCancelRequest(first.ID()))
		r.rest(ctx, graphsync.RequestID{})
		r.ask(ctx, gsRequest(s.other, pullMessage(r.t, 7, true, s.deal)))
	}, foreign, 0},
	// Every restart has everything sent again, and one block more.
	{"restarts from the first block", func(ctx context.Context, r *raider, s *shop) {
		first := gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal))
		r.ask(ctx, first)
		restarts(ctx, r, s, first, 5)
	}, free, lentToRestarts},
	// What is skipped in the first request is behind the count in the next one.
	{"skip, then restart", func(ctx context.Context, r *raider, s *shop) {
		first := gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal), skipFirst(20))
		r.ask(ctx, first)
		restarts(ctx, r, s, first, 1)
	}, free, lentToRestarts},
	// The same on another root.
	{"skip on another root", func(ctx context.Context, r *raider, s *shop) {
		r.ask(ctx, gsRequest(s.other, pullMessage(r.t, 7, false, s.deal), skipFirst(2)))
	}, foreign, 0},
	// A provider that accepts pushes fetches what it is offered, to its own disk.
	{"push", func(ctx context.Context, r *raider, s *shop) {
		v := proposalFor(r.t, 7, s.deal, selectors.All())
		m, err := message.NewRequest(7, false, false, &v, s.ofNobody(), selectors.All())
		must(r.t, err)
		r.sendTransfer(ctx, m)
		r.rest(ctx, graphsync.RequestID{})
	}, func(l loot) bool { return l.asked != 0 }, 0},
	// A push in a graphsync request is checked as a push, and served as a pull of
	// what the request asks for.
	{"push in a request", func(ctx context.Context, r *raider, s *shop) {
		v := proposalFor(r.t, 7, s.deal, selectors.All())
		m, err := message.NewRequest(7, false, false, &v, s.deal, selectors.All())
		must(r.t, err)
		r.ask(ctx, gsRequest(s.other, dtExt(r.t, m)))
	}, foreign, 0},
	// The answer of one who is pushed to makes a request valid if the channel is
	// there; nobody pushes here. See TestAttackResponse for one who pulls.
	{"response", func(ctx context.Context, r *raider, s *shop) {
		m, err := message.NewResponse(7, true, false, nil)
		must(r.t, err)
		r.ask(ctx, gsRequest(s.other, dtExt(r.t, m)))
	}, nil, 0},
	// One channel, many requests in one message.
	{"one channel, many requests", func(ctx context.Context, r *raider, s *shop) {
		var all []gsmsg.GraphSyncRequest
		for range 20 {
			all = append(all, gsRequest(s.deal, pullMessage(r.t, 7, false, s.deal)))
		}
		r.send(ctx, all...)
		r.rest(ctx, graphsync.RequestID{})
	}, nil, 0},
}

// TestAttackRequests runs them. The plain stack serves what nobody paid for; a
// seller serves at most what it lends, of the deal's own DAG, and then serves an
// honest client.
func TestAttackRequests(t *testing.T) {
	s := newShop(t)
	ctx := within(t, 80*time.Second)
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
	for _, a := range requestAttacks {
		t.Run(a.name, func(t *testing.T) {
			t.Run("plain", func(t *testing.T) {
				t.Parallel()
				p := newPlain(t, s.links(), shopInterval)
				r := newRaider(t, p.host)
				a.run(ctx, r, s)
				got := r.loot(ctx, s)
				t.Logf("%+v", got)
				if hurt := a.hurts != nil && a.hurts(got); hurt != (a.hurts != nil) {
					t.Errorf("the plain stack stood it: %+v", got)
				}
				if a.hurts == nil && (free(got) || foreign(got)) {
					t.Errorf("this attack works after all: %+v", got)
				}
			})
			t.Run("tollgraph", func(t *testing.T) {
				t.Parallel()
				r := newRaider(t, sel.host)
				a.run(ctx, r, s)
				got := r.loot(ctx, s)
				if got.unique > shopCredit+a.lent || got.foreign != 0 || got.asked != 0 {
					t.Errorf("%+v, only %d bytes of the deal are lent", got, shopCredit+a.lent)
				}
				if again := got.total - got.unique; again != 0 && (a.lent == 0 || again > 2*shopCredit+a.lent) {
					t.Errorf("%d bytes were sent again", again)
				}
			})
		})
	}
	honestSale(t, ctx, sel, s.deal, s.dealSize)
}
