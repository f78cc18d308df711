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

// Egress makes those who send blocks wait for their turn, whatever they send them
// by. A nil Egress makes nobody wait. It may be used concurrently.
type Egress struct {
	total *rate.Limiter // nil: no limit
	peers *peerLimits   // nil: no limit
}

// NewEgress returns what keeps the limits of cfg, nil if it sets none.
func NewEgress(cfg EgressConfig) *Egress {
	if !cfg.limited() {
		return nil
	}
	e := new(Egress)
	if cfg.Total != 0 {
		e.total = rate.NewLimiter(rate.Limit(cfg.Total), egressBurst)
	}
	if cfg.PerPeer != 0 {
		e.peers = newPeerLimits(rate.Limit(cfg.PerPeer), egressBurst)
	}
	return e
}

// Wait returns when so many bytes of blocks may be sent to a peer, or with ctx.
func (e *Egress) Wait(ctx context.Context, to peer.ID, bytes int) error {
	if e == nil || bytes <= 0 {
		return nil
	}
	limits := e.limits(to)
	for ; bytes > 0; bytes -= egressStep {
		step := min(bytes, egressStep)
		for _, l := range limits {
			if err := l.WaitN(ctx, step); err != nil {
				return err
			}
		}
	}
	return nil
}

// limits returns what whoever sends to p has to wait for: one's own turn first,
// since it must not hold the others'.
func (e *Egress) limits(p peer.ID) []*rate.Limiter {
	var all []*rate.Limiter
	if e.peers != nil {
		all = append(all, e.peers.of(p))
	}
	if e.total != nil {
		all = append(all, e.total)
	}
	return all
}

// WrapEgress returns net with a limit on the block bytes that are sent. Each
// peer's messages wait on the goroutine of that peer only. It returns net itself
// if cfg sets no limit.
func WrapEgress(net gsnet.GraphSyncNetwork, cfg EgressConfig) gsnet.GraphSyncNetwork {
	return NewEgress(cfg).wrap(net)
}

func (e *Egress) wrap(net gsnet.GraphSyncNetwork) gsnet.GraphSyncNetwork {
	if e == nil {
		return net
	}
	return &egress{net, e}
}

// egress is a network whose senders wait for their turn.
type egress struct {
	gsnet.GraphSyncNetwork
	turns *Egress
}

// wait returns when the blocks of m may be sent to p, or with ctx.
func (e *egress) wait(ctx context.Context, p peer.ID, m gsmsg.GraphSyncMessage) error {
	bytes := 0
	for _, b := range m.Blocks() {
		bytes += len(b.RawData())
	}
	return e.turns.Wait(ctx, p, bytes)
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
