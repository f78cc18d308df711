package transport

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestByteBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewByteBudget(100, time.Minute)
		start := time.Now()
		admit := func(p peer.ID, n int) <-chan time.Duration {
			out := make(chan time.Duration, 1)
			go func() {
				if err := b.Admit(p, n); err != nil {
					t.Error(err)
				}
				out <- time.Since(start)
			}()
			synctest.Wait()
			return out
		}
		if <-admit("a", 500) != 0 { // alone, whatever its size
			t.Error("the first message waited")
		}
		if <-admit("b", 60) != 0 || <-admit("b", 40) != 0 {
			t.Error("one peer waited for another")
		}
		waits := admit("b", 1)
		time.Sleep(30 * time.Second)
		b.release("b", 1)
		if d := <-waits; d != 30*time.Second || b.Held("b") != 100 {
			t.Errorf("let in after %s, %d held", d, b.Held("b"))
		}
		if d := <-admit("b", 7); d != 90*time.Second || b.Held("b") != 7 { // nothing moved for a minute
			t.Errorf("lost patience after %s, %d held", d, b.Held("b"))
		}
		b.release("b", 1000)
		b.release("a", 500)
		b.release("c", 1)
		if len(b.peers) != 0 {
			t.Errorf("%d accounts left", len(b.peers))
		}
	})
}

// TestBudgetLinkSystem checks that both ways of storing a block count.
func TestBudgetLinkSystem(t *testing.T) {
	b := NewByteBudget(1000, time.Minute)
	_ = b.Admit("a", 700)
	ls := b.LinkSystem(newFastStore().linkSystem(), "a")
	for _, set := range []bool{true, false} {
		w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{})
		if err != nil {
			t.Fatal(err)
		}
		if set {
			err = w.(bytesSetter).SetBytes(make([]byte, 300))
		} else {
			_, err = w.Write(make([]byte, 300))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := commit(cidlink.Link{Cid: cid.NewCidV1(cid.Raw, []byte{0, 0})}); err != nil {
			t.Fatal(err)
		}
	}
	if b.Held("a") != 100 {
		t.Errorf("%d held", b.Held("a"))
	}
}

// highWater keeps the largest difference between the block bytes that
// graphsync was given and those that its store has taken.
type highWater struct {
	mu          sync.Mutex
	given, kept int
	most        int
	total       int
	all         chan struct{} // closed when total bytes were given
}

func (h *highWater) add(given, kept int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.given
	h.given += given
	h.kept += kept
	h.most = max(h.most, h.given-h.kept)
	if before < h.total && h.given >= h.total {
		close(h.all)
	}
}

// watched is a network whose receiver is watched by a highWater.
type watched struct {
	gsnet.GraphSyncNetwork
	mark *highWater
}

func (w watched) SetDelegate(r gsnet.Receiver) {
	w.GraphSyncNetwork.SetDelegate(watchedReceiver{r, w.mark})
}

type watchedReceiver struct {
	gsnet.Receiver
	mark *highWater
}

func (w watchedReceiver) ReceiveMessage(ctx context.Context, p peer.ID, m gsmsg.GraphSyncMessage) {
	for _, b := range m.Blocks() {
		w.mark.add(len(b.RawData()), 0)
	}
	w.Receiver.ReceiveMessage(ctx, p, m)
}

// tellingBudget lets the store take one block each time the network waits.
type tellingBudget struct {
	*ByteBudget
	gate chan<- struct{}
}

func (b tellingBudget) Admit(from peer.ID, n int) error {
	for moved := b.tryAdmit(from, n); moved != nil; moved = b.tryAdmit(from, n) {
		b.gate <- struct{}{}
		<-moved
	}
	return nil
}

// TestSlowStore fetches into a store that takes a block only when the transfer
// stands still otherwise. Without a budget graphsync piles up all that the
// provider sends; with one the pile is bounded.
func TestSlowStore(t *testing.T) {
	const total, block, limit = 24 << 20, 256 << 10, 4 << 20
	for _, withBudget := range []bool{false, true} {
		mark := highWater{total: total, all: make(chan struct{})}
		gate := make(chan struct{})
		budget := tellingBudget{NewByteBudget(limit, time.Minute), gate}
		from := newFastStore()
		root := fillStar(t, from, total, block)
		fetch := networkKind{"fast", func(h host.Host) gsnet.GraphSyncNetwork {
			cfg := NetworkConfig{}
			if withBudget {
				cfg.Budget = budget
			}
			return watched{NewNetwork(h, cfg), &mark}
		}}
		p := newPair(t, from, fastKind, fetch)
		ls := slowly(p.store.linkSystem(), gate, &mark)
		if err := p.gs.RegisterPersistenceOption("slow", budget.LinkSystem(ls, p.provider.ID())); err != nil {
			t.Fatal(err)
		}
		p.gs.RegisterOutgoingRequestHook(func(_ peer.ID, _ graphsync.RequestData, a graphsync.OutgoingRequestHookActions) {
			a.UsePersistenceOption("slow")
		})
		if err := p.fetch(testContext(t, 30*time.Second), root); err != nil {
			t.Fatal(err)
		}
		t.Logf("budget %v: at most %d KiB waited for the store", withBudget, mark.most>>10)
		if want := limit + block; withBudget && mark.most > want || !withBudget && mark.most < total {
			t.Errorf("budget %v: %d bytes waited", withBudget, mark.most)
		}
	}
}

// slowly returns ls with commits that wait for a token, or until all was given.
func slowly(ls ipld.LinkSystem, gate <-chan struct{}, mark *highWater) ipld.LinkSystem {
	open := ls.StorageWriteOpener
	ls.StorageWriteOpener = func(lc ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		w, commit, err := open(lc)
		return w, func(l datamodel.Link) error {
			select {
			case <-gate:
			case <-mark.all:
			}
			mark.add(0, len(w.(*settable).data))
			return commit(l)
		}, err
	}
	return ls
}
