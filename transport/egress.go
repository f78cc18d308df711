package transport

import (
	"context"
	"sync"

	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// EgressConfig bounds how fast blocks leave the node. A message of graphsync is
// sent when its bytes are due, at once as far as libp2p takes it, so the limit
// holds over seconds, not over milliseconds.
type EgressConfig struct {
	// Total is for all peers together, in bytes per second. Default 0: no limit.
	Total uint64

	// PerPeer is for one peer, in bytes per second. Default 0: no limit. A client
	// gives up on a provider that sends nothing for its StallTimeout: a limit
	// below a message (512 KiB, or one block) in that time makes no sense.
	PerPeer uint64
}

func (c EgressConfig) limited() bool { return c.Total != 0 || c.PerPeer != 0 }

// egressStep is what is waited for at a time, in bytes, and egressBurst what may
// go at once after a silence: small steps let peers take turns.
const (
	egressStep  = 64 << 10
	egressBurst = 256 << 10
)

// maxEgressPeers is how many peers' limiters are kept before those at rest are
// dropped.
const maxEgressPeers = 4096

// WrapEgress returns net with a limit on the block bytes that are sent. Each
// peer's messages wait on the goroutine of that peer only. It returns net itself
// if cfg sets no limit.
func WrapEgress(net gsnet.GraphSyncNetwork, cfg EgressConfig) gsnet.GraphSyncNetwork {
	if !cfg.limited() {
		return net
	}
	e := &egress{GraphSyncNetwork: net, cfg: cfg, peers: make(map[peer.ID]*rate.Limiter)}
	e.total = bytesLimiter(cfg.Total)
	return e
}

// egress is a network whose senders wait for their turn.
type egress struct {
	gsnet.GraphSyncNetwork
	cfg   EgressConfig
	total *rate.Limiter // nil: no limit

	mu    sync.Mutex // guards peers
	peers map[peer.ID]*rate.Limiter
}

// bytesLimiter returns a limiter of n bytes per second, nil if n is 0.
func bytesLimiter(n uint64) *rate.Limiter {
	if n == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(n), egressBurst)
}

// limiter returns the limiter of p, nil if peers have none.
func (e *egress) limiter(p peer.ID) *rate.Limiter {
	if e.cfg.PerPeer == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.peers[p]
	if l == nil {
		if len(e.peers) >= maxEgressPeers {
			e.dropResting()
		}
		l = bytesLimiter(e.cfg.PerPeer)
		e.peers[p] = l
	}
	return l
}

// dropResting forgets the limiters that a new one would equal. mu is held.
func (e *egress) dropResting() {
	for p, l := range e.peers {
		if l.Tokens() >= egressBurst {
			delete(e.peers, p)
		}
	}
}

// wait returns when the blocks of m may be sent to p, or with ctx.
func (e *egress) wait(ctx context.Context, p peer.ID, m gsmsg.GraphSyncMessage) error {
	left := 0
	for _, b := range m.Blocks() {
		left += len(b.RawData())
	}
	if left == 0 {
		return nil
	}
	own := e.limiter(p)
	for ; left > 0; left -= egressStep {
		step := min(left, egressStep)
		for _, l := range []*rate.Limiter{own, e.total} { // one's own first: it must not hold the others' turn
			if l == nil {
				continue
			}
			if err := l.WaitN(ctx, step); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *egress) SendMessage(ctx context.Context, p peer.ID, m gsmsg.GraphSyncMessage) error {
	if err := e.wait(ctx, p, m); err != nil {
		return err
	}
	return e.GraphSyncNetwork.SendMessage(ctx, p, m)
}

func (e *egress) NewMessageSender(ctx context.Context, p peer.ID, opts gsnet.MessageSenderOpts) (gsnet.MessageSender, error) {
	s, err := e.GraphSyncNetwork.NewMessageSender(ctx, p, opts)
	if err != nil {
		return nil, err
	}
	return &egressSender{MessageSender: s, e: e, to: p}, nil
}

type egressSender struct {
	gsnet.MessageSender
	e  *egress
	to peer.ID
}

func (s *egressSender) SendMsg(ctx context.Context, m gsmsg.GraphSyncMessage) error {
	if err := s.e.wait(ctx, s.to, m); err != nil {
		return err
	}
	return s.MessageSender.SendMsg(ctx, m)
}
