package transport

import (
	"context"

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

// WrapEgress returns net with a limit on the block bytes that are sent. Each
// peer's messages wait on the goroutine of that peer only. It returns net itself
// if cfg sets no limit.
func WrapEgress(net gsnet.GraphSyncNetwork, cfg EgressConfig) gsnet.GraphSyncNetwork {
	if !cfg.limited() {
		return net
	}
	e := &egress{GraphSyncNetwork: net}
	if cfg.Total != 0 {
		e.total = rate.NewLimiter(rate.Limit(cfg.Total), egressBurst)
	}
	if cfg.PerPeer != 0 {
		e.peers = newPeerLimits(rate.Limit(cfg.PerPeer), egressBurst)
	}
	return e
}

// egress is a network whose senders wait for their turn.
type egress struct {
	gsnet.GraphSyncNetwork
	total *rate.Limiter // nil: no limit
	peers *peerLimits   // nil: no limit
}

// limits returns what a message to p has to wait for: one's own turn first, since
// it must not hold the others'.
func (e *egress) limits(p peer.ID) []*rate.Limiter {
	var all []*rate.Limiter
	if e.peers != nil {
		all = append(all, e.peers.of(p))
	}
	if e.total != nil {
		all = append(all, e.total)
	}
	return all
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
	limits := e.limits(p)
	for ; left > 0; left -= egressStep {
		step := min(left, egressStep)
		for _, l := range limits {
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
