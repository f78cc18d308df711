package transport

import (
	"net"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
)

// writeTurn is how long one connection is written to before other goroutines have
// their turn. A socket of a client that reads takes what it is given at once, so its
// writer never waits for it, and Go leaves a goroutine on the processor for 10 ms: with
// as many such writers as clients whatever else is to be done, a new client's deal to
// begin with, comes a tenth of a second later for each time that one goroutine hands it
// to another, and those who were first are served alone.
const writeTurn = 300 * time.Microsecond

// turnMuxer is a muxer whose connections' writers take turns.
type turnMuxer struct {
	network.Multiplexer                     // of connections to those who are near, or not known to be far
	far                 network.Multiplexer // of those to others, see farAway
}

// NewConn implements network.Multiplexer.
func (m turnMuxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	below, muxer := gatherBelow(c), m.Multiplexer
	if below != nil && below.trip >= farAway {
		muxer = m.far
	}
	return muxer.NewConn(&turnConn{Conn: c, below: below, yield: runtime.Gosched}, isServer, scope)
}

// farAway is how long an answer takes, in the handshake, of a peer that what libp2p lets
// one stream have on the way is too little for: 8 MiB in a round trip, which at 20 ms is
// 400 MiB in a second.
const farAway = 20 * time.Millisecond

// farWindow is the limit of how far yamux opens the window of a stream to one that is
// far. Each time that it opens it wider it never gives the sender what was read since
// the last update, so that of a limit of 16 MiB, which libp2p has, 8 are used, and 16 of
// this one.
const farWindow = 32 << 20

func newMuxer() turnMuxer {
	far := *yamux.DefaultTransport
	far.MaxStreamWindowSize = farWindow
	return turnMuxer{yamux.DefaultTransport, &far}
}

// turnConn is a connection that is written to by one goroutine.
type turnConn struct {
	net.Conn
	below *gatherConn // or nil
	yield func()
	since time.Time // when this turn began
}

// Write writes, and lets others have the processor when the turn is over.
func (c *turnConn) Write(b []byte) (int, error) {
	n, err := c.write(b)
	if time.Since(c.since) >= writeTurn {
		c.yield()
		c.since = time.Now()
	}
	return n, err
}

func (c *turnConn) write(b []byte) (int, error) {
	if c.below == nil {
		return c.Conn.Write(b)
	}
	return c.below.whole(c.Conn, b)
}

// Close closes the connection, also while it is written to.
func (c *turnConn) Close() error {
	if c.below != nil {
		c.below.cut()
	}
	return c.Conn.Close()
}
