package transport

import (
	"context"
	"sync"
	"time"

	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// NetworkConfig configures NewNetwork. The zero value is ready.
type NetworkConfig struct {
	// MaxMessageSize is the largest message read or written, in bytes. A
	// larger one makes the reader reset the stream. The writer sends it as
	// several, or refuses with ErrMessageLimit what one block or extension
	// makes too large. Default 4 MiB, what the stock network reads.
	MaxMessageSize int

	// ReadAhead is how many messages of one stream are read and hashed while
	// the receiver is still busy with an earlier one. A stream holds at most
	// ReadAhead+1 messages; after that it is not read, so that the sender
	// feels a slow receiver. Default 2; negative is 0.
	ReadAhead int

	// IdleTimeout resets an inbound stream on which no message has begun for
	// so long. It is housekeeping and not reported to the receiver as an
	// error: transfers that are paused are idle. Default 5 minutes; negative
	// is never.
	IdleTimeout time.Duration

	// StallTimeout resets a stream whose message has begun but does not move
	// on for so long. Any progress starts it again, so a slow link may take
	// as long as it needs. For writing, graphsync's own SendMessageTimeout
	// takes its place where it is set. Default 1 minute.
	StallTimeout time.Duration

	// MaxStreamsPerPeer bounds the inbound streams of one peer; more are
	// reset. Graphsync uses one at a time and abandons it after an error.
	// Default 8.
	MaxStreamsPerPeer int

	// Budget, if set, is asked before a message that carries blocks is handed
	// on. See Budget.
	Budget Budget

	// Protocols replaces the protocol identifiers, for tests and private networks.
	// Default /ipfs/graphsync/2.0.0.
	Protocols []protocol.ID

	// OnPanic, if set, is told of panics that were recovered in the encoder,
	// the decoder or the receiver. The stream is reset in any case.
	OnPanic func(value any, stack string)
}

// Budget holds back what a peer sends while too much of what it sent before
// waits for a slow disk. Graphsync keeps what it has received in an unbounded
// queue until its store has taken it, so the network is the only place that
// can wait.
type Budget interface {
	// Admit is called before a message is handed to graphsync, with the bytes
	// of its blocks that its responses refer to (graphsync drops others at
	// once), on the goroutine of one stream, in order. While it
	// blocks, that stream is not read beyond NetworkConfig.ReadAhead. It must
	// return in bounded time, also after the stream has ended: what was
	// received is still delivered. An error resets the stream.
	Admit(from peer.ID, blockBytes int) error
}

func (c NetworkConfig) withDefaults() NetworkConfig {
	if c.MaxMessageSize <= 0 {
		c.MaxMessageSize = DefaultMaxMessageSize
	}
	switch {
	case c.ReadAhead == 0:
		c.ReadAhead = 2
	case c.ReadAhead < 0:
		c.ReadAhead = 0
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = time.Minute
	}
	if c.MaxStreamsPerPeer <= 0 {
		c.MaxStreamsPerPeer = 8
	}
	if len(c.Protocols) == 0 {
		c.Protocols = []protocol.ID{gsnet.ProtocolGraphsync_2_0_0}
	}
	return c
}

// NewNetwork returns a graphsync network over h that speaks the same protocol
// as gsnet.NewFromLibp2pHost, byte for byte, without copying blocks: they are
// written to the stream as they are, and received blocks are slices of the
// buffer they were received into. Hashing overlaps with reading and with the
// receiver's work, and messages arrive in the order they were sent in.
//
// Unlike the stock network, it keeps idle streams (see NetworkConfig) and
// reports errors after all messages that came before them. It starts no
// goroutine before SetDelegate, and those of a stream end with the stream.
func NewNetwork(h host.Host, cfg NetworkConfig) gsnet.GraphSyncNetwork {
	return &fastNetwork{host: h, cfg: cfg.withDefaults(), streams: make(map[peer.ID]int)}
}

type fastNetwork struct {
	host     host.Host
	cfg      NetworkConfig
	receiver gsnet.Receiver // set once, before the first stream
	buffers  buffers

	mu      sync.Mutex
	streams map[peer.ID]int // guarded by mu; inbound streams by peer
}

func (n *fastNetwork) SetDelegate(r gsnet.Receiver) {
	n.receiver = r
	for _, id := range n.cfg.Protocols {
		n.host.SetStreamHandler(id, n.handleStream)
	}
	n.host.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { r.Connected(c.RemotePeer()) },
		DisconnectedF: func(_ network.Network, c network.Conn) { r.Disconnected(c.RemotePeer()) },
	})
}

func (n *fastNetwork) ConnectTo(ctx context.Context, p peer.ID) error {
	return n.host.Connect(ctx, peer.AddrInfo{ID: p})
}

func (n *fastNetwork) ConnectionManager() gsnet.ConnManager { return n.host.ConnManager() }

// enter counts an inbound stream of p and reports whether it may stay.
func (n *fastNetwork) enter(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.streams[p] >= n.cfg.MaxStreamsPerPeer {
		return false
	}
	n.streams[p]++
	return true
}

// speaks reports whether p has opened a stream of the protocol itself.
func (n *fastNetwork) speaks(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.streams[p] > 0
}

func (n *fastNetwork) leave(p peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.streams[p]--; n.streams[p] == 0 {
		delete(n.streams, p)
	}
}
