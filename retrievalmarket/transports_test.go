package retrievalmarket

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// listening is a host that only says where it is.
type listening struct{ host.Host }

func (listening) Addrs() []multiaddr.Multiaddr {
	return []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}
}

// answered is a stream of a peer that counts what is written to it.
type answered struct {
	network.Stream
	from    peer.ID
	answers *int
}

type connTo struct {
	network.Conn
	from peer.ID
}

func (c connTo) RemotePeer() peer.ID { return c.from }

func (s answered) Conn() network.Conn          { return connTo{from: s.from} }
func (s answered) SetDeadline(time.Time) error { return nil }
func (s answered) Close() error                { return nil }
func (s answered) Reset() error                { return nil }
func (s answered) Write(b []byte) (int, error) { *s.answers++; return len(b), nil }

// TestTransportsThrottled: who asks for the transports too often waits, as with
// queries; others do not wait with it.
func TestTransportsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Provider{cfg: ProviderConfig{Host: listening{}}, ctx: t.Context(), asks: newThrottle(10, 5)}
		ask := func(from peer.ID, n int) time.Duration {
			start, answers := time.Now(), 0
			for range n {
				p.serveTransports(answered{from: from, answers: &answers})
			}
			if answers != n {
				t.Errorf("%d of %d were answered", answers, n)
			}
			return time.Since(start)
		}
		if took := ask("p", 15); took < 990*time.Millisecond || took > 1010*time.Millisecond {
			t.Errorf("15 took %v", took)
		}
		if took := ask("q", 5); took != 0 {
			t.Errorf("another peer's 5 took %v", took)
		}
	})
}
