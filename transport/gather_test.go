package transport

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// closing is how long TLS waits when it says that it closes.
const closing = 5 * time.Second

// callConn counts how often it is written to.
type callConn struct {
	net.Conn
	calls chan struct{}
}

func (c *callConn) Write(b []byte) (int, error) {
	c.calls <- struct{}{}
	return c.Conn.Write(b)
}

// shakeHands makes the two ends of a connection secure.
func shakeHands(t *testing.T, near, far net.Conn) (ours, theirs sec.SecureConn) {
	t.Helper()
	var ends [2]sec.SecureTransport
	var ids [2]peer.ID
	for i := range ends {
		key, public, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ids[i], err = peer.IDFromPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		ends[i], err = newGatherTLS(libp2ptls.ID, key, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	inbound := make(chan sec.SecureConn, 1)
	go func() {
		c, err := ends[1].SecureInbound(t.Context(), far, ids[0])
		if err != nil {
			t.Error(err)
		}
		inbound <- c
	}()
	ours, err := ends[0].SecureOutbound(t.Context(), near, ids[1])
	if err != nil {
		t.Fatal(err)
	}
	return ours, <-inbound
}

// gathering is a connection that gathers, the socket below it, and the other end.
func gathering(t *testing.T) (*turnConn, *callConn, sec.SecureConn) {
	t.Helper()
	near, far := net.Pipe()
	socket := &callConn{Conn: near, calls: make(chan struct{}, 100)}
	ours, theirs := shakeHands(t, socket, far)
	return &turnConn{Conn: ours, below: gatherBelow(ours), yield: func() {}}, socket, theirs
}

// TestGather: all of one write goes to the socket in one call, whatever TLS makes of
// it, and is what arrives.
func TestGather(t *testing.T) {
	c, socket, far := gathering(t)
	defer socket.Close() // TLS would say so first, to nobody
	for _, n := range []int{1, 12, 16 << 10, 64<<10 + 12, 300 << 10, 64 << 10} {
		sent, got := make([]byte, n), make([]byte, n)
		_, _ = rand.Read(sent) // never fails
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(far, got)
			read <- err
		}()
		before := len(socket.calls)
		if k, err := c.Write(sent); k != n || err != nil {
			t.Fatalf("%d of %d bytes: %v", k, n, err)
		}
		if calls := len(socket.calls) - before; calls != 1 {
			t.Errorf("%d bytes in %d calls", n, calls)
		}
		if err := <-read; err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came otherwise, %v", n, err)
		}
	}
}

// TestGatherClose: a connection whose other end does not read is closed at once, also
// while it is written to, and the write ends; so does one that takes too long. After
// that nothing is written any more: TLS has counted what did not go out.
func TestGatherClose(t *testing.T) {
	for name, end := range map[string]func(*turnConn) error{
		"closed":   (*turnConn).Close,
		"deadline": func(c *turnConn) error { return c.SetWriteDeadline(time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			c, socket, _ := gathering(t)
			defer socket.Close() // TLS would say so first, to nobody
			for len(socket.calls) > 0 {
				<-socket.calls
			}
			written, ended := make(chan error, 1), make(chan struct{})
			go func() {
				_, err := c.Write(make([]byte, 64<<10))
				written <- err
			}()
			<-socket.calls // it is being sent
			go func() {
				_ = end(c) // closed, it cannot say so to the other end
				close(ended)
			}()
			patience := time.After(closing / 2)
			select {
			case <-ended:
			case <-patience:
				t.Fatal("that waits for what is being sent")
			}
			select {
			case err := <-written:
				if err == nil || name == "deadline" && !os.IsTimeout(err) {
					t.Errorf("what nobody read is written: %v", err)
				}
			case <-patience:
				t.Fatal("it is written to all the same")
			}
			_ = c.SetWriteDeadline(time.Time{}) // fails if it is closed
			if _, err := c.Write([]byte{1}); err == nil || len(socket.calls) != 0 {
				t.Errorf("it is written to afterwards: %v", err)
			}
		})
	}
}

// closingConn tells when it is to be closed, and waits for a word.
type closingConn struct {
	net.Conn
	asked, word chan struct{}
}

func (c closingConn) Close() error {
	close(c.asked)
	<-c.word
	return c.Conn.Close()
}

// TestGatherClosed: what is written when the connection is about to be closed does not
// go out, so that the close does not wait for it.
func TestGatherClosed(t *testing.T) {
	c, socket, _ := gathering(t)
	late := closingConn{c.Conn, make(chan struct{}), make(chan struct{})}
	c.Conn = late
	ended := make(chan struct{})
	go func() {
		_ = c.Close() // cannot say so to the other end
		close(ended)
	}()
	<-late.asked
	if _, err := c.Write(make([]byte, 64<<10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is written to: %v", err)
	}
	_ = socket.Close() // TLS would say so first, to nobody
	close(late.word)
	<-ended
}
