package transport

import (
	"context"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// lingerTimeout bounds the closing of a stream behind a message.
const lingerTimeout = 5 * time.Second

// lingers lets a message count as sent when it is written. data-transfer opens a
// stream for each, and libp2p's Close waits for the answer to the negotiation: a
// round trip, in which a provider cannot take the payment that it waits for.
//
// The messages of one channel still wait for each other, each until the peer has
// ended the stream of the one before, which data-transfer does when it has taken
// the message in: on streams of their own they could overtake one another, and a
// client that hears of the completion before the finalization waits for ever.
type lingers struct {
	mu     sync.Mutex // guards the fields below
	last   map[lingerKey]*linger
	closed bool

	work sync.WaitGroup // streams that are being closed
}

// lingerKey is a channel as its messages name it.
type lingerKey struct {
	peer     peer.ID
	transfer datatransfer.TransferID
	request  bool
}

// linger is one message on its way.
type linger struct {
	all  *lingers
	key  lingerKey
	done chan struct{} // closed when the peer has it
	late bool          // the stream is closed aside; owned by the sender until it returns
}

type lingerContext struct{}

// send calls f, which sends one message, when it is the message's turn.
func (l *lingers) send(ctx context.Context, key lingerKey, f func(context.Context) error) error {
	m := &linger{all: l, key: key, done: make(chan struct{})}
	l.mu.Lock()
	if l.last == nil {
		l.last = make(map[lingerKey]*linger)
	}
	before := l.last[key]
	l.last[key] = m
	l.mu.Unlock()
	defer func() {
		if !m.late {
			l.finish(m)
		}
	}()
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f(context.WithValue(ctx, lingerContext{}, m))
}

// finish lets the next message of m's channel go.
func (l *lingers) finish(m *linger) {
	close(m.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last[m.key] == m {
		delete(l.last, m.key)
	}
}

// aside runs f, on a goroutine of its own unless l is closed.
func (l *lingers) aside(f func()) {
	l.mu.Lock()
	if !l.closed {
		l.work.Go(f)
		f = func() {}
	}
	l.mu.Unlock()
	f()
}

// close waits for the streams that are being closed, at most lingerTimeout.
func (l *lingers) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.work.Wait()
}

// NewStream opens a stream that closes aside, if it is for a message of lingers.
func (h *plainHost) NewStream(ctx context.Context, p peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	s, err := h.GuardedHost.NewStream(ctx, p, protocols...)
	m, ok := ctx.Value(lingerContext{}).(*linger)
	if err != nil || !ok {
		return s, err
	}
	return &lingeringStream{s, m}, nil
}

// lingeringStream is a stream for one message.
type lingeringStream struct {
	network.Stream
	m *linger
}

// Close returns at once. What was written is on its way.
func (s *lingeringStream) Close() error {
	if s.m.late {
		return nil
	}
	s.m.late = true
	s.m.all.aside(func() {
		defer s.m.all.finish(s.m)
		_ = s.SetDeadline(time.Now().Add(lingerTimeout)) // without one libp2p's own bounds hold
		if s.CloseWrite() == nil {
			_, _ = s.Read(make([]byte, 1)) // nothing is said on it: its end is waited for
		}
		if s.Stream.Close() != nil {
			_ = s.Reset() // the peer has the message, or its connection is gone
		}
	})
	return nil
}
