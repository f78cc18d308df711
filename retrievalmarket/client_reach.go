package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
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

// connect connects to a provider, and waits until it has said what it speaks, which is
// a round trip more, if there was no connection; over one that is there it may not have
// yet, see identify.
func (c *Client) connect(ctx context.Context, p peer.AddrInfo) error {
	return c.reach(ctx, p, func() error { return c.cfg.Host.Connect(ctx, p) })
}

// dialOnly connects to a provider. What it speaks may not be known yet. Where it is not
// found a host may know how to look for it; one that does not says at once that it was
// dialled just now.
func (c *Client) dialOnly(ctx context.Context, p peer.AddrInfo) error {
	c.cfg.Host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.TempAddrTTL)
	return c.reach(ctx, p, func() error {
		_, err := c.cfg.Host.Network().DialPeer(ctx, p.ID)
		if err != nil && c.cfg.Host.Connect(ctx, p) == nil {
			return nil
		}
		return err
	})
}

// identify waits until a provider that is connected has said what it speaks, or will
// not. To open a stream waits for that, whichever it is.
func (c *Client) identify(ctx context.Context, p peer.ID) {
	if _, known := c.lacksStream(p); known {
		return
	}
	if s, err := c.cfg.Host.NewStream(network.WithNoDial(ctx, "to be identified"), p, ping.ID); err == nil {
		_ = s.Reset() // nothing is said on it
	}
}

// reach connects to a provider by dial. libp2p would not try again for seconds after
// it failed; what has a reason to try has a pace of its own.
func (c *Client) reach(ctx context.Context, p peer.AddrInfo, dial func() error) error {
	for try := 1; ; try++ {
		if n, ok := c.cfg.Host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
			n.Backoff().Clear(p.ID)
		}
		err := dial()
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
