package transport

import (
	"net"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// writeTurn is how long one connection is written to before other goroutines have
// their turn. A socket of a client that reads takes what it is given at once, so its
// writer never waits for it, and Go leaves a goroutine on the processor for 10 ms: with
// as many such writers as clients whatever else is to be done, a new client's deal to
// begin with, comes a tenth of a second later for each time that one goroutine hands it
// to another, and those who were first are served alone.
const writeTurn = 300 * time.Microsecond

// turnMuxer is a muxer whose connections' writers take turns.
type turnMuxer struct{ network.Multiplexer }

// NewConn implements network.Multiplexer.
func (m turnMuxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	return m.Multiplexer.NewConn(&turnConn{Conn: c, below: gatherBelow(c), yield: runtime.Gosched}, isServer, scope)
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
