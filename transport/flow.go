package transport

import (
	"sync"

	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// flow holds back traversals so that at most window block bytes are queued for
// one peer and most for all, but always a block for each. Graphsync has limits of
// its own, but they are awaited by the goroutine that serves all peers as soon as
// anything but a block is sent to a peer that has reached them. With these below
// those that never happens.
type flow struct {
	window, most uint64

	mu     sync.Mutex // guards the fields below
	closed bool
	total  uint64        // queued for all peers
	wake   chan struct{} // closed and replaced when total falls; nil if nobody waits for that
	peers  map[peer.ID]*peerFlow
	queued map[graphsync.RequestID]uint64 // by request, the part of its peer's sum
}

// peerFlow is what is queued for one peer.
type peerFlow struct {
	sum  uint64
	wake chan struct{} // closed and replaced when sum falls; nil if nobody waits
}

func newFlow(window, most uint64) *flow {
	return &flow{window: window, most: most, peers: make(map[peer.ID]*peerFlow), queued: make(map[graphsync.RequestID]uint64)}
}

// queue counts n bytes for the peer of s and waits while that would exceed the
// window or all that may be queued. When nothing else is queued for the peer a
// block passes whatever its size. It returns at once when the request has ended
// or failed.
func (f *flow) queue(s *served, n uint64) {
	for {
		peers, all, ok := f.tryQueue(s, n)
		if ok {
			return
		}
		select { // one of the two is nil
		case <-peers:
		case <-all:
		case <-s.done:
		}
	}
}

// tryQueue counts n bytes unless it is to be waited: for less to be queued for
// the peer, or for all.
func (f *flow) tryQueue(s *served, n uint64) (peers, all <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || s.over() {
		return nil, nil, true // what a request that has ended sends is not reported back
	}
	pf := f.peers[s.peer]
	if pf == nil {
		pf = &peerFlow{}
		f.peers[s.peer] = pf
	}
	switch {
	case pf.sum != 0 && pf.sum+n > f.window:
		return waitOn(&pf.wake), nil, false
	case pf.sum != 0 && f.total+n > f.most:
		return nil, waitOn(&f.wake), false
	}
	pf.sum += n
	f.total += n
	f.queued[s.id] += n
	return nil, nil, true
}

// waitOn returns *wake, made if need be.
func waitOn(wake *chan struct{}) <-chan struct{} {
	if *wake == nil {
		*wake = make(chan struct{})
	}
	return *wake
}

// signal wakes those that wait on *wake.
func signal(wake *chan struct{}) {
	if *wake != nil {
		close(*wake)
		*wake = nil
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
		signal(&pf.wake) // s itself may wait
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
	pf.sum -= n
	f.total -= n
	if n != 0 {
		signal(&pf.wake)
		signal(&f.wake)
	}
}

// close lets everybody pass.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	signal(&f.wake)
	for _, pf := range f.peers {
		signal(&pf.wake)
	}
}

// over says that s will send no more.
func (s *served) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended || s.dying
}
