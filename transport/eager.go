package transport

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// openEagerly opens a stream to p that can be written to at once, for the first
// of protocols. A host's own NewStream waits for the identification of a fresh
// connection first, a round trip. doubt says that p was never heard to speak the
// protocol: what is written may have gone nowhere until confirm returns.
func openEagerly(ctx context.Context, h host.Host, p peer.ID, protocols []protocol.ID) (s network.Stream, doubt bool, err error) {
	proto := protocols[0]
	spoken, err := h.Peerstore().GetProtocols(p)
	known, err2 := h.Peerstore().SupportsProtocols(p, protocols...)
	switch {
	case err != nil || err2 != nil || h.Network().Connectedness(p) != network.Connected:
		s, err = h.NewStream(ctx, p, protocols...)
		return s, false, err
	case len(known) > 0:
		proto = known[0]
	case len(spoken) > 0: // it has said what it speaks: another of protocols, or none
		s, err = h.NewStream(ctx, p, protocols...)
		return s, false, err
	}
	s, err = h.Network().NewStream(network.WithNoDial(ctx, "connected"), p)
	if err != nil {
		return nil, false, err
	}
	if err := s.SetProtocol(proto); err != nil {
		_ = s.Reset() // nothing was sent
		return nil, false, err
	}
	return &eagerStream{Stream: s, lazy: multistream.NewMSSelect(s, proto)}, len(known) == 0, nil
}

// eagerStream is a stream whose protocol is negotiated along with its data.
type eagerStream struct {
	network.Stream
	lazy multistream.LazyConn
}

func (s *eagerStream) Read(b []byte) (int, error)  { return s.lazy.Read(b) }
func (s *eagerStream) Write(b []byte) (int, error) { return s.lazy.Write(b) }

// CloseWrite sends the negotiation first if nothing was written. Whether the
// peer takes it a reader finds out.
func (s *eagerStream) CloseWrite() error {
	if f, ok := s.lazy.(interface{ Flush() error }); ok {
		_ = f.Flush()
	}
	return s.Stream.CloseWrite()
}

func (s *eagerStream) Close() error { return errors.Join(s.CloseWrite(), s.Stream.Close()) }

// confirm waits until the peer has taken the protocol of s, at most for timeout.
func confirm(s network.Stream, timeout time.Duration) error {
	_ = s.SetReadDeadline(time.Now().Add(timeout)) // some streams have none
	if _, err := s.Read(nil); err != nil {
		return err
	}
	return s.SetReadDeadline(time.Time{})
}
