package integration

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// pulledFrom opens a pull from a raider, who gets the request and never
// answers it.
func (r *raider) pulledFrom(ctx context.Context, m datatransfer.Manager, opts ...datatransfer.TransferOption) datatransfer.ChannelID {
	r.t.Helper()
	root := cidOfNobody()
	chid, err := m.OpenPullDataChannel(ctx, r.host.ID(), proposalFor(r.t, 7, root, selectors.All()), root, selectors.All(), opts...)
	must(r.t, err)
	r.until(ctx, func() bool { return r.asked > 0 })
	return chid
}

// answerAsRequest is a request for root whose data-transfer message is the answer
// of a provider to the channel that the victim opened.
func (r *raider) answerAsRequest(ctx context.Context, s *shop, chid datatransfer.ChannelID) gsmsg.GraphSyncRequest {
	r.t.Helper()
	m, err := message.NewResponse(chid.ID, true, false, nil)
	must(r.t, err)
	q := gsRequest(s.deal, dtExt(r.t, m))
	r.ask(ctx, q)
	return q
}

// moved connects a raider to its victim where that is now.
func (r *raider) moved(ctx context.Context, to host.Host) {
	r.t.Helper()
	r.sender = nil
	must(r.t, r.host.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()}))
}

// TestAttackResponse: a provider that a node pulls from asks that node for data,
// with an answer to the pull in place of a request. data-transfer takes it for
// the answer to a push of its own, checks no root and no selector, and serves from
// the node's own store. While the pull's channel is open in the process that
// opened it the request is paused; after a restart of the process it runs.
func TestAttackResponse(t *testing.T) {
	s := newShop(t)
	ctx := within(t, longest)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	t.Run("plain", func(t *testing.T) {
		ds := dssync.MutexWrap(datastore.NewMapDatastore())
		p := newPlainOn(t, plainHost(t, libp2p.Identity(key)), ds, s.links(), 0, nil)
		r := newRaider(t, p.host)
		chid := r.pulledFrom(ctx, p.manager)
		r.answerAsRequest(ctx, s, chid)
		if got := r.loot(ctx, s); got.total != 0 {
			t.Errorf("%+v without a restart", got)
		}
		p.stop()
		must(t, p.host.Close())
		p = newPlainOn(t, plainHost(t, libp2p.Identity(key)), ds, s.links(), 0, nil)
		r.moved(ctx, p.host)
		r.answerAsRequest(ctx, s, chid)
		if got := r.loot(ctx, s); got.total != s.dealSize {
			t.Errorf("the plain stack stood it: %+v", got)
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		dir := t.TempDir()
		n := newStack(t, newHostWithKey(t, key, true), dir)
		r := newRaider(t, n.host)
		chid := r.pulledFrom(ctx, n.node.Transfers(), datatransfer.WithTransportOptions(transport.UseStore(s.links())))
		r.refused(ctx, n, s, chid)
		n.close()
		n = newStack(t, newHostWithKey(t, key, true), dir)
		defer n.close()
		if _, err := n.node.Transfers().ChannelState(ctx, chid); err != nil {
			t.Fatalf("the channel is gone: %v", err)
		}
		r.moved(ctx, n.host)
		r.refused(ctx, n, s, chid)
	})
}

// refused runs the attack against a node that must not serve it.
func (r *raider) refused(ctx context.Context, n *stack, s *shop, chid datatransfer.ChannelID) {
	r.t.Helper()
	q := r.answerAsRequest(ctx, s, chid)
	if st := r.answered(ctx, q.ID()); !st.IsFailure() {
		r.t.Errorf("answered with %v", st)
	}
	if got := r.loot(ctx, s); got.total != 0 {
		r.t.Errorf("%+v", got)
	}
	if n.node.Dropped()[transport.ReasonNoTransfer] != 1 {
		r.t.Errorf("dropped %v", n.node.Dropped())
	}
}

// requestsInResponses are data-transfer requests that a provider puts where its
// answer belongs.
var requestsInResponses = map[string]func(t *testing.T, s *serving) (datatransfer.Message, error){
	"new pull": func(t *testing.T, s *serving) (datatransfer.Message, error) {
		v := proposalFor(t, 7, s.r.shop.other, selectors.All())
		return message.NewRequest(s.tid, false, true, &v, s.r.shop.other, selectors.All())
	},
	"push": func(t *testing.T, s *serving) (datatransfer.Message, error) {
		v := proposalFor(t, 7, s.r.shop.other, selectors.All())
		return message.NewRequest(s.tid, false, false, &v, s.r.shop.other, selectors.All())
	},
	"cancel": func(_ *testing.T, s *serving) (datatransfer.Message, error) { return message.CancelRequest(s.tid), nil },
	"voucher": func(t *testing.T, s *serving) (datatransfer.Message, error) {
		v := proposalFor(t, 7, s.r.shop.deal, selectors.All())
		return message.VoucherRequest(s.tid, &v)
	},
}

// TestAttackRequestInResponse is the other direction: the answer to a pull holds a
// data-transfer request. It does no harm on the plain stack either, which ends
// the transfer that it came with: nothing is opened, and nothing served. A client
// gives that provider up with a reason, pays nothing, and buys elsewhere.
func TestAttackRequestInResponse(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	sel := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	for name, make := range requestsInResponses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, longest)
			r := newRogue(t, shop, func(r *rogue, s *serving) {
				m, err := make(t, s)
				if err != nil {
					t.Error(err)
					return
				}
				s.send(func(b *gsmsg.Builder) {
					b.AddResponseCode(s.id, graphsync.PartialResponse)
					b.AddExtensionData(s.id, dtExt(t, m))
				})
			})
			p := newPlain(t, shop.links(), 0)
			over := until(t, p.manager, func(_ datatransfer.Event, st datatransfer.ChannelState) bool {
				return st.Status() == datatransfer.Failed || st.Status() == datatransfer.Cancelled
			})
			must(t, p.host.Connect(ctx, peer.AddrInfo{ID: r.host.ID(), Addrs: r.host.Addrs()}))
			root := cidOfNobody()
			_, err := p.manager.OpenPullDataChannel(ctx, r.host.ID(), proposalFor(t, 7, root, selectors.All()), root, selectors.All())
			must(t, err)
			wait(ctx, t, over)
			if all, err := p.manager.InProgressChannels(ctx); err != nil || len(all) != 1 {
				t.Errorf("plain: %d channels, %v", len(all), err)
			}
			b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.Patience, c.StallTimeout = 2*time.Second, time.Second })
			defer b.stop()
			got, err := b.Get(ctx, market.Request{
				Provider: market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: r.host.ID(), Addrs: r.host.Addrs()}, Address: r.key.Address()},
				Root:     shop.deal, Ask: &shopAsk, Expected: voucher.Bytes(shop.dealSize), Budget: voucher.OneFIL, AtRisk: risk(0),
			})
			if err == nil || err.Error() == "" || !got.FundsSpent.IsZero() || ctx.Err() != nil {
				t.Errorf("%d bytes for %s: %v", got.TotalReceived, got.FundsSpent, err)
			}
			if all, err := b.node.Transfers().InProgressChannels(ctx); err != nil {
				t.Error(err)
			} else {
				for chid := range all {
					if chid.Initiator != b.host.ID() {
						t.Errorf("the provider opened %s", chid)
					}
				}
			}
			if _, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: sel.addr()}, Root: shop.deal, Budget: voucher.OneFIL}); err != nil {
				t.Errorf("elsewhere: %v", err)
			}
		})
	}
}
