package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// These tests run in a bubble of virtual time, on streams without buffers:
// what is written has been read.

// pipeStream is one end of a net.Pipe as a libp2p stream.
type pipeStream struct {
	network.Stream // nil: what is not overridden is not used
	net.Conn
	mu    sync.Mutex
	reset bool
}

func newPipe() (near, far *pipeStream) {
	a, b := net.Pipe()
	return &pipeStream{Conn: a}, &pipeStream{Conn: b}
}

func (s *pipeStream) Read(p []byte) (int, error)         { return s.Conn.Read(p) }
func (s *pipeStream) Write(p []byte) (int, error)        { return s.Conn.Write(p) }
func (s *pipeStream) Close() error                       { return s.Conn.Close() }
func (s *pipeStream) SetDeadline(t time.Time) error      { return s.Conn.SetDeadline(t) }
func (s *pipeStream) SetReadDeadline(t time.Time) error  { return s.Conn.SetReadDeadline(t) }
func (s *pipeStream) SetWriteDeadline(t time.Time) error { return s.Conn.SetWriteDeadline(t) }
func (s *pipeStream) Reset() error {
	s.mu.Lock()
	s.reset = true
	s.mu.Unlock()
	return s.Conn.Close()
}
func (s *pipeStream) wasReset() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.reset }

type pipeConn struct{ network.Conn }

func (pipeConn) RemotePeer() peer.ID { return "peer" }

// conn shadows net.Conn's field of the same name.
type streamOver struct{ *pipeStream }

func (streamOver) Conn() network.Conn    { return pipeConn{} }
func (s streamOver) Stat() network.Stats { return network.Stats{} }

// recorder is a receiver that writes down what it is told.
type recorder struct {
	mu   sync.Mutex
	got  []string // "n blocks" or "error: …"
	errs []error
	gate func(gsmsg.GraphSyncMessage) // called for each message, if set
}

func (r *recorder) ReceiveMessage(_ context.Context, _ peer.ID, m gsmsg.GraphSyncMessage) {
	if r.gate != nil {
		r.gate(m)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range m.Blocks() {
		r.got = append(r.got, string(bytes.TrimRight(b.RawData(), "\x00")))
	}
}
func (r *recorder) ReceiveError(_ peer.ID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, "error")
	r.errs = append(r.errs, err)
}
func (r *recorder) Connected(peer.ID)    {}
func (r *recorder) Disconnected(peer.ID) {}
func (r *recorder) said() string         { r.mu.Lock(); defer r.mu.Unlock(); return strings.Join(r.got, " ") }
func (r *recorder) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) != 1 {
		return fmt.Errorf("%d errors: %v", len(r.errs), r.errs)
	}
	return r.errs[0]
}

// numbered returns a message with one block that begins with n in digits.
func numbered(n, size int) gsmsg.GraphSyncMessage {
	data := make([]byte, size)
	copy(data, fmt.Sprint(n))
	b := blocks.NewBlock(data)
	id := graphsync.NewRequestID()
	return gsmsg.NewMessage(nil, map[graphsync.RequestID]gsmsg.GraphSyncResponse{
		id: gsmsg.NewResponse(id, graphsync.PartialResponse,
			[]gsmsg.GraphSyncLinkMetadatum{{Link: b.Cid(), Action: graphsync.LinkActionPresent}}),
	}, map[cid.Cid]blocks.Block{b.Cid(): b})
}

func framed(t testing.TB, m gsmsg.GraphSyncMessage) []byte {
	t.Helper()
	b, err := encodeOurs(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// receiving starts handleStream on one end of a pipe and returns the other.
func receiving(cfg NetworkConfig, r *recorder) (n *fastNetwork, near, far *pipeStream) {
	n = NewNetwork(nil, cfg).(*fastNetwork)
	n.receiver = r
	near, far = newPipe()
	go n.handleStream(streamOver{near})
	return n, near, far
}

// TestReceiveOrder checks that messages of very different sizes, so hashed at
// very different speed, arrive in order, and that a clean end is no error.
func TestReceiveOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		_, near, far := receiving(NetworkConfig{}, r)
		var want []string
		for i, size := range []int{3_000_000, 10, 500_000, 20_000, 10, 1_100_000, 10} {
			want = append(want, fmt.Sprint(i))
			if _, err := far.Write(framed(t, numbered(i, size))); err != nil {
				t.Fatal(err)
			}
		}
		_ = far.Close()
		synctest.Wait()
		if got := r.said(); got != strings.Join(want, " ") || near.wasReset() {
			t.Errorf("got %q, reset %v", got, near.wasReset())
		}
	})
}

// TestReceiveBackpressure checks that a receiver that does not return stops
// the sender after ReadAhead+1 messages.
func TestReceiveBackpressure(t *testing.T) {
	for _, c := range []struct{ ahead, most int }{{0, 3}, {-1, 1}, {5, 6}} {
		synctest.Test(t, func(t *testing.T) {
			free := make(chan struct{})
			r := &recorder{gate: func(gsmsg.GraphSyncMessage) { <-free }}
			_, _, far := receiving(NetworkConfig{ReadAhead: c.ahead}, r)
			sent := 0
			var mu sync.Mutex
			go func() {
				defer far.Close()
				for i := range 20 {
					if _, err := far.Write(framed(t, numbered(i, 100_000))); err != nil {
						return
					}
					mu.Lock()
					sent++
					mu.Unlock()
				}
			}()
			count := func() int { synctest.Wait(); mu.Lock(); defer mu.Unlock(); return sent }
			// The reader's own buffer of 4 KiB holds the beginning of one more message.
			if n := count(); n != c.most {
				t.Errorf("ahead %d: %d messages went in, want %d", c.ahead, n, c.most)
			}
			free <- struct{}{}
			if n := count(); n != c.most+1 {
				t.Errorf("ahead %d: %d messages after one was taken, want %d", c.ahead, n, c.most+1)
			}
			close(free)
			synctest.Wait()
			if got := len(strings.Fields(r.said())); got != 20 {
				t.Errorf("ahead %d: %d messages arrived", c.ahead, got)
			}
		})
	}
}

func TestReceiveDeadlines(t *testing.T) {
	cfg := NetworkConfig{IdleTimeout: 5 * time.Minute, StallTimeout: time.Minute}
	t.Run("idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{}
			_, near, far := receiving(cfg, r)
			for i := range 3 { // far longer than the stock 10 s
				time.Sleep(cfg.IdleTimeout - time.Second)
				if _, err := far.Write(framed(t, numbered(i, 10))); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(cfg.IdleTimeout - time.Second)
			synctest.Wait()
			if near.wasReset() {
				t.Error("reset too early")
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if !near.wasReset() || r.said() != "0 1 2" {
				t.Errorf("reset %v, got %q; an idle end is no error", near.wasReset(), r.said())
			}
		})
	})
	t.Run("never idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, near, far := receiving(NetworkConfig{IdleTimeout: -1}, &recorder{})
			time.Sleep(1000 * time.Hour)
			synctest.Wait()
			if near.wasReset() {
				t.Error("reset")
			}
			_ = far.Close()
		})
	})
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{}
			_, _, far := receiving(cfg, r)
			for _, b := range framed(t, numbered(7, 100)) { // hours for one message
				time.Sleep(cfg.StallTimeout/2 + cfg.StallTimeout/5)
				if _, err := far.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if r.said() != "7" {
				t.Errorf("got %q", r.said())
			}
			_ = far.Close()
		})
	})
	t.Run("stalled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{}
			_, near, far := receiving(cfg, r)
			msg := framed(t, numbered(7, 100))
			if _, err := far.Write(msg[:50]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(cfg.StallTimeout + time.Second)
			synctest.Wait()
			if !near.wasReset() || !errors.Is(r.err(), os.ErrDeadlineExceeded) {
				t.Errorf("reset %v, %v", near.wasReset(), r.err())
			}
		})
	})
}

func TestReceiveBroken(t *testing.T) {
	good := framed(t, numbered(1, 100))
	bad := []byte{3, 0xa1, 0x00, 0x00}
	for _, c := range []struct {
		name string
		send [][]byte
		want string
		err  error
	}{
		{"garbage after good", [][]byte{good, bad, good}, "1 error", errMalformed},
		{"too large", [][]byte{good, binary.AppendUvarint(nil, DefaultMaxMessageSize+1)}, "1 error", ErrMessageLimit},
		{"cut", [][]byte{good, good[:20]}, "1 error", io.ErrUnexpectedEOF},
		{"cut length", [][]byte{good, {0x80}}, "1 error", io.ErrUnexpectedEOF},
		{"empty message", [][]byte{good, {0}}, "1 error", io.ErrUnexpectedEOF},
		{"endless length", [][]byte{bytes.Repeat([]byte{0x80}, 11)}, "error", nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{}
			_, near, far := receiving(NetworkConfig{}, r)
			for _, b := range c.send {
				if _, err := far.Write(b); err != nil {
					break // what came before was enough
				}
			}
			_ = far.Close()
			synctest.Wait()
			if r.said() != c.want || !near.wasReset() || c.err != nil && !errors.Is(r.err(), c.err) {
				t.Errorf("%s: %q, reset %v, %v", c.name, r.said(), near.wasReset(), r.err())
			}
		})
	}
}

func TestReceivePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told any
		r := &recorder{gate: func(gsmsg.GraphSyncMessage) { panic("boom") }}
		_, near, far := receiving(NetworkConfig{OnPanic: func(v any, _ string) { told = v }}, r)
		if _, err := far.Write(framed(t, numbered(1, 100))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if told != "boom" || !near.wasReset() || r.said() != "error" {
			t.Errorf("told %v, reset %v, got %q", told, near.wasReset(), r.said())
		}
	})
}

// TestReceiveMemory checks that a length alone costs no memory.
func TestReceiveMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, far := receiving(NetworkConfig{}, &recorder{})
		got := allocated(func() {
			_, _ = far.Write(binary.AppendUvarint(nil, DefaultMaxMessageSize))
			synctest.Wait()
		})
		if got > readStep+64<<10 {
			t.Errorf("%d bytes allocated for a length", got)
		}
		_ = far.Close()
	})
}

func TestReceiveStreamsPerPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		n, _, first := receiving(NetworkConfig{MaxStreamsPerPeer: 2}, r)
		open := func() (near, far *pipeStream) {
			near, far = newPipe()
			go n.handleStream(streamOver{near})
			synctest.Wait()
			return near, far
		}
		_, second := open()
		if near, _ := open(); !near.wasReset() {
			t.Error("a third stream was let in")
		}
		_ = first.Close()
		synctest.Wait()
		near, third := open()
		if near.wasReset() {
			t.Error("no stream let in after one was gone")
		}
		_ = second.Close()
		_ = third.Close()
		synctest.Wait()
		if len(n.streams) != 0 {
			t.Errorf("streams left on the books: %v", n.streams)
		}
	})
}

func sending(cfg NetworkConfig, stall time.Duration) (*fastSender, *pipeStream, *pipeStream) {
	n := NewNetwork(nil, cfg).(*fastNetwork)
	near, far := newPipe()
	return &fastSender{net: n, s: streamOver{near}, stall: stall}, near, far
}

func TestSendStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, far := sending(NetworkConfig{}, time.Minute)
		go func() { // reads on, but slowly: a piece each 40 s
			buf := make([]byte, 8<<10)
			for range 20 {
				time.Sleep(40 * time.Second)
				if _, err := io.ReadFull(far, buf); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		if err := s.SendMsg(context.Background(), numbered(1, 8<<10)); err != nil {
			t.Error(err)
		}
		if err := s.SendMsg(context.Background(), numbered(2, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stalled: %v", err)
		}
		if d := time.Since(start); d < time.Minute || d > 20*time.Minute {
			t.Errorf("took %s", d)
		}
		_ = far.Close()
	})
}

func TestSendContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, near, _ := sending(NetworkConfig{}, time.Hour)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.SendMsg(ctx, numbered(1, 1000)); err == nil || !near.wasReset() {
			t.Errorf("%v, reset %v", err, near.wasReset())
		}
		if err := s.SendMsg(ctx, numbered(1, 1000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestSendRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := 0
		s, near, far := sending(NetworkConfig{MaxMessageSize: 1 << 20, OnPanic: func(any, string) { panics++ }}, time.Hour)
		if err := s.SendMsg(context.Background(), numbered(1, 1<<20)); !errors.Is(err, ErrMessageLimit) {
			t.Errorf("too large: %v", err)
		}
		id := graphsync.NewRequestID()
		broken := gsmsg.NewUpdateRequest(id, graphsync.ExtensionData{Name: "x", Data: struct{ datamodel.Node }{}})
		broke := gsmsg.NewMessage(map[graphsync.RequestID]gsmsg.GraphSyncRequest{id: broken}, nil, nil)
		if err := s.SendMsg(context.Background(), broke); err == nil || panics != 1 {
			t.Errorf("a node that panics: %v, %d panics", err, panics)
		}
		go func() { _ = s.SendMsg(context.Background(), numbered(3, 10)); _ = near.Close() }()
		if all, _ := io.ReadAll(far); !bytes.HasPrefix(payloadOf(t, all), []byte{0xa1, 0x63, 'g', 's', '2'}) {
			t.Errorf("after refusals the stream has %x", all)
		}
	})
}
