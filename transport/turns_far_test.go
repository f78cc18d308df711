package transport

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/sec"
)

// secured is a connection over a socket that gathers.
type secured struct{ *gatherConn }

func (c secured) NetConn() net.Conn { return c.gatherConn }

// longLine returns the two ends of a connection on which everything takes lag each way.
// End ends what carries.
func longLine(lag time.Duration) (near, far net.Conn, end func()) {
	near, b := net.Pipe()
	c, far := net.Pipe()
	var carrying sync.WaitGroup
	carrying.Go(func() { carry(c, b, lag) })
	carrying.Go(func() { carry(b, c, lag) })
	return near, far, func() {
		_, _ = near.Close(), far.Close()
		carrying.Wait()
	}
}

// carry takes what comes from src to dst, each piece lag later, until either ends.
func carry(dst, src net.Conn, lag time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	way := make(chan piece, 8<<10)
	go func() {
		defer close(way)
		for {
			data := make([]byte, 64<<10)
			n, err := src.Read(data)
			if err != nil {
				return
			}
			way <- piece{data[:n], time.Now().Add(lag)}
		}
	}()
	for p := range way {
		time.Sleep(time.Until(p.due)) // of the bubble's clock
		if _, err := dst.Write(p.data); err != nil {
			_ = src.Close()
		}
	}
	_ = dst.Close()
}

// unread is how much a stream takes to one who has read so many bytes, and reads no more.
func unread(t *testing.T, lag time.Duration, reads int64) int64 {
	t.Helper()
	near, far, end := longLine(lag)
	defer end()
	var ends [2]network.MuxedConn
	for i, c := range []net.Conn{near, far} {
		m, err := newMuxer().NewConn(secured{&gatherConn{Conn: c, trip: 2 * lag}}, i == 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		ends[i] = m
	}
	time.Sleep(time.Second) // of the bubble's clock: each has measured the round trip
	had := make(chan error, 1)
	go func() {
		s, err := ends[1].AcceptStream()
		if err == nil {
			_, err = io.CopyN(io.Discard, s, reads)
		}
		had <- err
	}()
	s, err := ends[0].OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent, data := int64(0), make([]byte, writePiece)
	for {
		_ = s.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := s.Write(data)
		if sent += int64(n); err != nil {
			break // nothing more is taken
		}
	}
	if err := <-had; err != nil {
		t.Fatal(err)
	}
	return sent - reads
}

// TestFarWindow: a stream to one that is far takes twice what it does by itself, and
// what is on the way to one that is near is not more than before.
func TestFarWindow(t *testing.T) {
	for name, c := range map[string]struct {
		lag  time.Duration
		want int64 // but for less than a MiB that was read since the last update
	}{
		"near": {farAway/2 - 1, 8 << 20},
		"far":  {farAway / 2, 16 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := unread(t, c.lag, 64<<20); (got+1<<19)>>20 != c.want>>20 {
					t.Errorf("%d KiB on the way, want %d", got>>10, c.want>>10)
				}
			})
		})
	}
}

// TestHandshakeTrip: both ends of a connection measure what is on the way between them,
// and not what their own work takes.
func TestHandshakeTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lag = 30 * time.Millisecond
		near, far, end := longLine(lag)
		defer end()
		ours, theirs := shakeHands(t, near, far)
		for i, c := range []sec.SecureConn{ours, theirs} {
			if trip := gatherBelow(c).trip; trip != 2*lag {
				t.Errorf("end %d measures %s", i, trip)
			}
		}
	})
}
