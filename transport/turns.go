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

// measureEvery is how often the round trip of a connection is measured. The window of
// a stream grows while half of it goes by in less than four of them, and on a network
// that is quick when it is idle a round trip takes much longer once there is something
// to move: with the one that was measured as the connection began, or half a minute ago,
// it would stay at 256 KiB, and the sender stand still again and again.
const measureEvery = 2 * time.Second

// turnMuxer is a muxer whose connections' writers take turns.
type turnMuxer struct{ network.Multiplexer }

// newMuxer returns libp2p's own, whose windows follow the round trip as it is.
func newMuxer() turnMuxer {
	c := *yamux.DefaultTransport
	c.MeasureRTTInterval = measureEvery
	return turnMuxer{&c}
}

// NewConn implements network.Multiplexer.
func (m turnMuxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	return m.Multiplexer.NewConn(&turnConn{Conn: c, yield: runtime.Gosched}, isServer, scope)
}

// turnConn is a connection that is written to by one goroutine.
type turnConn struct {
	net.Conn
	yield func()
	since time.Time // when this turn began
}

// Write writes, and lets others have the processor when the turn is over.
func (c *turnConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if time.Since(c.since) >= writeTurn {
		c.yield()
		c.since = time.Now()
	}
	return n, err
}
