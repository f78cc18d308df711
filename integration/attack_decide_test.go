package integration

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// slowStore is a datastore of which one write can be made slow, as a disk's are.
type slowStore struct {
	datastore.Batching
	armed atomic.Bool
	stuck chan struct{} // closed when a write is stuck
	free  chan struct{} // closed by whoever lets it go
}

func newSlowStore() *slowStore {
	return &slowStore{Batching: dssync.MutexWrap(datastore.NewMapDatastore()), stuck: make(chan struct{}), free: make(chan struct{})}
}

func (s *slowStore) Put(ctx context.Context, k datastore.Key, v []byte) error {
	if s.armed.CompareAndSwap(true, false) {
		close(s.stuck)
		<-s.free
	}
	return s.Batching.Put(ctx, k, v)
}

// letGo ends the slow write when somebody waits behind it. Go hands a lock that was
// waited for longer than a millisecond to who waits, so that what waits now comes
// before what is to come.
func (s *slowStore) letGo() {
	<-time.After(50 * time.Millisecond)
	close(s.free)
}

// onLoad calls fn when the n-th block is read.
func onLoad(ls ipld.LinkSystem, n int64, fn func()) ipld.LinkSystem {
	var loaded atomic.Int64
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		if loaded.Add(1) == n {
			fn()
		}
		return read(lc, l)
	}
	return ls
}

// boundary is the block that reaches the first limit: a root and four of a quarter.
const boundary = 5

// TestRaceRaisedWhileDeciding is R1: the limit is raised after data-transfer has
// decided to pause at the old one, and before it has recorded that, because a write
// of the record takes its time. Who raised it saw a channel that runs. On the plain
// stack it then stands still far below its limit, for good: another word about the
// same limit may help, or come when graphsync is not paused yet, and nothing causes one.
// A seller looks again when a channel stops.
func TestRaceRaisedWhileDeciding(t *testing.T) {
	s := newShop(t)
	t.Run("plain", func(t *testing.T) {
		ctx := within(t, longest)
		for range 10 { // who is first after the write is the scheduler's to say
			ds := newSlowStore()
			p := newPlainOn(t, plainHost(t), ds, onLoad(s.links(), boundary, func() { ds.armed.Store(true) }), shopInterval, nil)
			r := newRaider(t, p.host)
			r.send(ctx, gsRequest(s.deal, pullMessage(t, 7, false, s.deal)))
			chid := datatransfer.ChannelID{Initiator: r.host.ID(), Responder: p.host.ID(), ID: 7}
			wait(ctx, t, ds.stuck)
			var raising sync.WaitGroup
			raising.Go(func() {
				if err := p.manager.UpdateValidationStatus(ctx, chid, raise); err != nil {
					t.Logf("raised: %v", err) // graphsync had not paused yet, and will
				}
			})
			ds.letGo()
			raising.Wait()
			got := r.loot(ctx, s)
			st, err := p.manager.ChannelState(ctx, chid)
			must(t, err)
			t.Logf("%d of %d bytes, limit %d, paused %v", got.total, s.dealSize, st.DataLimit(), st.ResponderPaused())
			if got.total < s.dealSize {
				return // it stands still
			}
		}
		t.Log("the plain stack stood it ten times, by luck")
	})
	t.Run("tollgraph", func(t *testing.T) {
		ctx := within(t, longest)
		ds := newSlowStore()
		on, _ := homemadeOver(t, plainHost(t), true, ds)
		raised := &noticed{Manager: on.transfers, in: make(chan struct{}, 1)}
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
			c.Host, c.Transfers, c.Meter, c.Hold = on.host, raised, on.meter, on.hold
			c.Pieces = armedGoods{c.Pieces.(goods), func() { ds.armed.Store(true) }}
		})
		r := newReturner(t, &seller{stack: &stack{t: t, host: on.host}, till: sel.till}, s, 7)
		r.last = gsRequest(s.deal, pullMessage(t, 7, false, s.deal))
		r.send(ctx, r.last)
		wait(ctx, t, ds.stuck)
		r.payNext(ctx)
		wait(ctx, t, raised.in)
		ds.letGo()
		r.has(ctx, 2*shopInterval)
	})
}

// has waits until so much has come, repetitions apart.
func (r *raider) has(ctx context.Context, n uint64) {
	r.t.Helper()
	r.until(ctx, func() bool {
		var sum uint64
		for _, size := range r.blocks {
			sum += uint64(size)
		}
		return sum >= n
	})
}

// noticed tells when a limit is raised.
type noticed struct {
	datatransfer.Manager
	in chan struct{}
}

func (n *noticed) UpdateValidationStatus(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.ValidationResult) error {
	select {
	case n.in <- struct{}{}:
	default:
	}
	return n.Manager.UpdateValidationStatus(ctx, chid, v)
}

// armedGoods call fn when the block at the boundary is read.
type armedGoods struct {
	goods
	fn func()
}

func (g armedGoods) LinkSystem(id cid.Cid) ipld.LinkSystem {
	return onLoad(g.goods.LinkSystem(id), boundary, g.fn)
}
