package transport

import (
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// flow holds back traversals so that at most window block bytes are queued for
// one peer and most for all, but always a block for each. Graphsync has limits of
// its own, but they are awaited by the goroutine that serves all peers as soon as
// anything but a block is sent to a peer that has reached them. With these below
// those that never happens.
//
// Whoever waits is served in the order of coming, so that the requests of one
// peer take turns, block by block: whichever is on the processor when there is
// room would otherwise take it again and again.
//
// What waits holds one of graphsync's workers, and a peer that does not read can
// have several wait. When many do, those of the peer that has read nothing for the
// longest time are ended.
type flow struct {
	window, most uint64
	patient      int           // so many may wait without anybody being ended
	end          func(*served) // ends a request; does not block

	mu     sync.Mutex // guards the fields below
	closed bool
	total  uint64      // queued for all peers
	short  []*peerFlow // those whose first waiter waits for total to fall, in turn
	peers  map[peer.ID]*peerFlow
	queued map[graphsync.RequestID]uint64 // by request, the part of its peer's sum
}

// peerFlow is what is queued for one peer, and what waits to be.
type peerFlow struct {
	sum   uint64
	moved time.Time // when sum last fell, or rose from nothing
	line  []*waiter
	short bool // in flow.short
}

// waiter is a block that waits for its turn.
type waiter struct {
	s    *served
	n    uint64
	pass chan struct{} // closed when it may go
	over bool          // its request is being ended
}

func newFlow(window, most uint64, patient int, end func(*served)) *flow {
	return &flow{window: window, most: most, patient: patient, end: end, peers: make(map[peer.ID]*peerFlow), queued: make(map[graphsync.RequestID]uint64)}
}

// queue counts n bytes for the peer of s and waits while that would exceed the
// window or all that may be queued. When nothing else is queued for the peer a
// block passes whatever its size. It returns at once when the request has ended
// or failed.
func (f *flow) queue(s *served, n uint64) {
	w := f.enter(s, n)
	if w == nil {
		return
	}
	for _, v := range f.tooMany() {
		f.end(v)
	}
	select {
	case <-w.pass:
	case <-s.done:
		f.leave(w)
	}
}

// enter counts n bytes, or returns who waits for that.
func (f *flow) enter(s *served, n uint64) *waiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || s.over() {
		return nil // what a request that has ended sends is not reported back
	}
	pf := f.peers[s.peer]
	if pf == nil {
		pf = &peerFlow{}
		f.peers[s.peer] = pf
	}
	if len(pf.line) == 0 && f.fits(pf, n) {
		f.count(pf, s, n)
		return nil
	}
	w := &waiter{s: s, n: n, pass: make(chan struct{})}
	pf.line = append(pf.line, w)
	f.serve(pf)
	return w
}

// stillFor is how long a peer must have read nothing for its requests to be ended.
const stillFor = time.Second

// tooMany returns the waiting requests of the peer that has read nothing for the
// longest time, if more wait than may, once.
func (f *flow) tooMany() (over []*served) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stillest *peerFlow
	since, waiting := time.Now().Add(-stillFor), 0
	for _, pf := range f.peers {
		n := pf.waiting()
		if waiting += n; n > 0 && pf.moved.Before(since) {
			stillest, since = pf, pf.moved
		}
	}
	if waiting <= f.patient || stillest == nil {
		return nil
	}
	for _, w := range stillest.line {
		if !w.over {
			w.over, over = true, append(over, w.s)
		}
	}
	return over
}

// waiting is how many wait of whom nobody has seen the end yet.
func (pf *peerFlow) waiting() (n int) {
	for _, w := range pf.line {
		if !w.over {
			n++
		}
	}
	return n
}

// leave gives up a turn.
func (f *flow) leave(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pf := f.peers[w.s.peer]
	if pf == nil {
		return
	}
	if i := slices.Index(pf.line, w); i >= 0 {
		pf.line = slices.Delete(pf.line, i, i+1)
		f.serve(pf)
		f.serveShort() // whoever waited behind it for the total may need less
	}
}

// fits reports whether n more bytes may be queued for pf. mu is held, as for all
// that follow.
func (f *flow) fits(pf *peerFlow, n uint64) bool {
	return pf.sum == 0 || pf.sum+n <= f.window && f.total+n <= f.most
}

func (f *flow) count(pf *peerFlow, s *served, n uint64) {
	if pf.sum == 0 {
		pf.moved = time.Now()
	}
	pf.sum += n
	f.total += n
	f.queued[s.id] += n
}

// serve lets those pass whose turn it is, and reports whether the next waits for
// the total to fall.
func (f *flow) serve(pf *peerFlow) (short bool) {
	for len(pf.line) > 0 {
		w := pf.line[0]
		if !f.fits(pf, w.n) {
			if short = pf.sum+w.n <= f.window; short && !pf.short {
				pf.short = true
				f.short = append(f.short, pf)
			}
			return short
		}
		f.count(pf, w.s, w.n)
		pf.line = pf.line[1:]
		close(w.pass)
	}
	pf.line = nil // what was passed is not kept in memory
	return false
}

// serveShort lets those pass that waited for the total, peer by peer.
func (f *flow) serveShort() {
	for len(f.short) > 0 {
		pf := f.short[0]
		waited := len(pf.line)
		short := f.serve(pf)
		if short && len(pf.line) == waited {
			return
		}
		f.short = f.short[1:]
		if pf.short = short; short {
			f.short = append(f.short, pf) // it had its turn
			return
		}
	}
}

// release counts n bytes of s as handed to the network.
func (f *flow) release(s *served, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.less(s, min(n, f.queued[s.id]))
}

// drop counts everything queued for s as gone, and lets pass what waits of it.
func (f *flow) drop(s *served) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pf := f.peers[s.peer]; pf != nil {
		pf.line = slices.DeleteFunc(pf.line, func(w *waiter) bool {
			if w.s == s {
				close(w.pass)
			}
			return w.s == s
		})
		f.less(s, f.queued[s.id])
		f.serve(pf)
		f.serveShort()
		if pf.sum == 0 {
			delete(f.peers, s.peer)
		}
	}
	delete(f.queued, s.id)
}

// less takes n from the sums and lets others go on: those that wait for the
// total first.
func (f *flow) less(s *served, n uint64) {
	pf := f.peers[s.peer]
	if pf == nil || n == 0 {
		return
	}
	f.queued[s.id] -= n
	pf.sum -= n
	f.total -= n
	pf.moved = time.Now()
	f.serveShort()
	f.serve(pf)
}

// close lets everybody pass.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, pf := range f.peers {
		for _, w := range pf.line {
			close(w.pass)
		}
		pf.line = nil
	}
}

// over says that s will send no more.
func (s *served) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended || s.dying
}
