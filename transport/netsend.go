package transport

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// arrived is how long after it was written to a stream a message is taken to
// have arrived, if the stream breaks then. Graphsync acknowledges nothing. A
// stock peer resets a stream that was idle for 10 s: what waits for a payment
// must go on behind that.
const arrived = 5 * time.Second

// maxBroken is how many broken responses of one peer are remembered.
const maxBroken = 1024

// NewMessageSender opens a stream to p. When the stream breaks, the responses
// that it carried a moment ago are ended, and no more of them is sent: of what
// was written last the peer may have received nothing, and graphsync would go on
// behind the gap on another stream. The peer would take that for malice and fail
// the transfer for good, although it could have restarted it.
func (n *GuardedNetwork) NewMessageSender(ctx context.Context, p peer.ID, opts gsnet.MessageSenderOpts) (gsnet.MessageSender, error) {
	s, err := n.GraphSyncNetwork.NewMessageSender(ctx, p, opts)
	if err != nil {
		return nil, err
	}
	return &guardedSender{MessageSender: s, net: n, peer: p, sent: make(map[graphsync.RequestID]time.Time)}, nil
}

// guardedSender is one stream to a peer.
type guardedSender struct {
	gsnet.MessageSender
	net  *GuardedNetwork
	peer peer.ID

	mu   sync.Mutex
	sent map[graphsync.RequestID]time.Time // guarded by mu; when each response was last written to the stream; nil once it is over
}

// SendMsg sends what of m may be sent.
func (s *guardedSender) SendMsg(ctx context.Context, m gsmsg.GraphSyncMessage) error {
	resps := m.Responses()
	if len(resps) == 0 {
		return s.MessageSender.SendMsg(ctx, m)
	}
	m, whole := s.net.unbroken(s.peer, m, resps)
	if !whole {
		if m.Empty() {
			return nil // nobody waits for it
		}
		resps = m.Responses()
	}
	began := time.Now()
	if err := s.MessageSender.SendMsg(ctx, m); err != nil {
		s.over(began)
		return err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range resps {
		if s.sent != nil {
			s.sent[r.RequestID()] = now
		}
	}
	if len(s.sent) > maxBroken {
		for id, at := range s.sent {
			if now.Sub(at) > arrived {
				delete(s.sent, id)
			}
		}
	}
	return nil
}

// Close ends the stream, which graphsync does when the peer is gone.
func (s *guardedSender) Close() error {
	s.over(time.Now())
	return s.MessageSender.Close()
}

// Reset ends the stream.
func (s *guardedSender) Reset() error {
	s.over(time.Now())
	return s.MessageSender.Reset()
}

// over breaks the responses of which the last part may not have arrived, as the
// stream was last known to be whole at the given time.
func (s *guardedSender) over(whole time.Time) {
	s.mu.Lock()
	sent := s.sent
	s.sent = nil
	s.mu.Unlock()
	for id, at := range sent {
		if whole.Sub(at) < arrived {
			s.net.broke(s.peer, id)
		}
	}
}

// broke ends a response to p that has a gap.
func (n *GuardedNetwork) broke(p peer.ID, id graphsync.RequestID) {
	n.mu.Lock()
	r, e, closed := n.remoteOf(p), n.exchange, n.closed
	if _, live := r.known[id]; closed || !live {
		n.mu.Unlock() // everything was sent, or the node stops
		return
	}
	if len(r.broken) >= maxBroken {
		clear(r.broken)
	}
	r.broken[id] = struct{}{}
	n.mu.Unlock()
	if e != nil {
		e.failed(id)
	}
}

// unbroken returns m without the responses that have a gap and without their
// blocks, and whether that is all of it.
func (n *GuardedNetwork) unbroken(p peer.ID, m gsmsg.GraphSyncMessage, resps []gsmsg.GraphSyncResponse) (gsmsg.GraphSyncMessage, bool) {
	n.mu.Lock()
	r := n.peers[p]
	if r == nil || len(r.broken) == 0 {
		n.mu.Unlock()
		return m, true
	}
	rest := make(map[graphsync.RequestID]gsmsg.GraphSyncResponse, len(resps))
	for _, resp := range resps {
		if _, broken := r.broken[resp.RequestID()]; !broken {
			rest[resp.RequestID()] = resp
		}
	}
	n.mu.Unlock()
	if len(rest) == len(resps) {
		return m, true
	}
	wanted := make(map[cid.Cid]bool)
	for _, resp := range rest {
		resp.Metadata().Iterate(func(c cid.Cid, a graphsync.LinkAction) { wanted[c] = wanted[c] || a == graphsync.LinkActionPresent })
	}
	blks := blockMap(m.Blocks())
	for c := range blks {
		if !wanted[c] {
			delete(blks, c)
		}
	}
	return gsmsg.NewMessage(requestMap(m.Requests()), rest, blks), false
}
