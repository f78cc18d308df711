package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// pingTimeout is how long a provider on whose channel nothing comes may take to
// answer a ping before its connections are taken for dead.
const pingTimeout = 8 * time.Second

// ErrUnreachable means that no connection to the provider could be made.
var ErrUnreachable = errors.New("provider not reachable")

// dials is how often a provider is dialled before it is not reachable, if it is
// the handshake that fails, and dialPause bounds the pause between two.
const (
	dials     = 4
	dialPause = 200 * time.Millisecond
)

// connect connects to a provider. libp2p would not try again for seconds after
// it failed; what has a reason to try has a pace of its own.
func (c *Client) connect(ctx context.Context, p peer.AddrInfo) error {
	for try := 1; ; try++ {
		if n, ok := c.cfg.Host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
			n.Backoff().Clear(p.ID)
		}
		err := c.cfg.Host.Connect(ctx, p)
		if err == nil {
			return nil
		}
		if try == dials || !crossed(err) || !pause(ctx, rand.N(dialPause)) {
			return fmt.Errorf("%w: %s: %w", ErrUnreachable, p.ID, err)
		}
	}
}

// crossed reports whether somebody was reached and the handshake with them
// failed, though they are who was looked for as far as can be said. So end two
// nodes that dial each other at the same instant from the ports at which they
// listen: TCP makes one connection of it, on which both are the one that
// called. After a pause of any length one of them is the first.
func crossed(err error) bool {
	var failed *swarm.DialError
	if other := (sec.ErrPeerIDMismatch{}); errors.As(err, &other) || !errors.As(err, &failed) {
		return false
	}
	return slices.ContainsFunc(failed.DialErrors, func(e swarm.TransportError) bool {
		op := (*net.OpError)(nil)
		late := (net.Error)(nil)
		silent := errors.As(e.Cause, &late) && late.Timeout() || errors.Is(e.Cause, context.Canceled)
		return !silent && (!errors.As(e.Cause, &op) || op.Op != "dial")
	})
}

// pause waits for d, and reports false if ctx ends before that.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// knows adds addresses to those at which a provider is looked for. A provider
// that moved is found where the user says it is now.
func (c *Client) knows(p peer.AddrInfo) {
	c.cfg.Host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.AddressTTL)
}

// checkConnection closes the connections to a provider that does not answer,
// aside. A network that drops packets silently leaves a connection that looks
// open, and that every new channel would be opened on, until its keepalive finds
// out. A provider that knows no ping has answered.
func (c *Client) checkConnection(p peer.ID) {
	c.done.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, pingTimeout)
		defer cancel()
		select {
		case <-ping.Ping(ctx, c.cfg.Host, p):
		case <-ctx.Done():
		}
		if ctx.Err() == nil || c.ctx.Err() != nil {
			return
		}
		c.log.Info("no answer to a ping, connecting anew", "peer", p)
		if err := c.cfg.Host.Network().ClosePeer(p); err != nil {
			c.log.Debug("close dead connection", "peer", p, "err", err)
		}
	})
}
