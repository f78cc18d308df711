package transport

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

func request(p peer.ID) *served {
	return &served{id: graphsync.NewRequestID(), peer: p, done: make(chan struct{})}
}

func passed(w *waiter) bool {
	select {
	case <-w.pass:
		return true
	default:
		return false
	}
}

// TestFlowTakesTurns says that whoever has just sent a block waits behind those
// that came before, whatever is released.
func TestFlowTakesTurns(t *testing.T) {
	f := newFlow(10, 1000, 100, nil)
	a, b, c := request("p"), request("p"), request("p")
	if f.enter(a, 10) != nil {
		t.Fatal("the first waits")
	}
	wb, wc, wa := f.enter(b, 6), f.enter(c, 6), f.enter(a, 2)
	if wb == nil || wc == nil || wa == nil {
		t.Fatal("one passes above the window")
	}
	f.release(a, 4)
	if passed(wa) || passed(wb) || passed(wc) {
		t.Fatal("a small one passes those that came before")
	}
	f.release(a, 6)
	if !passed(wb) || passed(wc) || passed(wa) {
		t.Fatal("not the first in line, or not alone")
	}
	f.release(b, 6)
	if !passed(wc) || !passed(wa) {
		t.Fatal("there is room for both")
	}
	f.drop(a)
	f.drop(b)
	f.drop(c)
	if f.total != 0 || len(f.peers) != 0 || len(f.queued) != 0 {
		t.Errorf("%d bytes are left: %v %v", f.total, f.peers, f.queued)
	}
}

// TestFlowYields: whoever never waits lets the others have the processor after each
// turn's worth of bytes, be it one block or many.
func TestFlowYields(t *testing.T) {
	f := newFlow(1<<40, 1<<40, 100, nil)
	gaveWay := 0
	f.yield = func() { gaveWay++ }
	for _, block := range []uint64{passTurn / 64, passTurn, 8 * passTurn} {
		s, blocks := request("p"), 64*max(passTurn/block, 1)
		gaveWay = 0
		for range blocks {
			f.queue(s, block)
		}
		if gaveWay != 64 {
			t.Errorf("blocks of %d: gave way %d times in 64 turns", block, gaveWay)
		}
	}
}

// TestFlowTotal says that peers take turns for what may be queued for all, and
// that each may have one block whatever is queued.
func TestFlowTotal(t *testing.T) {
	f := newFlow(100, 20, 100, nil)
	a, b, c := request("a"), request("b"), request("c")
	for _, s := range []*served{a, b} {
		if f.enter(s, 10) != nil {
			t.Fatal("one waits below the total")
		}
	}
	if f.enter(c, 10) != nil {
		t.Fatal("the first block of a peer waits")
	}
	wa, wb := f.enter(a, 5), f.enter(b, 5)
	if wa == nil || wb == nil {
		t.Fatal("one passes above the total")
	}
	f.release(c, 10)
	if passed(wa) || passed(wb) {
		t.Fatal("one passes at the total")
	}
	f.release(b, 5)
	if !passed(wa) || passed(wb) {
		t.Fatal("not the first in line, or not alone")
	}
	f.release(a, 10)
	if !passed(wb) {
		t.Fatal("the second waits although there is room")
	}
}

// TestFlowGivesUp says that whoever waits for the total behind one that gives up
// goes on, if there is room for it.
func TestFlowGivesUp(t *testing.T) {
	for name, ends := range map[string]func(*flow, *waiter){
		"leaves":  (*flow).leave,
		"dropped": func(f *flow, w *waiter) { f.drop(w.s) },
	} {
		f := newFlow(100, 20, 100, nil)
		a, b, c := request("a"), request("b"), request("c")
		if f.enter(a, 8) != nil || f.enter(b, 8) != nil || f.enter(c, 4) != nil {
			t.Fatal("one waits below the total")
		}
		large, small := f.enter(request("a"), 10), f.enter(b, 4)
		f.release(c, 4)
		if large == nil || small == nil || passed(large) || passed(small) {
			t.Fatal("one passes above the total, or before its turn")
		}
		if ends(f, large); !passed(small) {
			t.Errorf("%s: the next in turn waits although there is room", name)
		}
		if f.total != 20 {
			t.Errorf("%s: %d bytes count as queued, not 20", name, f.total)
		}
	}
}

// TestFlowEnds says that a request which ended waits no more and makes nobody wait.
func TestFlowEnds(t *testing.T) {
	f := newFlow(10, 1000, 100, nil)
	a, b := request("p"), request("p")
	if f.enter(a, 10) != nil {
		t.Fatal("the first waits")
	}
	wa, wb := f.enter(a, 5), f.enter(b, 5)
	f.drop(a)
	if !passed(wa) || !passed(wb) {
		t.Fatal("one waits for a request that has ended")
	}
	if f.total != 5 {
		t.Errorf("%d bytes count as queued, not 5", f.total)
	}
	w := f.enter(b, 10)
	close(b.done)
	f.leave(w)
	if f.drop(b); f.total != 0 || len(f.peers) != 0 {
		t.Errorf("%d bytes are left", f.total)
	}
	w = f.enter(a, 10)
	other := f.enter(request("p"), 10)
	if f.close(); w != nil || !passed(other) {
		t.Error("one waits although everything is closed")
	}
}

// stand is how many wait, and how many stand aside.
func (f *flow) stand() (waiting, aside int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, pf := range f.peers {
		waiting, aside = waiting+len(pf.line), aside+len(pf.aside)
	}
	return waiting, aside
}

// TestFlowStill: when too many requests wait for their peers to read, those of the
// peer that has read nothing for the longest time stand aside, and only those, until it
// has read half of its window.
func TestFlowStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var recalled []*served
		f := newFlow(10, 1<<20, 3, func(s *served) { recalled = append(recalled, s) })
		var workers sync.WaitGroup
		begin := func(p peer.ID, blocks int) *served { // a block may be queued
			s := request(p)
			workers.Go(func() {
				for range blocks {
					f.queue(s, 10)
				}
			})
			synctest.Wait()
			return s
		}
		first := begin("silent", 2)
		time.Sleep(time.Second) // of the bubble's clock: what is still is told by time
		second := begin("silent", 1)
		reads := begin("reads", 2)
		time.Sleep(time.Second) // of the bubble's clock: what is still is told by time
		f.release(reads, 5)     // it still waits
		if waiting, aside := f.stand(); waiting != 3 || aside != 0 {
			t.Fatalf("%d wait, %d stand aside", waiting, aside)
		}
		begin("new", 2)
		if waiting, aside := f.stand(); waiting != 2 || aside != 2 || !first.aside || !second.aside || reads.aside {
			t.Fatalf("%d wait, %d stand aside", waiting, aside)
		}
		f.release(first, 10)
		f.release(second, 10) // not the block that the first stands behind
		if _, aside := f.stand(); aside != 2 || len(recalled) != 0 {
			t.Fatalf("%d stand aside, %d were recalled before there was room", aside, len(recalled))
		}
		f.release(first, 10)
		if _, aside := f.stand(); aside != 0 || !slices.Equal(recalled, []*served{first, second}) {
			t.Errorf("%d stand aside, %d were recalled", aside, len(recalled))
		}
		f.close()
		workers.Wait()
		if waiting, _ := f.stand(); waiting != 0 {
			t.Errorf("%d wait in the end", waiting)
		}
	})
}

// TestFlowAsideEnds: one that stands aside and ends is not recalled, and whoever stands
// behind what it had queued is.
func TestFlowAsideEnds(t *testing.T) {
	var recalled []*served
	f := newFlow(10, 1<<20, 0, func(s *served) { recalled = append(recalled, s) })
	ends, stays := request("p"), request("p")
	f.queue(ends, 10)
	f.queue(ends, 10)
	f.queue(stays, 5)
	if _, aside := f.stand(); aside != 2 {
		t.Fatalf("%d stand aside", aside)
	}
	f.drop(ends)
	if !slices.Equal(recalled, []*served{stays}) {
		t.Errorf("%d were recalled", len(recalled))
	}
	if f.drop(stays); len(f.peers) != 0 || f.total != 0 {
		t.Errorf("%d peers and %d bytes are left", len(f.peers), f.total)
	}
}
