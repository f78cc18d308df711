package transport

import (
	"context"
	"errors"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
)

// Pause asks a response to pause at its next block. It returns at once and is
// undone by Unpause, also before it has taken effect. Pausing what is paused is
// no error. This node's own requests are paused by graphsync, in a moment.
func (e *Exchange) Pause(_ context.Context, id graphsync.RequestID) error {
	s := e.table.get(id)
	if s == nil {
		return e.aside(func() { _ = e.GraphExchange.Pause(e.ctx, id) }) // fails if it has ended
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused || s.resuming {
		s.wantPause = true
	}
	return nil
}

// Unpause lets a paused response go on and sends ext along. It returns at once:
// data-transfer calls it with the channel locked, and graphsync's goroutine may
// be waiting for that lock. A pause that a block hook has decided on but
// graphsync has not carried out yet is undone as soon as it has been. If nothing
// is paused ext is sent and the response goes on. It fails only if the request
// has ended. This node's own requests are resumed by graphsync.
//
// Unpause never undoes a pause that is decided on after it has been called,
// except one that is being decided on at that moment: by then the limit that it
// is decided by may already have been raised.
func (e *Exchange) Unpause(_ context.Context, id graphsync.RequestID, ext ...graphsync.ExtensionData) error {
	s := e.table.get(id)
	if s == nil {
		return e.aside(func() { _ = e.GraphExchange.Unpause(e.ctx, id, ext...) }) // likewise
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.dying {
		return graphsync.RequestNotFoundErr{}
	}
	s.wantPause = false
	s.updates = merge(s.updates, ext)
	e.wake(s)
	return nil
}

// wake has a resume of s carried out. It is called with s.mu held.
func (e *Exchange) wake(s *served) {
	s.wanted = true
	if !s.resuming && e.ctx.Err() == nil {
		s.resuming = true
		e.spawn(func() { e.resume(s) })
	}
}

// Hold makes the latest request of a channel stand still behind the link of that
// index, as Progress.Links counts, when it has sent that link's block: what lies
// behind stays here. It is for a peer that may have lost blocks and must not have
// new ones. It holds whatever data-transfer resumes, until Hold is called with 0;
// then the request goes on unless data-transfer has paused it. The channel's next
// request is not held. It returns at once and may be called by a validator.
func (e *Exchange) Hold(chid datatransfer.ChannelID, link int64) {
	m := e.table.meterOf(chid)
	if m == nil {
		return
	}
	m.holdAt(link)
	if link != 0 {
		return
	}
	for _, s := range e.table.live(chid) {
		s.mu.Lock()
		if s.held && !s.endless {
			s.held = false
			e.goOn(s)
		}
		s.mu.Unlock()
	}
}

// goOn resumes what no longer stands still for one reason, if there is no other: what
// data-transfer has paused it resumes. It is called with s.mu held.
func (e *Exchange) goOn(s *served) {
	if !s.stands() && !s.paused {
		s.paused = true
		e.wake(s)
	}
}

// stands says that it stands still for a reason that is not data-transfer's. It is
// called with s.mu held.
func (s *served) stands() bool { return s.held || s.standing }

// recall lets s go on that stood aside.
func (e *Exchange) recall(s *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside = false // if it does not stand yet it never will
	if s.standing {
		s.standing = false
		e.goOn(s)
	}
}

// aside does f for a request that this node does not serve: one of its own, or one
// that it served until a moment ago. f waits for graphsync's goroutine, and that
// may be waiting for the channel's lock, which the caller holds.
func (e *Exchange) aside(f func()) error {
	e.asking.Lock()
	asked := len(e.asked) != 0
	e.asking.Unlock()
	if !asked {
		return graphsync.RequestNotFoundErr{}
	}
	e.spawn(f)
	return nil
}

// merge returns old with the extensions of ext, the newer ones winning.
func merge(old, ext []graphsync.ExtensionData) []graphsync.ExtensionData {
	out := make([]graphsync.ExtensionData, 0, len(old)+len(ext))
	for _, o := range old {
		if !hasName(ext, o.Name) {
			out = append(out, o)
		}
	}
	return append(out, ext...)
}

func hasName(ext []graphsync.ExtensionData, name graphsync.ExtensionName) bool {
	for _, x := range ext {
		if x.Name == name {
			return true
		}
	}
	return false
}

// resume carries out Unpause: by level, until it holds. There is at most one
// goroutine of it per request.
func (e *Exchange) resume(s *served) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		step, ext, more := s.nextStep()
		if !more {
			return
		}
		switch {
		case step.hook != nil: // a block is being decided on
			select {
			case <-step.hook:
			case <-s.done:
			case <-e.ctx.Done():
			}
			wait = time.Millisecond
			continue
		case !step.paused:
			if len(ext) != 0 {
				// The request may have ended meanwhile; then nobody wants to know.
				_ = e.GraphExchange.SendUpdate(e.ctx, s.id, ext...)
			}
			continue
		}
		err := e.GraphExchange.Unpause(e.ctx, s.id, ext...)
		if err == nil {
			wait = time.Millisecond
			continue
		}
		if errors.As(err, new(graphsync.RequestNotFoundErr)) || e.ctx.Err() != nil {
			s.giveUp()
			return
		}
		// "request is not paused": the hook has asked for the pause but the worker has
		// not come to rest, or the response is already complete.
		s.again(ext)
		pause(e.ctx, s.done, wait)
	}
}

// pause waits for d, done or ctx.
func pause(ctx context.Context, done <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	case <-ctx.Done():
	}
}

// resumeStep is what to do next for a wanted resume.
type resumeStep struct {
	hook   chan struct{} // not nil: wait for it
	paused bool          // true: call Unpause
}

// nextStep takes the next step of a resume, and returns false if there is none.
// The pause is marked as undone before graphsync is told, because after it was
// told the next block may pause again at any moment.
func (s *served) nextStep() (resumeStep, []graphsync.ExtensionData, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.dying || !s.wanted {
		s.resuming = false
		return resumeStep{}, nil, false
	}
	if s.hookEnd != nil {
		return resumeStep{hook: s.hookEnd}, nil, true
	}
	step, ext := resumeStep{paused: s.paused && !s.stands()}, s.updates
	s.paused, s.wanted, s.updates = false, false, nil
	return step, ext, true
}

// again puts back a step that did not take effect.
func (s *served) again(ext []graphsync.ExtensionData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused, s.wanted = true, true
	s.updates = merge(ext, s.updates)
}

func (s *served) giveUp() {
	s.mu.Lock()
	s.resuming = false
	s.mu.Unlock()
}
