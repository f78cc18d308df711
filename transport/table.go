package transport

import (
	"context"
	"sync"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// served is one graphsync request that this node answers, from its admission
// until graphsync has let go of it.
type served struct {
	id      graphsync.RequestID
	peer    peer.ID
	channel datatransfer.ChannelID
	meter   *meter
	done    chan struct{} // closed when the request has ended
	turn    uint64        // bytes of this turn, see flow; of the worker that walks it

	mu        sync.Mutex // guards the fields below
	ended     bool       // done is closed
	dying     bool       // it is being ended: a send failed, or orphan
	orphan    bool       // data-transfer has let go of the channel, so that nothing limits it
	paused    bool       // a hook asked for a pause that has not been undone
	held      bool       // it stands still by Hold
	endless   bool       // it is held for good, until it is ended
	aside     bool       // it is to stand still behind the block at hand, until it is recalled
	standing  bool       // it does
	wantPause bool       // Pause was called: pause at the next block
	hookEnd   chan struct{}
	wanted    bool // Unpause was called and has not taken effect
	resuming  bool // a goroutine is at it
	updates   []graphsync.ExtensionData
}

// table is what is known about the requests that this node serves: the one
// record of which request belongs to which peer and channel.
type table struct {
	mu       sync.Mutex // guards the maps
	requests map[graphsync.RequestID]*served
	channels map[datatransfer.ChannelID]*channelEntry
	peers    map[peer.ID]int // live requests per peer
	oldest   []datatransfer.ChannelID
	keep     int // channels to remember
}

// channelEntry is one channel that was served in this process.
type channelEntry struct {
	meter *meter
	live  map[graphsync.RequestID]*served
	drop  bool // forget once nothing is live
}

func newTable(keep int) *table {
	return &table{
		requests: make(map[graphsync.RequestID]*served),
		channels: make(map[datatransfer.ChannelID]*channelEntry),
		peers:    make(map[peer.ID]int),
		keep:     keep,
	}
}

// admit records a request. It fails if the channel already has a live one, the
// id is in use, or the peer has maxPeer of them.
func (t *table) admit(in Incoming, maxPeer int) (*served, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests[in.ID] != nil {
		return nil, refuse(ReasonDuplicate, "request id %s is in use", in.ID)
	}
	if t.peers[in.Channel.Initiator] >= maxPeer {
		return nil, refuse(ReasonBusy, "peer has %d live requests, the most it may have", maxPeer)
	}
	c := t.channels[in.Channel]
	if c == nil {
		c = &channelEntry{meter: &meter{}, live: make(map[graphsync.RequestID]*served)}
	}
	if len(c.live) != 0 {
		return nil, refuse(ReasonLive, "channel has a live request; cancel it first")
	}
	if first, n := c.meter.lowest(); n != 0 && in.SkipLinks < first {
		return nil, refuse(ReasonSkip, "asks from link %d, but began at %d: open a new channel for what lies before", in.SkipLinks, first)
	}
	s := &served{id: in.ID, peer: in.Channel.Initiator, channel: in.Channel, meter: c.meter, done: make(chan struct{})}
	if t.channels[in.Channel] == nil {
		t.channels[in.Channel] = c
		t.oldest = append(t.oldest, in.Channel)
	}
	c.drop = false
	c.live[in.ID] = s
	t.requests[in.ID] = s
	t.peers[s.peer]++
	c.meter.begin(in.ID, in.SkipLinks)
	t.trim()
	return s, nil
}

// trim forgets the oldest idle channels beyond keep, so that peers cannot make
// the table grow for ever. It is called with mu held.
func (t *table) trim() {
	for n := len(t.oldest); len(t.channels) > t.keep && n > 0; n-- {
		chid := t.oldest[0]
		t.oldest = t.oldest[1:]
		c := t.channels[chid]
		switch {
		case c == nil:
		case len(c.live) == 0:
			delete(t.channels, chid)
		default:
			t.oldest = append(t.oldest, chid)
		}
	}
}

// end records that graphsync has let go of a request.
func (t *table) end(id graphsync.RequestID) {
	t.mu.Lock()
	s := t.requests[id]
	if s == nil {
		t.mu.Unlock()
		return
	}
	delete(t.requests, id)
	if t.peers[s.peer]--; t.peers[s.peer] <= 0 {
		delete(t.peers, s.peer)
	}
	if c := t.channels[s.channel]; c != nil {
		delete(c.live, id)
		if c.drop && len(c.live) == 0 {
			delete(t.channels, s.channel)
		}
	}
	t.mu.Unlock()
	s.mu.Lock()
	if !s.ended {
		s.ended = true
		close(s.done)
	}
	s.mu.Unlock()
}

// reject takes an admission back: nothing of the request was served.
func (t *table) reject(s *served) {
	t.end(s.id)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[s.channel]
	if c == nil || len(c.live) != 0 {
		return
	}
	if _, n := c.meter.lowest(); n == 1 {
		delete(t.channels, s.channel)
	}
}

func (t *table) get(id graphsync.RequestID) *served {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests[id]
}

func (t *table) meterOf(chid datatransfer.ChannelID) *meter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.channels[chid]; c != nil {
		return c.meter
	}
	return nil
}

// live returns the live requests of a channel.
func (t *table) live(chid datatransfer.ChannelID) []*served {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	if c == nil {
		return nil
	}
	out := make([]*served, 0, len(c.live))
	for _, s := range c.live {
		out = append(out, s)
	}
	return out
}

// liveOf returns how many requests of a peer are live.
func (t *table) liveOf(p peer.ID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[p]
}

// ofPeer returns the live requests of a peer.
func (t *table) ofPeer(p peer.ID) []*served {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers[p] == 0 {
		return nil
	}
	var out []*served
	for _, s := range t.requests {
		if s.peer == p {
			out = append(out, s)
		}
	}
	return out
}

func (t *table) forget(chid datatransfer.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[chid]
	switch {
	case c == nil:
	case len(c.live) == 0:
		delete(t.channels, chid)
	default:
		c.drop = true
	}
}

// await waits until all of ss have ended or ctx is done, and reports which it was.
func await(ctx context.Context, ss []*served) bool {
	for _, s := range ss {
		select {
		case <-s.done:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
