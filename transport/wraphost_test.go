package transport

import (
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestHostIdle checks that a stream which is used outlives the deadline that its
// handler sets, that a silent one ends after the idle time, and that Release
// leaves nothing.
func TestHostIdle(t *testing.T) {
	ctx := within(t, 20*time.Second)
	plain, client := nodeHost(t), nodeHost(t)
	h := WrapHost(plain, HostGuard{Idle: 300 * time.Millisecond})
	type end struct {
		bytes int64
		err   error
	}
	ended := make(chan end, 1)
	h.SetStreamHandler("/test", func(s network.Stream) {
		_ = s.SetReadDeadline(time.Now().Add(time.Millisecond)) // what graphsync does, with 10 s
		n, err := io.Copy(io.Discard, s)
		_ = s.Reset()
		ended <- end{n, err}
	})
	connect(t, client, plain)
	s, err := client.NewStream(ctx, plain.ID(), "/test")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond) // what is tested is the passing of this time
	}
	if e := <-ended; e.bytes != 5 || e.err == nil {
		t.Errorf("stream ended after %d bytes: %v", e.bytes, e.err)
	}

	gone := make(chan peer.ID, 10)
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) { gone <- c.RemotePeer() }})
	h.SetStreamHandler("/echo", func(s network.Stream) {
		_ = s.SetReadDeadline(time.Time{})
		_, _ = io.Copy(s, s)
	})
	echo, err := client.NewStream(ctx, plain.ID(), "/echo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := echo.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(echo, b); err != nil {
		t.Fatal(err)
	}
	h.Release()
	if _, err := io.ReadFull(echo, b); err == nil {
		t.Error("stream outlived the release")
	}
	if again, err := client.NewStream(ctx, plain.ID(), "/echo"); err == nil {
		_, _ = again.Write([]byte("z")) // the protocol is agreed upon with the first bytes
		if _, err := io.ReadFull(again, b); err == nil {
			t.Error("handler outlived the release")
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if len(gone) != 0 {
		t.Error("notified after the release")
	}
}

// TestHostProtocols checks that the host of NewHost speaks QUIC as well as TCP.
func TestHostProtocols(t *testing.T) {
	ctx := within(t, 20*time.Second)
	h := nodeHost(t)
	for _, addr := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		other, err := NewHost(HostConfig{Key: newKey(t), Listen: []string{addr}})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Connect(ctx, peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()}); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
}
