package transport

import (
	"slices"
	"sync"
	"time"

	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// HostGuard configures WrapHost.
type HostGuard struct {
	// Idle is how long an inbound stream may stay without a byte. Graphsync's own
	// 10 s resets the stream of a client whose provider waits for a payment or
	// unseals, and reports an error on every channel with that peer. Default
	// 5 minutes.
	Idle time.Duration
}

// GuardedHost is a host whose inbound streams end after being idle, not after
// the 10 s that graphsync sets. Give it to graphsync's network only.
type GuardedHost struct {
	host.Host
	idle time.Duration

	mu        sync.Mutex // guards the fields below
	protocols []protocol.ID
	notified  []network.Notifiee
}

// WrapHost guards h. The result is to be released when what was built on it is
// closed; that does not close h.
func WrapHost(h host.Host, g HostGuard) *GuardedHost {
	return &GuardedHost{Host: h, idle: orDefault(g.Idle, 5*time.Minute)}
}

// Release removes the stream handlers and the notifiees that were registered
// through the wrapper, and resets the streams of their protocols and of
// graphsync. A peer that kept such a stream would go on to write to it, to
// nobody, although another node may listen on the host by then.
func (h *GuardedHost) Release() {
	h.mu.Lock()
	protocols, notified := append(h.protocols, gsnet.ProtocolGraphsync_2_0_0), h.notified
	h.protocols, h.notified = nil, nil
	h.mu.Unlock()
	for _, p := range protocols {
		h.Host.RemoveStreamHandler(p)
	}
	for _, n := range notified {
		h.Host.Network().StopNotify(n)
	}
	for _, c := range h.Host.Network().Conns() {
		for _, s := range c.GetStreams() {
			if slices.Contains(protocols, s.Protocol()) {
				_ = s.Reset()
			}
		}
	}
}

// SetStreamHandler registers f for the streams of a protocol.
func (h *GuardedHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.remember(p)
	h.Host.SetStreamHandler(p, h.guard(f))
}

// SetStreamHandlerMatch registers f for the streams of matching protocols.
func (h *GuardedHost) SetStreamHandlerMatch(p protocol.ID, match func(protocol.ID) bool, f network.StreamHandler) {
	h.remember(p)
	h.Host.SetStreamHandlerMatch(p, match, h.guard(f))
}

func (h *GuardedHost) remember(p protocol.ID) {
	h.mu.Lock()
	h.protocols = append(h.protocols, p)
	h.mu.Unlock()
}

func (h *GuardedHost) guard(f network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) { f(&patientStream{Stream: s, idle: h.idle}) }
}

// Network returns the network, which remembers whom it notifies.
func (h *GuardedHost) Network() network.Network { return &notifying{h.Host.Network(), h} }

type notifying struct {
	network.Network
	h *GuardedHost
}

func (n *notifying) Notify(f network.Notifiee) {
	n.h.mu.Lock()
	n.h.notified = append(n.h.notified, f)
	n.h.mu.Unlock()
	n.Network.Notify(f)
}

// patientStream replaces every read deadline by one that moves on with each byte.
type patientStream struct {
	network.Stream
	idle time.Duration
}

func (s *patientStream) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		t = time.Now().Add(s.idle)
	}
	return s.Stream.SetReadDeadline(t)
}

func (s *patientStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if n > 0 && err == nil {
		_ = s.Stream.SetReadDeadline(time.Now().Add(s.idle))
	}
	return n, err
}

// plain returns the host without the patience for streams, for what keeps its
// own deadlines, but with Release.
func (h *GuardedHost) plain() host.Host { return &plainHost{h} }

type plainHost struct{ *GuardedHost }

func (h *plainHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.remember(p)
	h.Host.SetStreamHandler(p, f)
}
