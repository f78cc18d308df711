package integration

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	carstorage "github.com/ipld/go-car/v2/storage"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/network"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// flood sends n requests for at most 1,000 deals, a hundred to a message. It
// ends early when the other side takes no more.
func flood(ctx context.Context, r *raider, s *shop, n int) {
	r.t.Helper()
	exts := make([]graphsync.ExtensionData, min(n, 1000))
	for i := range exts {
		exts[i] = pullMessage(r.t, voucher.DealID(i+1), false, s.deal)
	}
	for sent := 0; sent < n; {
		var some []gsmsg.GraphSyncRequest
		for range min(100, n-sent) {
			some = append(some, gsRequest(s.deal, exts[sent%len(exts)]))
			sent++
		}
		if r.trySend(ctx, some...) != nil {
			return
		}
	}
}

// TestAttackFlood: the plain stack keeps a record and a goroutine for everything
// that anybody proposes, for good, and serves the honest behind all of it. A
// seller has a limit for each peer and serves an honest client meanwhile. Here
// no deal loses its place by standing still; what a peer may begin in such places
// is for the market's TestBegun.
func TestAttackFlood(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest) // what a peer sends too fast is read at 500 requests a second
	t.Run("plain", func(t *testing.T) {
		const n = 100 // each takes so long that 10,000 would take minutes
		p := newPlain(t, s.links(), 1)
		r := newRaider(t, p.host)
		changed := make(chan struct{}, 1)
		t.Cleanup(p.manager.SubscribeToEvents(func(datatransfer.Event, datatransfer.ChannelState) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}))
		flood(ctx, r, s, n)
		for {
			all, err := p.manager.InProgressChannels(ctx)
			must(t, err)
			if len(all) == n {
				return
			}
			wait(ctx, t, changed)
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		const n = 10_000
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
			c.UnpaidFor = longest // the flood takes 40 s, and at 30 new deals would begin to take the place of the first
		})
		r := newRaider(t, sel.host)
		var flooding sync.WaitGroup
		flooding.Go(func() { flood(ctx, r, s, n) })
		honestSale(t, ctx, sel, s.deal, s.dealSize)
		flooding.Wait()
		honestSale(t, ctx, sel, s.deal, s.dealSize)
		mine := 0
		for id, d := range sel.ListDeals() {
			if id.From == r.host.ID() && d.TotalSent != 0 { // the others found all blocks sent, and ended
				mine++
			}
		}
		got, let := r.loot(ctx, s), uint64(n)
		for _, c := range sel.node.Dropped() {
			let -= min(let, c)
		}
		t.Logf("%d of %d deals, %d bytes, %d of them once, dropped %v", mine, n, got.total, got.unique, sel.node.Dropped())
		// Requests of one peer share what was sent, so that each deal lends other blocks;
		// one that returns to a deal is sent again what was sent on it.
		if mine > 64 || got.unique > uint64(mine)*shopCredit || got.total > let*shopCredit {
			t.Errorf("%d deals with one peer, %d bytes, %d of them once, for %d requests that were let in", mine, got.total, got.unique, let)
		}
	})
}

// sloth asks for a whole DAG and reads nothing of it.
func sloth(ctx context.Context, r *raider, q gsmsg.GraphSyncRequest) {
	r.t.Helper()
	r.host.SetStreamHandler(gsnet.ProtocolGraphsync_2_0_0, func(network.Stream) {}) // open, and not read
	r.send(ctx, q)
}

// TestAttackUnread: peers that do not read what they ask for. On the plain stack
// each takes a worker until its memory is given up, after 100 minutes; behind as
// many as there are workers nobody is served. A seller serves an honest client
// next to fifty.
func TestAttackUnread(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	t.Run("plain", func(t *testing.T) {
		const workers = 6 // the default
		p := newPlain(t, s.links(), 0, gsimpl.MaxMemoryPerPeerResponder(256<<10))
		for i := range workers {
			sloth(ctx, newRaider(t, p.host), gsRequest(s.deal, pullMessage(t, voucher.DealID(i+1), false, s.deal)))
		}
		patience, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		honest := newRaider(t, p.host)
		q := gsRequest(s.deal, pullMessage(t, 100, false, s.deal))
		honest.send(patience, q)
		if st := honest.answered(patience, q.ID()); st.IsTerminal() {
			t.Errorf("the plain stack stands it: %v", st)
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
		for i := range 50 {
			sloth(ctx, newRaider(t, sel.host), gsRequest(s.deal, pullMessage(t, voucher.DealID(i+1), false, s.deal)))
		}
		start := time.Now()
		honestSale(t, ctx, sel, s.deal, s.dealSize)
		t.Logf("served in %v", time.Since(start))
	})
}

// ladder makes a CAR of n nodes, each of which links to the next one twice: n
// blocks, and 2^n ways through them.
func ladder(t testing.TB, dir string, n int) (car string, root cid.Cid) {
	t.Helper()
	lp := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0x12, MhLength: 32}}
	below := datamodel.Node(basicnode.NewString("the end"))
	blocks := make(map[cid.Cid][]byte)
	for range n {
		under := below
		node, err := qp.BuildList(basicnode.Prototype.List, 2, func(l datamodel.ListAssembler) {
			qp.ListEntry(l, qp.Node(under))
			qp.ListEntry(l, qp.Node(under))
		})
		must(t, err)
		raw, err := ipld.Encode(node, dagcbor.Encode)
		must(t, err)
		root, err = lp.Sum(raw)
		must(t, err)
		blocks[root] = raw
		below = basicnode.NewLink(cidlink.Link{Cid: root})
	}
	car = filepath.Join(dir, "ladder.car")
	f, err := os.Create(car)
	must(t, err)
	w, err := carstorage.NewWritable(f, []cid.Cid{root})
	must(t, err)
	for c, b := range blocks {
		must(t, w.Put(t.Context(), c.KeyString(), b))
	}
	must(t, w.Finalize())
	must(t, f.Close())
	return car, root
}

// TestAttackEndless: a DAG of forty small blocks with a million million ways
// through. On the plain stack each request for it has a worker and a core for
// ever; behind as many as there are workers nobody is served. A seller serves an
// honest client meanwhile, stops each request after so many links to what it has
// passed, and says why.
func TestAttackEndless(t *testing.T) {
	car, endless := ladder(t, t.TempDir(), 40)
	s := newShop(t)
	s.cars = append(s.cars, car)
	s.open(t)
	ctx := within(t, longest)
	t.Run("plain", func(t *testing.T) {
		p := newPlain(t, s.links(), 0)
		r := newRaider(t, p.host)
		for i := range 6 {
			r.send(ctx, gsRequest(endless, pullMessage(t, voucher.DealID(i+1), false, endless)))
		}
		patience, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		honest := newRaider(t, p.host)
		q := gsRequest(s.deal, pullMessage(t, 100, false, s.deal))
		honest.send(patience, q)
		if st := honest.answered(patience, q.ID()); st.IsTerminal() {
			t.Errorf("the plain stack stands it: %v", st)
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		const most = 1000
		dir := t.TempDir()
		on := newStack(t, newHost(t, true), dir, func(c *transport.Config) { c.Guard.MaxRepeats = most })
		sel := newSellerOn(t, on, dir, s.cars, shopAsk, voucher.OneFIL)
		ended := sel.ends(t, 6)
		r := newRaider(t, sel.host)
		for i := range 6 {
			r.send(ctx, gsRequest(endless, pullMessage(t, voucher.DealID(i+1), false, endless)))
		}
		honestSale(t, ctx, sel, s.deal, s.dealSize)
		for range 6 {
			d := wait(ctx, t, ended)
			if code, _, ok := voucher.ParseRefusal(d.Message); !ok || code != voucher.RefusedSelector {
				t.Errorf("deal %d ended with %q", d.ID, d.Message)
			}
		}
		if n := sel.node.Dropped()[transport.ReasonEndless]; n != 6 {
			t.Errorf("%d requests were stopped", n)
		}
	})
}

// ends tells of the first n deals of a seller that fail.
func (s *seller) ends(t testing.TB, n int) <-chan market.ProviderDealState {
	t.Helper()
	all := make(chan market.ProviderDealState, n)
	t.Cleanup(s.SubscribeToEvents(func(ev market.ProviderEvent, d market.ProviderDealState) {
		if ev == market.ProviderEventError {
			select {
			case all <- d:
			default:
			}
		}
	}))
	return all
}
