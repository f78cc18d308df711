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

// waiting is how many wait.
func (f *flow) waiting() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, pf := range f.peers {
		n += pf.waiting()
	}
	return n
}

// TestFlowStill: when too many requests wait for their peers to read, those of the
// peer that has read nothing for the longest time are ended, and only those.
func TestFlowStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ended []peer.ID
		var f *flow
		f = newFlow(10, 1<<20, 3, func(s *served) {
			mu.Lock()
			ended = append(ended, s.peer)
			mu.Unlock()
			s.mu.Lock()
			s.dying = true
			s.mu.Unlock()
			f.drop(s)
		})
		var workers sync.WaitGroup
		begin := func(p peer.ID) *served {
			s := request(p)
			workers.Go(func() {
				f.queue(s, 10)
				f.queue(s, 10) // one block beyond what may be queued
			})
			synctest.Wait()
			return s
		}
		begin("silent")
		time.Sleep(stillFor)
		begin("silent")
		reads := begin("reads")
		time.Sleep(2 * stillFor)
		f.release(reads, 5) // it still waits
		if f.waiting() != 3 || len(ended) != 0 {
			t.Fatalf("%d wait, %v ended", f.waiting(), ended)
		}
		begin("new")
		if !slices.Equal(ended, []peer.ID{"silent", "silent"}) || f.waiting() != 2 {
			t.Errorf("%d wait, %v ended", f.waiting(), ended)
		}
		f.close()
		workers.Wait()
		if f.waiting() != 0 {
			t.Errorf("%d wait in the end", f.waiting())
		}
	})
}
