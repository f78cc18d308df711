package transport

import (
	"runtime"
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
// Where a peer has room, nobody waits, and its request's worker would go on for the
// 10 ms that Go leaves a goroutine on the processor, a hundred blocks: of as many
// requests as there are workers one gets several times what another does. So whoever
// has passed with a turn's worth of bytes lets the others have the processor.
//
// What waits holds one of graphsync's workers, and a peer that does not read can
// have several wait. When many do, those of the peer that has read nothing for the
// longest time stand aside: each passes with the block at hand, which is in memory
// anyway, and is paused behind it until the peer has read half of its window.
type flow struct {
	window, most uint64
	patient      int           // so many may wait without anybody standing aside
	goOn         func(*served) // lets one go on that stood aside; does not block
	yield        func()        // lets the other goroutines have the processor

	mu     sync.Mutex // guards the fields below
	closed bool
	total  uint64      // queued for all peers
	short  []*peerFlow // those whose first waiter waits for total to fall, in turn
	peers  map[peer.ID]*peerFlow
	queued map[graphsync.RequestID]uint64 // by request, the part of its peer's sum
}

// passTurn is how many bytes one request passes with before the others have their turn.
const passTurn = 128 << 10

// peerFlow is what is queued for one peer, and what waits to be.
type peerFlow struct {
	sum   uint64
	moved time.Time // when sum last fell, or rose from nothing
	line  []*waiter
	aside []*served // those that stand aside
	short bool      // in flow.short
}

// waiter is a block that waits for its turn.
type waiter struct {
	s    *served
	n    uint64
	pass chan struct{} // closed when it may go
}

func newFlow(window, most uint64, patient int, goOn func(*served)) *flow {
	return &flow{window: window, most: most, patient: patient, goOn: goOn, yield: runtime.Gosched, peers: make(map[peer.ID]*peerFlow), queued: make(map[graphsync.RequestID]uint64)}
}

// queue counts n bytes for the peer of s and waits while that would exceed the
// window or all that may be queued. When nothing else is queued for the peer a
// block passes whatever its size. It returns at once when the request has ended
// or failed.
func (f *flow) queue(s *served, n uint64) {
	w := f.enter(s, n)
	if w == nil {
		if s.turn += n; s.turn >= passTurn {
			s.turn = 0
			f.yield()
		}
		return
	}
	s.turn = 0 // the others have theirs
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
	f.makeRoom()
	return w
}

// makeRoom lets those that wait for the peer that has read nothing for the longest
// time stand aside, if more wait than may. mu is held.
func (f *flow) makeRoom() {
	var stillest *peerFlow
	waiting := 0
	for _, pf := range f.peers {
		waiting += len(pf.line)
		if len(pf.line) > 0 && (stillest == nil || pf.moved.Before(stillest.moved)) {
			stillest = pf
		}
	}
	if waiting <= f.patient {
		return
	}
	for _, w := range stillest.line {
		f.count(stillest, w.s, w.n)
		w.s.standAside()
		stillest.aside = append(stillest.aside, w.s)
		close(w.pass)
	}
	stillest.line = nil
}

// recall lets those of pf go on that stand aside, if there is room for them. mu is
// held.
func (f *flow) recall(pf *peerFlow) {
	if len(pf.line) > 0 || pf.sum > f.window/2 {
		return
	}
	for _, s := range pf.aside {
		f.goOn(s)
	}
	pf.aside = nil
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
	f.recall(pf)
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
		pf.aside = slices.DeleteFunc(pf.aside, func(a *served) bool { return a == s })
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
		pf.line, pf.aside = nil, nil
	}
}

// standAside pauses s behind the block at hand, until it is recalled.
func (s *served) standAside() {
	s.mu.Lock()
	s.aside = true
	s.mu.Unlock()
}

// over says that s will send no more.
func (s *served) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended || s.dying
}
