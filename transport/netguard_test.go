package transport

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// netStub is a network and the graphsync on it, without either.
type netStub struct {
	gsnet.GraphSyncNetwork
	delegate gsnet.Receiver
	mu       sync.Mutex // held to add to got
	got      []gsmsg.GraphSyncMessage
	said     chan gsmsg.GraphSyncMessage // capacity enough; nil: what is sent is lost
}

func (s *netStub) SendMessage(_ context.Context, _ peer.ID, m gsmsg.GraphSyncMessage) error {
	if s.said != nil {
		s.said <- m
	}
	return nil
}

func (s *netStub) SetDelegate(r gsnet.Receiver) { s.delegate = r }

func (s *netStub) ReceiveMessage(_ context.Context, _ peer.ID, m gsmsg.GraphSyncMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m)
}
func (s *netStub) ReceiveError(peer.ID, error) {}
func (s *netStub) Connected(peer.ID)           {}
func (s *netStub) Disconnected(peer.ID)        {}

// TestNetworkGuard checks what passes the guarded network, and as what the rest
// is counted.
func TestNetworkGuard(t *testing.T) {
	ctx := t.Context()
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	ok := func(id datatransfer.TransferID) gsmsg.GraphSyncRequest {
		return newRequest(root, wholeDAG(), pull(t, id, false, root, wholeDAG()))
	}
	guard := func(cfg NetworkGuard) (*netStub, *GuardedNetwork) {
		cfg.Logger = quiet()
		s := &netStub{}
		n := WrapNetwork(s, cfg)
		n.SetDelegate(s)
		return s, n
	}
	t.Run("null", func(t *testing.T) {
		s, n := guard(NetworkGuard{})
		bad := nullRequests(t, root)
		for _, r := range bad {
			s.delegate.ReceiveMessage(ctx, "p", requestsMessage(r))
		}
		if len(s.got) != 0 || n.Dropped()[ReasonMalformed] != uint64(len(bad)) {
			t.Errorf("passed %v, dropped %v", s.got, n.Dropped())
		}
	})
	t.Run("rate", func(t *testing.T) {
		s, n := guard(NetworkGuard{Rate: 0.001, Burst: 3})
		for id := range datatransfer.TransferID(5) {
			s.delegate.ReceiveMessage(ctx, "p", requestsMessage(ok(id)))
		}
		s.delegate.ReceiveMessage(ctx, "q", requestsMessage(ok(1)))
		if len(s.got) != 4 || n.Dropped()[ReasonRate] != 2 {
			t.Errorf("passed %d, dropped %v", len(s.got), n.Dropped())
		}
	})
	t.Run("restarts", func(t *testing.T) {
		s, n := guard(NetworkGuard{RestartRate: 0.001, RestartBurst: 2})
		for id := range datatransfer.TransferID(4) {
			s.delegate.ReceiveMessage(ctx, "p", requestsMessage(newRequest(root, wholeDAG(), pull(t, id, true, root, wholeDAG()))))
		}
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(ok(5)))
		if len(s.got) != 3 || n.Dropped()[ReasonRate] != 2 {
			t.Errorf("passed %d, dropped %v", len(s.got), n.Dropped())
		}
	})
	t.Run("too many in a message", func(t *testing.T) {
		s, n := guard(NetworkGuard{MaxRequests: 2})
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(ok(1), ok(2), ok(3)))
		if len(s.got) != 1 || len(s.got[0].Requests()) != 2 || n.Dropped()[ReasonRate] != 1 {
			t.Errorf("passed %v, dropped %v", s.got, n.Dropped())
		}
	})
	t.Run("cancel before the rest", func(t *testing.T) {
		s, _ := guard(NetworkGuard{})
		first, second := ok(1), ok(2)
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(first))
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(second, gsmsg.NewCancelRequest(first.ID())))
		if len(s.got) != 3 || s.got[1].Requests()[0].Type() != graphsync.RequestTypeCancel || s.got[2].Requests()[0].ID() != second.ID() {
			t.Errorf("passed %v", s.got)
		}
	})
	t.Run("id in use, and again after a cancel", func(t *testing.T) {
		s, n := guard(NetworkGuard{})
		r := ok(1)
		for _, m := range []gsmsg.GraphSyncRequest{r, r, gsmsg.NewCancelRequest(r.ID()), r} {
			s.delegate.ReceiveMessage(ctx, "p", requestsMessage(m))
		}
		if len(s.got) != 3 || n.Dropped()[ReasonDuplicate] != 1 {
			t.Errorf("passed %d, dropped %v", len(s.got), n.Dropped())
		}
	})
	t.Run("update without a voucher", func(t *testing.T) {
		s, n := guard(NetworkGuard{})
		r := ok(1)
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(r))
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(gsmsg.NewUpdateRequest(r.ID(), dtExt(t, message.CancelRequest(1)))))
		if len(s.got) != 1 || n.Dropped()[ReasonUpdate] != 1 {
			t.Errorf("passed %d, dropped %v", len(s.got), n.Dropped())
		}
	})
	t.Run("repeat offender", func(t *testing.T) {
		closed := make(chan peer.ID, 1)
		s, _ := guard(NetworkGuard{Offences: 2, ClosePeer: func(p peer.ID) { closed <- p }})
		for range 2 {
			s.delegate.ReceiveMessage(ctx, "p", requestsMessage(newRequest(root, nil)))
		}
		if p := <-closed; p != "p" {
			t.Errorf("closed %q", p)
		}
	})
	t.Run("null in a response", func(t *testing.T) {
		s, n := guard(NetworkGuard{})
		bad := gsmsg.NewResponse(graphsync.NewRequestID(), graphsync.PartialResponse, nil, graphsync.ExtensionData{Name: "x"})
		good := gsmsg.NewResponse(graphsync.NewRequestID(), graphsync.PartialResponse, nil)
		m := gsmsg.NewMessage(nil, map[graphsync.RequestID]gsmsg.GraphSyncResponse{bad.RequestID(): bad, good.RequestID(): good}, nil)
		s.delegate.ReceiveMessage(ctx, "p", m)
		if len(s.got) != 1 || len(s.got[0].Responses()) != 1 || n.Dropped()[ReasonMalformed] != 1 {
			t.Errorf("passed %v, dropped %v", s.got, n.Dropped())
		}
	})
	t.Run("deaf when closed", func(t *testing.T) {
		s, n := guard(NetworkGuard{})
		_ = n.Close()
		s.delegate.ReceiveMessage(ctx, "p", requestsMessage(ok(1)))
		if len(s.got) != 0 {
			t.Errorf("passed %v", s.got)
		}
	})
}

// TestNetworkGuardPace: a peer that sends far too much is read slowly, and told of
// once in a while.
func TestNetworkGuardPace(t *testing.T) {
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	synctest.Test(t, func(t *testing.T) {
		var lines atomic.Int64
		n := WrapNetwork(&netStub{}, NetworkGuard{ReadRate: 100, ReadBurst: 50, Logger: slog.New(lineCounter{&lines})})
		n.SetDelegate(&netStub{})
		r := (*guardedReceiver)(n)
		send := func(from peer.ID, n int) time.Duration {
			start := time.Now()
			for range n {
				r.ReceiveMessage(t.Context(), from, requestsMessage(newRequest(root, nil)))
			}
			return time.Since(start)
		}
		if took := send("p", 50); took != 0 {
			t.Errorf("50 took %v", took)
		}
		if took := send("p", 300); took < 2900*time.Millisecond || took > 3100*time.Millisecond {
			t.Errorf("300 more took %v", took)
		}
		if took := send("q", 50); took != 0 {
			t.Errorf("another peer's 50 took %v", took)
		}
		if got := lines.Load(); got > 5 || got < 3 || n.Dropped()[ReasonMalformed] != 400 {
			t.Errorf("%d lines, dropped %v", got, n.Dropped())
		}
		_ = n.Close()
	})
}

// TestNetworkGuardFloodRead: of a peer that floods a fourth is looked at.
func TestNetworkGuardFloodRead(t *testing.T) {
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	synctest.Test(t, func(t *testing.T) {
		n := WrapNetwork(&netStub{}, NetworkGuard{Rate: 1, Burst: 1, ReadRate: 100, ReadBurst: 50, Logger: quiet()})
		n.SetDelegate(&netStub{})
		start := time.Now()
		for range 350 { // of which some 20 are looked at before it is seen that they are a flood
			(*guardedReceiver)(n).ReceiveMessage(t.Context(), "p", requestsMessage(newRequest(root, wholeDAG())))
		}
		if took := time.Since(start); took < 11*time.Second || took > 14*time.Second {
			t.Errorf("a flood of 350 took %v", took)
		}
		_ = n.Close()
	})
}

// TestNetworkGuardFlood: what a peer asks above its rate is taken off what follows. One
// that asks twice as fast is served at two thirds of the rate, one that floods not at
// all, and when it was quiet for a second it is as before.
func TestNetworkGuardFlood(t *testing.T) {
	const long = 10 // seconds
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	for _, c := range []struct{ perSecond, least, most int }{
		{50, 500, 500}, {60, 460, 475}, {100, 325, 340}, {150, 160, 175}, {200, 0, 10}, {400, 0, 0}, {5000, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &netStub{}
			n := WrapNetwork(s, NetworkGuard{ReadRate: 1e6, Logger: quiet()})
			n.SetDelegate(s)
			id := datatransfer.TransferID(0)
			ask := func() {
				id++
				s.delegate.ReceiveMessage(t.Context(), "p", requestsMessage(newRequest(root, wholeDAG(), pull(t, id, false, root, wholeDAG()))))
			}
			for range 200 {
				ask()
			}
			s.got = nil
			for i := range long * c.perSecond {
				if i == c.perSecond {
					s.got = nil // by then the debt is there
				}
				<-time.After(time.Second / time.Duration(c.perSecond))
				ask()
			}
			if got := len(s.got) * long / (long - 1); got < c.least || got > c.most {
				t.Errorf("%d a second: %d passed in %d s, want %d to %d", c.perSecond, got, long, c.least, c.most)
			}
			s.got = nil
			<-time.After(2 * time.Second)
			for range 50 {
				ask()
			}
			if len(s.got) != 50 {
				t.Errorf("%d a second: %d of 50 passed after two quiet seconds", c.perSecond, len(s.got))
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNetworkGuardForgets: what a peer left behind that waits for its turn does not
// make it known again when it is forgotten.
func TestNetworkGuardForgets(t *testing.T) {
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	synctest.Test(t, func(t *testing.T) {
		var connected atomic.Bool
		connected.Store(true)
		n := WrapNetwork(&netStub{}, NetworkGuard{ReadRate: 1, ReadBurst: 1, Logger: quiet(), Connected: func(peer.ID) bool { return connected.Load() }})
		s := &netStub{}
		n.SetDelegate(s)
		defer n.Close()
		send := func() {
			(*guardedReceiver)(n).ReceiveMessage(t.Context(), "p", requestsMessage(newRequest(root, wholeDAG())))
		}
		send()
		for range 3 { // they wait for seconds
			go send()
		}
		synctest.Wait()
		connected.Store(false)
		n.mu.Lock()
		delete(n.peers, "p") // as expire does
		n.mu.Unlock()
		time.Sleep(10 * time.Second)
		send()
		if len(n.peers) != 0 || len(s.got) != 1 {
			t.Errorf("%d peers are known, %d messages passed", len(n.peers), len(s.got))
		}
	})
}

// lineCounter counts what is logged.
type lineCounter struct{ n *atomic.Int64 }

func (c lineCounter) Enabled(context.Context, slog.Level) bool  { return true }
func (c lineCounter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
func (c lineCounter) WithAttrs([]slog.Attr) slog.Handler        { return c }
func (c lineCounter) WithGroup(string) slog.Handler             { return c }
