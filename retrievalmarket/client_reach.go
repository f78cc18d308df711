package retrievalmarket

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// pingTimeout is how long a provider on whose channel nothing comes may take to
// answer a ping before its connections are taken for dead.
const pingTimeout = 8 * time.Second

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
