package transport

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// gatherTLS is libp2p's TLS on sockets that are given all records of one write in one
// call. TLS itself gives them each record of 16 KiB, and at first of 1 KiB, as soon as
// it has it: a client that reads as fast as it is sent to is woken for each of them,
// and with many such clients the processors change from one to the other all the time.
type gatherTLS struct{ *libp2ptls.Transport }

func newGatherTLS(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (sec.SecureTransport, error) {
	t, err := libp2ptls.New(id, key, muxers)
	return gatherTLS{t}, err
}

// SecureInbound implements sec.SecureTransport.
func (t gatherTLS) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	return shaken(insecure, func(c net.Conn) (sec.SecureConn, error) { return t.Transport.SecureInbound(ctx, c, p) })
}

// SecureOutbound implements sec.SecureTransport.
func (t gatherTLS) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	return shaken(insecure, func(c net.Conn) (sec.SecureConn, error) { return t.Transport.SecureOutbound(ctx, c, p) })
}

// shaken makes insecure one that gathers, and that knows how long the other end took to
// answer as they shook hands.
func shaken(insecure net.Conn, shake func(net.Conn) (sec.SecureConn, error)) (sec.SecureConn, error) {
	c := &gatherConn{Conn: insecure, shakes: true}
	over, err := shake(c)
	c.shakes = false
	return over, err
}

// gathered are buffers that connections have only while they write.
var gathered = sync.Pool{New: func() any { return new([]byte) }}

// gatherConn is a socket below TLS.
type gatherConn struct {
	net.Conn
	shakes           bool          // the handshake is on: one goroutine has the connection; not changed later
	wrote            time.Time     // when something was sent in it that is not answered
	trip             time.Duration // the shortest time from that to an answer: there and back, and what the other end takes
	writing, closing atomic.Bool   // each is set before the other is looked at, so that one of the two is seen

	mu   sync.Mutex // of two writes at once TLS has not begun the second
	held *[]byte    // what is gathered; nil outside of a write; guarded by mu
	err  error      // why something that TLS takes for sent was not; guarded by mu
}

// gatherBelow returns the socket below c if it is one that gathers, else nil.
func gatherBelow(c net.Conn) *gatherConn {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		below, _ := over.NetConn().(*gatherConn)
		return below
	}
	return nil
}

// Write sends b, or keeps it until the write is over of which it is a part.
func (c *gatherConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return 0, c.err
	case c.held != nil:
		*c.held = append(*c.held, b...)
		return len(b), nil
	}
	n, err := c.Conn.Write(b)
	if c.shakes {
		c.wrote = time.Now()
	}
	return n, err
}

// Read reads, and measures in the handshake.
func (c *gatherConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.shakes && !c.wrote.IsZero() {
		if took := time.Since(c.wrote); c.trip == 0 || took < c.trip {
			c.trip = took
		}
		c.wrote = time.Time{}
	}
	return n, err
}

// whole writes b to over, which is TLS on top of c, and sends all that comes of it in
// one call. One goroutine calls it at a time. An error is the socket's own: a muxer asks
// it whether it is a timeout.
func (c *gatherConn) whole(over net.Conn, b []byte) (int, error) {
	c.writing.Store(true)
	defer c.writing.Store(false)
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	c.mu.Lock()
	c.held = gathered.Get().(*[]byte)
	c.mu.Unlock()
	n, err := over.Write(b)
	if sendErr := c.send(); err == nil && sendErr != nil {
		return 0, sendErr
	}
	return n, err
}

// send sends what was gathered.
func (c *gatherConn) send() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held
	c.held = nil
	if c.err == nil && len(*held) != 0 {
		if _, err := c.Conn.Write(*held); err != nil {
			c.err = err
		}
	}
	*held = (*held)[:0]
	gathered.Put(held)
	return c.err
}

// cut is told that the connection is about to be closed. If it is being written to the
// socket is closed at once, as TLS does of itself in a write of its own: to say so to
// the other end first would take as long as what is being sent.
func (c *gatherConn) cut() {
	c.closing.Store(true)
	if c.writing.Load() {
		_ = c.Conn.Close() // closed again from above
	}
}
