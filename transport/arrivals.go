package transport

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"
)

// arrivalsFirst is how long blocks wait for requests that have just come, at once, and
// arrivalsShare what part of the time in the long run: whoever means to hold up others
// by coming all the time takes a twentieth of it. arrivalsStale is how long a request is
// believed to be on its way.
const (
	arrivalsFirst = 2 * time.Second
	arrivalsShare = 20
	arrivalsStale = 10 * time.Second
)

// arrivals are requests that graphsync was given and that have not been decided on. All
// of them are decided on by one goroutine and one after another, each by a dozen turns of
// state machines; behind the blocks of those that came before them, they would begin
// when the first have ended. So blocks wait for them.
type arrivals struct {
	mu    sync.Mutex // guards the fields below
	ids   map[graphsync.RequestID]struct{}
	none  chan struct{} // closed when there is none any more
	since time.Time     // when the first of them came
	until time.Time     // when blocks wait no longer for them
	left  time.Duration // that blocks may wait, as of over
	over  time.Time     // when the last had been decided on
}

func newArrivals() *arrivals {
	return &arrivals{ids: make(map[graphsync.RequestID]struct{}), left: arrivalsFirst, over: time.Now()}
}

// come notes that a request is given to graphsync.
func (a *arrivals) come(id graphsync.RequestID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if len(a.ids) > 0 && now.Sub(a.since) > arrivalsStale {
		clear(a.ids) // graphsync may have lost some
		a.rest(now)
	}
	if len(a.ids) == 0 {
		a.left = min(a.left+now.Sub(a.over)/arrivalsShare, arrivalsFirst)
		a.none, a.since, a.until = make(chan struct{}), now, now.Add(a.left)
	}
	a.ids[id] = struct{}{}
}

// decided notes that a request has begun, or never will.
func (a *arrivals) decided(id graphsync.RequestID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.ids[id]; !ok {
		return
	}
	if delete(a.ids, id); len(a.ids) == 0 {
		a.rest(time.Now())
	}
}

// rest lets blocks go on. mu is held.
func (a *arrivals) rest(now time.Time) {
	close(a.none)
	a.left, a.over = max(a.left-now.Sub(a.since), 0), now
}

// first waits until all that came are decided on, as long as blocks may wait for that.
func (a *arrivals) first(ctx context.Context) {
	a.mu.Lock()
	none, wait := a.none, time.Until(a.until)
	waits := len(a.ids) > 0 && wait > 0
	a.mu.Unlock()
	if waits {
		pause(ctx, none, wait)
	}
}
