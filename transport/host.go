package transport

import (
	"errors"
	"fmt"
	"time"

	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// HostConfig configures NewHost.
type HostConfig struct {
	// Key is the identity of the node. Required.
	Key crypto.PrivKey

	// Listen are the multiaddrs to listen on, TCP or QUIC. None: the host only
	// dials.
	Listen []string

	// Conns is how many connections the host keeps when it has too many, and
	// MaxConns how many are too many. Default 256 and 1024.
	Conns, MaxConns int

	// StreamsPerPeer is how many graphsync streams a peer may have open to this
	// host. An honest one has one, and for a moment two. Default 16.
	StreamsPerPeer int

	// UserAgent is what the host calls itself. Default "tollgraph".
	UserAgent string
}

// NewHost returns a libp2p host: TCP and QUIC, TLS and Noise, yamux, a resource
// manager with limits that follow the size of the machine, and a connection
// manager. It uses no relay, maps no port and has no discovery. The caller
// closes it.
func NewHost(cfg HostConfig) (host.Host, error) {
	if cfg.Key == nil {
		return nil, errors.New("host has no key: set HostConfig.Key")
	}
	conns, err := connmgr.NewConnManager(orDefault(cfg.Conns, 256), orDefault(cfg.MaxConns, 1024), connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, fmt.Errorf("connection manager: %w", err)
	}
	limits := hostLimits(orDefault(cfg.StreamsPerPeer, 16), orDefault(cfg.MaxConns, 1024))
	resources, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), rcmgr.WithMetricsDisabled())
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	listen := libp2p.NoListenAddrs
	if len(cfg.Listen) != 0 {
		listen = libp2p.ListenAddrStrings(cfg.Listen...)
	}
	h, err := libp2p.New(
		libp2p.Identity(cfg.Key),
		listen,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(quic.NewTransport),
		libp2p.Security(libp2ptls.ID, newGatherTLS),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, newMuxer()),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(resources),
		libp2p.UserAgent(orDefault(cfg.UserAgent, "tollgraph")),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		return nil, fmt.Errorf("libp2p host: %w", err)
	}
	return h, nil
}

// hostLimits are libp2p's own limits for this machine, with room for connections
// and a bound on the graphsync streams of one peer.
func hostLimits(streams, conns int) rcmgr.ConcreteLimitConfig {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	part := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns:        rcmgr.LimitVal(2 * conns),
			ConnsInbound: rcmgr.LimitVal(conns),
		},
	}
	limits := scaling.AutoScale()
	perPeer := limits.ToPartialLimitConfig().ProtocolPeerDefault
	perPeer.StreamsInbound = rcmgr.LimitVal(streams)
	part.ProtocolPeer = map[protocol.ID]rcmgr.ResourceLimits{gsnet.ProtocolGraphsync_2_0_0: perPeer}
	return part.Build(limits)
}
