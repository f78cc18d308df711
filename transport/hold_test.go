package transport

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
)

// block is what the hooks do with a block that data-transfer pauses at or not. It
// returns whether the request has to be paused for Hold.
func block(s *served, link int64, paused bool) bool {
	s.enterHook()
	return s.leaveHook(&blockActions{paused: paused}, link)
}

// TestHold holds a request, with and without a pause of data-transfer's at the
// same block, whichever is undone first.
func TestHold(t *testing.T) {
	ctx := within(t, 10*time.Second)
	held := func(t *testing.T, paused bool) (*Exchange, *fakeResponses, *served) {
		e, f, s := pausing(t)
		e.Hold(s.channel, 3)
		if block(s, 2, false) {
			t.Fatal("held before the link")
		}
		if block(s, 3, paused) == paused {
			t.Fatal("not held at the link, or paused twice")
		}
		f.set(graphsync.Paused)
		return e, f, s
	}
	t.Run("let go", func(t *testing.T) {
		e, f, s := held(t, false)
		e.Hold(s.channel, 0)
		<-f.resumed
		if block(s, 4, false) {
			t.Error("held again")
		}
	})
	t.Run("resumed by data-transfer", func(t *testing.T) {
		e, f, s := held(t, false)
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		<-f.updates // what it says is sent
		if len(f.tries) != 0 {
			t.Error("resumed although it is held")
		}
		e.Hold(s.channel, 0)
		<-f.resumed
	})
	t.Run("paused, resumed first", func(t *testing.T) {
		e, f, s := held(t, true)
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		<-f.updates
		e.Hold(s.channel, 0)
		<-f.resumed
	})
	t.Run("paused, let go first", func(t *testing.T) {
		e, f, s := held(t, true)
		e.Hold(s.channel, 0)
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		if got := <-f.resumed; len(got) != 1 {
			t.Errorf("resumed with %v", got)
		}
		if len(f.updates) != 0 {
			t.Error("let go although data-transfer paused it")
		}
	})
	t.Run("next request", func(t *testing.T) {
		e, _, s := held(t, false)
		e.table.end(s.id)
		next, err := e.table.admit(Incoming{ID: graphsync.NewRequestID(), Channel: s.channel}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if block(next, 9, false) {
			t.Error("the channel's next request is held")
		}
	})
	t.Run("unknown channel", func(t *testing.T) {
		e, _, _ := pausing(t)
		e.Hold(datatransfer.ChannelID{ID: 99}, 1) // no harm
	})
}

// TestRest has a request stand still for the sake of its pace, for a second, alone and
// with each other reason to.
func TestRest(t *testing.T) {
	resting := func(t *testing.T, paused bool, hold int64) (*Exchange, *fakeResponses, *served) {
		e, f, s := pausing(t)
		e.Hold(s.channel, hold)
		e.standStill(s, time.Second)
		if block(s, 3, paused) == paused {
			t.Fatal("goes on, or is paused twice")
		}
		f.set(graphsync.Paused)
		return e, f, s
	}
	for name, c := range map[string]struct {
		paused bool  // by data-transfer, at the same block
		hold   int64 // behind this link
		early  func(e *Exchange, s *served)
		late   func(e *Exchange, s *served) // nil: it goes on by itself
	}{
		"alone":                              {},
		"resumed by data-transfer meanwhile": {early: func(e *Exchange, s *served) { _ = e.Unpause(t.Context(), s.id) }},
		"paused":                             {paused: true, late: func(e *Exchange, s *served) { _ = e.Unpause(t.Context(), s.id) }},
		"paused, resumed first":              {paused: true, early: func(e *Exchange, s *served) { _ = e.Unpause(t.Context(), s.id) }},
		"held":                               {hold: 3, late: func(e *Exchange, s *served) { e.Hold(s.channel, 0) }},
		"held, let go first":                 {hold: 3, early: func(e *Exchange, s *served) { e.Hold(s.channel, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, f, s := resting(t, c.paused, c.hold)
				if c.early != nil {
					c.early(e, s)
				}
				time.Sleep(time.Second - time.Millisecond)
				if len(f.tries)+len(f.resumed) != 0 {
					t.Error("resumed before its time")
				}
				time.Sleep(time.Second)
				if c.late != nil {
					if len(f.tries)+len(f.resumed) != 0 {
						t.Error("resumed although it stands still for another reason")
					}
					c.late(e, s)
				}
				<-f.resumed
				if block(s, 4, false) {
					t.Error("it stands still again")
				}
			})
		})
	}
}

// TestResentTooMuch holds the rule of how much may be sent again.
func TestResentTooMuch(t *testing.T) {
	const window = 100
	for _, c := range []struct {
		again, resent, sent uint64
		too                 bool
	}{
		{0, 0, 0, false},
		{100, 100, 200, false},
		{101, 101, 300, true}, // by one request
		{1, 150, 200, false},  // by several: 50 for the first time, and the window
		{1, 151, 200, true},
		{1, 151, 202, false},
		{0, math.MaxUint64, math.MaxUint64, true},
	} {
		m := &meter{again: c.again, p: Progress{Resent: c.resent, Sent: c.sent}}
		if got := m.resentTooMuch(window); got != c.too {
			t.Errorf("%d by one request, %d of %d by all: %v", c.again, c.resent, c.sent, got)
		}
	}
}

// TestEndless serves a DAG in which one leaf is linked again and again: as often
// as is allowed, and once more.
func TestEndless(t *testing.T) {
	ctx := within(t, 30*time.Second)
	const most = 100
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.MaxRepeats, c.Guard.SettleTimeout = most, 50*time.Millisecond })
	store := newMemStore()
	admitted := make(chan *served, 2)
	var id graphsync.RequestID
	serveFrom(t, n.Transfers(), &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		admitted <- n.Meter.table.get(id)
		return datatransfer.ValidationResult{Accepted: true}, nil
	}}, store)
	for links, ends := range map[int]bool{most + 1: true, most + 2: false} {
		d := buildDAG(t, store, 40, 1, 1000, make([]int, links))
		a := newAttacker(t, n.cfg.Host)
		r := newRequest(d.root, wholeDAG(), pull(t, 1, false, d.root, wholeDAG()))
		id = r.ID()
		a.send(t, ctx, r)
		s := <-admitted
		if ends {
			if s, got := a.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull || got != d.size {
				t.Errorf("%d links: status %v, %d of %d bytes", links, s, got, d.size)
			}
			continue
		}
		select {
		case <-s.done:
		case <-ctx.Done():
			t.Fatal("it is followed without end")
		}
		if p := mustProgress(t, n, s.channel); !p.Endless || p.Repeats != most+1 {
			t.Errorf("progress %+v", p)
		}
		if n.Dropped()[ReasonEndless] != 1 {
			t.Errorf("dropped %v", n.Dropped())
		}
	}
}
