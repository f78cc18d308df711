package transport

import (
	"sync"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// flow holds back traversals so that at most window block bytes are queued for
// one peer. Graphsync has a limit of its own, but it is awaited by the goroutine
// that serves all peers as soon as anything but a block is sent to a peer that
// has reached it. With the window below that limit this never happens.
type flow struct {
	window uint64

	mu     sync.Mutex // guards the fields below
	closed bool
	peers  map[peer.ID]*peerFlow
	queued map[graphsync.RequestID]uint64 // by request, the part of its peer's sum
}

// peerFlow is what is queued for one peer.
type peerFlow struct {
	sum  uint64
	wake chan struct{} // closed and replaced when sum falls; nil if nobody waits
}

func newFlow(window uint64) *flow {
	return &flow{window: window, peers: make(map[peer.ID]*peerFlow), queued: make(map[graphsync.RequestID]uint64)}
}

// queue counts n bytes for the peer of s and waits while that would exceed the
// window. A single block larger than the window passes when nothing else is
// queued. It returns at once when the request has ended or failed.
func (f *flow) queue(s *served, n uint64) {
	for {
		f.mu.Lock()
		pf := f.peers[s.peer]
		if pf == nil {
			pf = &peerFlow{}
			f.peers[s.peer] = pf
		}
		if f.closed || s.over() {
			f.mu.Unlock() // what a request that has ended sends is not reported back
			return
		}
		if pf.sum == 0 || pf.sum+n <= f.window {
			pf.sum += n
			f.queued[s.id] += n
			f.mu.Unlock()
			return
		}
		if pf.wake == nil {
			pf.wake = make(chan struct{})
		}
		wake := pf.wake
		f.mu.Unlock()
		select {
		case <-wake:
		case <-s.done:
		}
	}
}

// release counts n bytes of s as handed to the network.
func (f *flow) release(s *served, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.less(s, min(n, f.queued[s.id]))
}

// drop counts everything queued for s as gone.
func (f *flow) drop(s *served) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.less(s, f.queued[s.id])
	delete(f.queued, s.id)
	if pf := f.peers[s.peer]; pf != nil {
		pf.signal() // s itself may wait
		if pf.sum == 0 {
			delete(f.peers, s.peer)
		}
	}
}

// less takes n from the sums. It is called with mu held.
func (f *flow) less(s *served, n uint64) {
	pf := f.peers[s.peer]
	if pf == nil {
		return
	}
	f.queued[s.id] -= n
	pf.sum -= min(n, pf.sum)
	if n != 0 {
		pf.signal()
	}
}

func (pf *peerFlow) signal() {
	if pf.wake != nil {
		close(pf.wake)
		pf.wake = nil
	}
}

// close lets everybody pass.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, pf := range f.peers {
		pf.signal()
	}
}

// over says that s will send no more.
func (s *served) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended || s.dying
}
