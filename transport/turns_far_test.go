package transport

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// connectFar connects two hosts over a line on which everything takes lag each way.
func connectFar(t *testing.T, ctx context.Context, from, to host.Host, lag time.Duration) {
	t.Helper()
	_, target, err := manet.DialArgs(to.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var carrying sync.WaitGroup
	carrying.Go(func() {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", target)
		if err != nil {
			_ = near.Close()
			return
		}
		carrying.Go(func() { carry(near, far, lag) })
		carrying.Go(func() { carry(far, near, lag) })
	})
	t.Cleanup(func() {
		_ = listener.Close()
		_, _ = from.Close(), to.Close() // which end what is carried
		carrying.Wait()
	})
	a, err := manet.FromNetAddr(listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{a}}); err != nil {
		t.Fatal(err)
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
		time.Sleep(time.Until(p.due)) // the line's lag
		if _, err := dst.Write(p.data); err != nil {
			_ = src.Close()
		}
	}
	_ = dst.Close()
}

// unread sends to a peer that reads so many bytes and then no more, and returns how much
// the stream takes beyond them.
func unread(t *testing.T, ctx context.Context, from, to host.Host, reads int64) int64 {
	t.Helper()
	const proto = "/test/unread"
	had, stop := make(chan error, 1), make(chan struct{})
	defer close(stop)
	to.SetStreamHandler(proto, func(s network.Stream) {
		defer func() { _ = s.Reset() }()
		_, err := io.CopyN(io.Discard, s, reads)
		had <- err
		<-stop
	})
	s, err := from.NewStream(ctx, to.ID(), proto)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Reset() }()
	sent, data := int64(0), make([]byte, 64<<10)
	for {
		_ = s.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := s.Write(data)
		if sent += int64(n); err != nil {
			break // nothing more is taken, for a second
		}
	}
	if err := <-had; err != nil {
		t.Fatal(err)
	}
	return sent - reads
}

// TestFarWindow: a stream to one that is far takes twice what it does elsewhere, and none
// more than that window.
func TestFarWindow(t *testing.T) {
	for name, c := range map[string]struct {
		lag         time.Duration
		least, most int64
	}{
		"near": {0, 128 << 10, 16 << 20},
		"far":  {50 * time.Millisecond, 12 << 20, farWindow},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 60*time.Second)
			from, to := nodeHost(t), nodeHost(t)
			connectFar(t, ctx, from, to, c.lag)
			if got := unread(t, ctx, from, to, 96<<20); got < c.least || got > c.most {
				t.Errorf("%d KiB on the way, want %d to %d", got>>10, c.least>>10, c.most>>10)
			}
		})
	}
}
