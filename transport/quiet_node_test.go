package transport

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
)

// raise sets a higher limit.
func (s *quietStack) raise(t *testing.T, limit uint64) {
	t.Helper()
	if err := s.manager.UpdateValidationStatus(t.Context(), quietChid, datatransfer.ValidationResult{Accepted: true, DataLimit: limit}); err != nil {
		t.Fatal(err)
	}
}

// TestQuietGrace: a limit that is raised in time pauses nothing; whoever pays
// late is waited for once, and again when it has paid ahead.
func TestQuietGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietStack(t, QuietConfig{Grace: 100 * time.Millisecond}, &stockChannel{status: datatransfer.Ongoing, limit: 100})
		defer s.q.Close()
		index := int64(0)
		block := func() (paused bool, took time.Duration) {
			index++
			start := time.Now()
			return s.block(tallyQueued, 100, index, true) != nil, time.Since(start)
		}
		expect := func(what string, pause bool, wait time.Duration) {
			t.Helper()
			if p, w := block(); p != pause || w != wait {
				t.Errorf("%s: paused %v after %s, want %v after %s", what, p, w, pause, wait)
			}
		}
		time.AfterFunc(5*time.Millisecond, func() { s.raise(t, 300) })
		expect("raised within the first wait", false, 5*time.Millisecond)
		expect("below the limit", false, 0)
		time.AfterFunc(90*time.Millisecond, func() { s.raise(t, 400) })
		expect("raised within a long wait", false, 90*time.Millisecond)
		expect("not raised", true, 100*time.Millisecond)
		s.raise(t, 500)
		expect("paid after the pause", true, 0)
		s.raise(t, 700)
		s.raise(t, 700)
		expect("below the limit", false, 0)
		expect("the same limit again is no payment ahead", true, 0)
		s.raise(t, 800)
		s.raise(t, 900)
		expect("below the limit", false, 0)
		expect("a short wait for who paid ahead once", true, 10*time.Millisecond)
		s.transport.CleanupChannel(quietChid)
		expect("none on the next channel of who did not", true, 0)
	})
}

// TestQuietGraces: only so many blocks wait at a time.
func TestQuietGraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietStack(t, QuietConfig{Grace: time.Second, MaxGraces: 1}, &stockChannel{status: datatransfer.Ongoing, limit: 1})
		defer s.q.Close()
		s.q.graces <- struct{}{} // another's
		start := time.Now()
		if err := s.block(tallyQueued, 100, 1, true); err == nil || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		<-s.q.graces
		if err := s.block(tallyQueued, 100, 2, true); err == nil || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// pausePoints serves a DAG of uneven blocks with a limit that is raised by step
// when it is reached, and returns what was queued at each pause, and the events
// that each side saw.
func pausePoints(t *testing.T, quiet QuietConfig, step uint64, seed byte) (points []uint64, events [2]int) {
	ctx := within(t, 30*time.Second)
	v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: step}, nil
	}}
	p := newNodePair(t, v, func(c *Config) { c.Quiet = quiet })
	d := buildDAG(t, p.source, uint64(seed), 200, 9_000+int(seed), nil)
	chid := p.open(t, ctx, d.root)
	for limit := step; limit <= d.size; {
		e := p.providing.until(t, ctx, "no pause", func(e seen) bool {
			return e.code == datatransfer.DataLimitExceeded && e.state.Queued() >= limit
		})
		points = append(points, e.state.Queued())
		limit = e.state.Queued()/step*step + step
		if err := p.provider.Transfers().UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true, DataLimit: limit}); err != nil {
			t.Fatal(err)
		}
	}
	for side, w := range []*watcher{p.providing, p.getting} {
		e := w.finished(t, ctx, chid)
		if e.status != datatransfer.Completed || side == 0 && (e.state.Queued() != d.size || e.state.Sent() != d.size) || side == 1 && e.state.Received() != d.size {
			t.Fatalf("side %d ends %s with q=%d s=%d r=%d of %d: %s", side, e.status, e.state.Queued(), e.state.Sent(), e.state.Received(), d.size, e.msg)
		}
		w.mu.Lock()
		events[side] = len(w.events)
		w.mu.Unlock()
	}
	return points, events
}

// TestQuietPausesWhereStockDoes runs real transfers with and without.
func TestQuietPausesWhereStockDoes(t *testing.T) {
	for seed, step := range map[byte]uint64{42: 223_456, 43: 1_000_000} {
		want, loud := pausePoints(t, QuietConfig{Bytes: 1, Grace: -1}, step, seed)
		got, few := pausePoints(t, QuietConfig{}, step, seed)
		if len(got) != len(want) {
			t.Fatalf("%d pauses, without quiet %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("step %d: pause %d at %d, without quiet at %d", step, i, got[i], want[i])
			}
		}
		t.Logf("limit every %d bytes: %d pauses; events at the provider and the client %d, without quiet %d", step, len(got), few, loud)
	}
}

// countedStates counts how often the state of a channel is asked for.
type countedStates struct {
	states
	asked atomic.Int64
}

func (c *countedStates) ChannelState(ctx context.Context, chid datatransfer.ChannelID) (datatransfer.ChannelState, error) {
	c.asked.Add(1)
	return c.states.ChannelState(ctx, chid)
}

// TestQuietKnowsWhatBegins: of a channel that is opened both sides know with what and
// with which limit it begins; nobody asks data-transfer. The limit holds all the same.
func TestQuietKnowsWhatBegins(t *testing.T) {
	ctx := within(t, 20*time.Second)
	p := newNodePair(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 3000}, nil
	}}, nil)
	var counted [2]countedStates
	for i, n := range []*Node{p.provider, p.client} {
		counted[i].states, n.quiet.events.states = n.quiet.events.states, &counted[i]
	}
	d := buildDAG(t, p.source, 63, 8, 1000, nil)
	chid := p.open(t, ctx, d.root)
	e := p.providing.until(t, ctx, "not stopped at the limit", func(e seen) bool { return e.code == datatransfer.DataLimitExceeded })
	if got := e.state.Queued(); got < 3000 || got > 4000 {
		t.Errorf("stopped at %d bytes, the limit is 3000", got)
	}
	if err := p.provider.Transfers().UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true}); err != nil {
		t.Fatal(err)
	}
	if e := p.providing.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Queued() != d.size || e.state.Sent() != d.size {
		t.Errorf("provider: %s, %d bytes queued and %d sent of %d", e.status, e.state.Queued(), e.state.Sent(), d.size)
	}
	if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Received() != d.size {
		t.Errorf("client: %s, %d bytes of %d", e.status, e.state.Received(), d.size)
	}
	for i := range counted {
		if n := counted[i].asked.Load(); n != 0 {
			t.Errorf("side %d asked %d times", i, n)
		}
	}
}
