package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// raiser raises the limit of a channel by step every time it is exceeded, from
// a goroutine of its own, spin more often than needed.
type raiser struct {
	m    datatransfer.Manager
	step uint64
	spin int
	jobs chan datatransfer.ChannelState
	wg   sync.WaitGroup

	mu     sync.Mutex
	raised int
	errs   []error
}

func newRaiser(t testing.TB, m datatransfer.Manager, step uint64, spin int) *raiser {
	r := &raiser{m: m, step: step, spin: spin, jobs: make(chan datatransfer.ChannelState, 10000)}
	unsub := m.SubscribeToEvents(func(e datatransfer.Event, s datatransfer.ChannelState) {
		if e.Code == datatransfer.DataLimitExceeded {
			r.jobs <- s
		}
	})
	r.wg.Go(func() {
		for s := range r.jobs {
			r.raise(s)
		}
	})
	t.Cleanup(func() {
		unsub()
		close(r.jobs)
		r.wg.Wait()
	})
	return r
}

// raise does what a provider does on DataLimitExceeded: it computes the limit
// from the level and says it, at once, while graphsync is still pausing.
func (r *raiser) raise(s datatransfer.ChannelState) {
	limit := s.Queued()/r.step*r.step + r.step
	for range 1 + r.spin {
		err := r.m.UpdateValidationStatus(context.Background(), s.ChannelID(), datatransfer.ValidationResult{Accepted: true, DataLimit: limit})
		r.mu.Lock()
		if err != nil && !errors.Is(err, ErrChannelTerminal) {
			r.errs = append(r.errs, err)
		}
		r.raised++
		r.mu.Unlock()
	}
}

// TestResumeRaces pauses and resumes a transfer many times. Each resume comes while graphsync is on its way to the pause; with the plain exchange the
// first that comes too early stops the transfer for good.
func TestResumeRaces(t *testing.T) {
	for name, c := range map[string]struct{ spin, pauses int }{"once": {0, 250}, "thrice": {2, 60}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, 60*time.Second)
			const step = 64 << 10
			v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
				return datatransfer.ValidationResult{Accepted: true, DataLimit: step}, nil
			}}
			p := newNodePair(t, v, nil)
			r := newRaiser(t, p.provider.Transfers(), step, c.spin)
			d := buildDAG(t, p.source, 2, 2*(c.pauses+2), 32<<10, nil)
			chid := p.open(t, ctx, d.root)
			if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Received() != d.size {
				t.Fatalf("client: %s, %d of %d bytes: %s", e.status, e.state.Received(), d.size, e.msg)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.raised < c.pauses*(1+c.spin) || len(r.errs) != 0 {
				t.Errorf("limit raised %d times, errors %v", r.raised, r.errs)
			}
		})
	}
}

// TestPausesHold checks that no resume undoes a pause that was not meant: at
// every limit the provider queues what the limit allows and one block more.
func TestPausesHold(t *testing.T) {
	ctx := within(t, 60*time.Second)
	const block, step = 32 << 10, 256 << 10
	v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: step}, nil
	}}
	p := newNodePair(t, v, nil)
	d := buildDAG(t, p.source, 3, 64, block, nil)
	chid := p.open(t, ctx, d.root)
	limit := uint64(step)
	for range int(d.size / step) {
		e := p.providing.until(t, ctx, "limit is not reached", func(e seen) bool {
			return e.code == datatransfer.DataLimitExceeded && e.state.Queued() >= limit
		})
		if q := e.state.Queued(); q >= limit+block {
			t.Fatalf("queued %d bytes at a limit of %d", q, limit)
		}
		if sent := mustProgress(t, p.provider, chid).Sent; sent >= limit+block {
			t.Fatalf("sent %d bytes at a limit of %d", sent, limit)
		}
		limit += step
		if err := p.provider.Transfers().UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true, DataLimit: limit}); err != nil {
			t.Fatal(err)
		}
	}
	if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed {
		t.Fatalf("client: %s: %s", e.status, e.msg)
	}
}

func mustProgress(t testing.TB, n *Node, chid datatransfer.ChannelID) Progress {
	t.Helper()
	p, ok := n.Meter.Progress(chid)
	if !ok {
		t.Fatal("no progress of the channel")
	}
	return p
}

// TestIdlePause keeps a transfer paused for longer than the 10 s after which
// graphsync resets a silent stream, and sees no receive error on either side.
func TestIdlePause(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for 11 s")
	}
	t.Parallel()
	ctx := within(t, 40*time.Second)
	v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 100_000}, nil
	}}
	p := newNodePair(t, v, nil)
	d := buildDAG(t, p.source, 4, 16, 64<<10, nil)
	chid := p.open(t, ctx, d.root)
	p.getting.until(t, ctx, "no pause", func(e seen) bool { return e.code == datatransfer.PauseResponder })
	<-time.After(11 * time.Second) // what is tested is the passing of this time
	if err := p.provider.Transfers().UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true}); err != nil {
		t.Fatal(err)
	}
	if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed {
		t.Fatalf("client: %s: %s", e.status, e.msg)
	}
	for side, w := range map[string]*watcher{"client": p.getting, "provider": p.providing} {
		w.mu.Lock()
		for _, e := range w.events {
			if e.code == datatransfer.ReceiveDataError || e.code == datatransfer.SendDataError {
				t.Errorf("%s: %s %s", side, datatransfer.Events[e.code], e.msg)
			}
		}
		w.mu.Unlock()
	}
}

// fakeResponses is the part of graphsync that pauses and resumes one response,
// with its states under the test's control.
type fakeResponses struct {
	graphsync.GraphExchange
	mu      sync.Mutex
	state   graphsync.RequestState
	gone    bool
	resumed chan []graphsync.ExtensionData // one per effective Unpause
	updates chan []graphsync.ExtensionData
	tries   chan struct{}
}

func newFakeResponses() *fakeResponses {
	return &fakeResponses{
		state:   graphsync.Running,
		resumed: make(chan []graphsync.ExtensionData, 10),
		updates: make(chan []graphsync.ExtensionData, 10),
		tries:   make(chan struct{}, 10000),
	}
}

func (f *fakeResponses) Unpause(_ context.Context, _ graphsync.RequestID, ext ...graphsync.ExtensionData) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.tries <- struct{}{} }()
	switch {
	case f.gone:
		return graphsync.RequestNotFoundErr{}
	case f.state != graphsync.Paused:
		return errors.New("request is not paused")
	}
	f.state = graphsync.Running
	f.resumed <- ext
	return nil
}

func (f *fakeResponses) SendUpdate(_ context.Context, _ graphsync.RequestID, ext ...graphsync.ExtensionData) error {
	f.updates <- ext
	return nil
}

func (f *fakeResponses) set(s graphsync.RequestState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
}

// pausing is an exchange with one admitted request on a fake graphsync.
func pausing(t *testing.T) (*Exchange, *fakeResponses, *served) {
	f := newFakeResponses()
	ctx, stop := context.WithCancel(context.Background())
	e := &Exchange{GraphExchange: f, cfg: GuardConfig{}.withDefaults(), table: newTable(10), arrivals: newArrivals(), lobby: newLobby(func(peer.ID) int { return 0 }), flow: newFlow(1<<20, 1<<20, 100, func(*served) {}), counts: newCounts(), log: quiet(), ctx: ctx, stop: stop}
	t.Cleanup(func() { _ = e.Close() })
	s, err := e.table.admit(Incoming{ID: graphsync.NewRequestID(), Channel: datatransfer.ChannelID{ID: 1, Initiator: "a", Responder: "b"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return e, f, s
}

func ext(name string) graphsync.ExtensionData {
	return graphsync.ExtensionData{Name: graphsync.ExtensionName(name)}
}

// TestResumeBeforePause resumes in each of the windows before graphsync's pause.
func TestResumeBeforePause(t *testing.T) {
	ctx := within(t, 10*time.Second)
	t.Run("while the hook decides", func(t *testing.T) {
		e, f, s := pausing(t)
		s.enterHook()
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		s.leaveHook(&blockActions{paused: true}, 1)
		<-f.tries // too early
		f.set(graphsync.Paused)
		if got := <-f.resumed; len(got) != 1 || got[0].Name != "x" {
			t.Errorf("resumed with %v", got)
		}
	})
	t.Run("after the hook decided", func(t *testing.T) {
		e, f, s := pausing(t)
		s.enterHook()
		s.leaveHook(&blockActions{paused: true}, 1)
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			<-f.tries
		}
		f.set(graphsync.Paused)
		<-f.resumed
	})
	t.Run("hook does not pause", func(t *testing.T) {
		e, f, s := pausing(t)
		s.enterHook()
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		s.leaveHook(&blockActions{}, 1)
		if got := <-f.updates; len(got) != 1 {
			t.Errorf("update %v", got)
		}
		// A pause that comes later is not undone.
		s.enterHook()
		s.leaveHook(&blockActions{paused: true}, 1)
		f.set(graphsync.Paused)
		if len(f.tries) != 0 || len(f.resumed) != 0 {
			t.Error("an old resume undid a new pause")
		}
	})
	t.Run("while the request is decided on", func(t *testing.T) {
		e, f, s := pausing(t)
		s.enterHook()
		if err := e.Unpause(ctx, s.id, ext("x")); err != nil {
			t.Fatal(err)
		}
		f.set(graphsync.Paused)
		s.leaveRequestHook(&requestActions{valid: true, paused: true})
		if got := <-f.resumed; len(got) != 1 {
			t.Errorf("resumed with %v", got)
		}
	})
	t.Run("request ends", func(t *testing.T) {
		e, f, s := pausing(t)
		s.enterHook()
		s.leaveHook(&blockActions{paused: true}, 1)
		f.mu.Lock()
		f.gone = true
		f.mu.Unlock()
		if err := e.Unpause(ctx, s.id); err != nil {
			t.Fatal(err)
		}
		<-f.tries
		e.ended(s.id)
		if err := e.Close(); err != nil { // returns: nobody is left at work
			t.Fatal(err)
		}
	})
}

// TestPauseIsUndone checks that a Pause which has not taken effect is taken back
// by Unpause, and that one which has pauses after data-transfer saw the block.
func TestPauseIsUndone(t *testing.T) {
	ctx := within(t, 10*time.Second)
	e, _, s := pausing(t)
	if err := e.Pause(ctx, s.id); err != nil {
		t.Fatal(err)
	}
	if err := e.Unpause(ctx, s.id); err != nil {
		t.Fatal(err)
	}
	s.enterHook()
	if s.leaveHook(&blockActions{}, 1) {
		t.Error("paused although it was undone")
	}
	if err := e.Pause(ctx, s.id); err != nil {
		t.Fatal(err)
	}
	s.enterHook()
	if !s.leaveHook(&blockActions{}, 1) {
		t.Error("not paused")
	}
	if err := e.Pause(ctx, s.id); err != nil {
		t.Errorf("pausing what is paused: %v", err)
	}
}

// stuckResponses is a graphsync whose goroutine waits for whoever calls it.
type stuckResponses struct {
	*fakeResponses
	free chan struct{}
}

func (s *stuckResponses) Unpause(context.Context, graphsync.RequestID, ...graphsync.ExtensionData) error {
	<-s.free
	return graphsync.RequestNotFoundErr{}
}

func (s *stuckResponses) Pause(context.Context, graphsync.RequestID) error {
	<-s.free
	return graphsync.RequestNotFoundErr{}
}

// TestResumeOfNothing: pausing and resuming a request that has just ended does not
// wait for graphsync, whose goroutine may be waiting for the caller: a provider
// that did served nobody any more.
func TestResumeOfNothing(t *testing.T) {
	ctx := within(t, 10*time.Second)
	for name, asks := range map[string]bool{"only serves": false, "asks too": true} {
		t.Run(name, func(t *testing.T) {
			e, f, s := pausing(t)
			stuck := &stuckResponses{f, make(chan struct{})}
			e.GraphExchange = stuck
			e.asked = map[peer.ID]struct{}{}
			if asks {
				e.asked["p"] = struct{}{}
			}
			e.table.end(s.id)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = e.Unpause(ctx, s.id)
				_ = e.Pause(ctx, s.id)
			}()
			select {
			case <-done:
			case <-ctx.Done():
				t.Error("it waits for graphsync")
			}
			close(stuck.free)
		})
	}
}
