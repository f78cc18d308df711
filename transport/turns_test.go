package transport

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// busyConn takes a while for each write, as a socket does that is never full.
type busyConn struct {
	net.Conn
	each time.Duration
}

func (c busyConn) Write(b []byte) (int, error) {
	time.Sleep(c.each) // of the bubble's clock
	return len(b), nil
}

// TestTurns: who writes without ever waiting gives way when its turn is over, and not
// for each write.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaveWay := 0
		c := &turnConn{Conn: busyConn{each: writeTurn / 3}, yield: func() { gaveWay++ }, since: time.Now()}
		for range 30 {
			if n, err := c.Write(make([]byte, 10)); n != 10 || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if gaveWay != 10 {
			t.Errorf("gave way %d times in 10 turns", gaveWay)
		}
	})
}

// lagging is a connection on which what is written arrives a while later.
type lagging struct {
	net.Conn
	lag    *atomic.Int64 // a time.Duration
	way    chan parcel
	closed chan struct{}
	once   sync.Once
}

type parcel struct {
	due  time.Time
	data []byte
}

func newLagging(c net.Conn, lag *atomic.Int64) *lagging {
	l := &lagging{Conn: c, lag: lag, way: make(chan parcel, 1<<10), closed: make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-l.way:
				time.Sleep(time.Until(p.due)) // of the bubble's clock
				_, _ = l.Conn.Write(p.data)   // the other side may have closed
			case <-l.closed:
				return
			}
		}
	}()
	return l
}

func (l *lagging) Write(b []byte) (int, error) {
	select {
	case l.way <- parcel{time.Now().Add(time.Duration(l.lag.Load())), bytes.Clone(b)}:
		return len(b), nil
	case <-l.closed:
		return 0, net.ErrClosed
	}
}

func (l *lagging) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

func (l *lagging) SetWriteDeadline(time.Time) error { return nil }

// TestWindows: a connection that was quick when it began, and has a long round trip
// once something moves, moves it with a window for that.
func TestWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lag atomic.Int64
		here, there := net.Pipe()
		m := newMuxer()
		sender, err := m.NewConn(newLagging(here, &lag), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		receiver, err := m.NewConn(newLagging(there, &lag), true, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the round trip is measured
		lag.Store(int64(25 * time.Millisecond))
		const total = 64 << 20
		began := time.Now()
		go func() {
			s, err := sender.OpenStream(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Write(make([]byte, total)); err != nil {
				t.Error(err)
			}
			_ = s.CloseWrite()
		}()
		s, err := receiver.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, s); n != total || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		// With 256 KiB for each round trip it takes 12.8 s.
		if took := time.Since(began); took > measureEvery+2*time.Second {
			t.Errorf("took %s", took)
		}
		_ = sender.Close()
		_ = receiver.Close()
	})
}
