package transport

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// busyEvery is how often a peer is told at most, busyAtOnce of how many requests
	// each time, and busyPeers how many peers at a time. Of more than that nothing
	// is said: a word must cost less than the request.
	busyEvery  = 100 * time.Millisecond
	busyAtOnce = 256
	busyPeers  = 64
	// busyTimeout bounds one message.
	busyTimeout = 5 * time.Second
)

// busyWords tell peers which of their requests were not taken because of a limit,
// as graphsync's RequestFailedBusy: come again later. Each peer is told on a
// goroutine of its own, so that one that does not read delays nobody.
type busyWords struct {
	send func(context.Context, peer.ID, gsmsg.GraphSyncMessage) error
	ctx  context.Context // ends with close
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	closed  bool
	waiting peerQueues[graphsync.RequestID] // of each peer that is being told
}

func newBusyWords(send func(context.Context, peer.ID, gsmsg.GraphSyncMessage) error) *busyWords {
	ctx, stop := context.WithCancel(context.Background())
	return &busyWords{send: send, ctx: ctx, stop: stop, waiting: make(peerQueues[graphsync.RequestID])}
}

// say tells p that its request was not taken. It returns at once.
func (b *busyWords) say(p peer.ID, id graphsync.RequestID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids, telling := b.waiting[p]
	if b.closed || len(ids) >= busyAtOnce || !telling && len(b.waiting) >= busyPeers {
		return
	}
	if b.waiting.add(p, id) {
		b.work.Go(func() { b.tell(p) })
	}
}

// take returns what p is to be told of, and forgets p if that is nothing.
func (b *busyWords) take(p peer.ID) []graphsync.RequestID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting.take(p)
}

// tell sends words to p until there is nothing more to say to it.
func (b *busyWords) tell(p peer.ID) {
	for ids := b.take(p); ids != nil; ids = b.take(p) {
		all := make(map[graphsync.RequestID]gsmsg.GraphSyncResponse, len(ids))
		for _, id := range ids {
			all[id] = gsmsg.NewResponse(id, graphsync.RequestFailedBusy, nil)
		}
		ctx, cancel := context.WithTimeout(b.ctx, busyTimeout)
		_ = b.send(ctx, p, gsmsg.NewMessage(nil, all, nil)) // a peer that cannot be told finds out in time
		cancel()
		pause(b.ctx, nil, busyEvery)
	}
}

// close ends what is being said.
func (b *busyWords) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.work.Wait()
}
