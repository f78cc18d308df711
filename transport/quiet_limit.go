package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
)

// learnTimeout bounds the question for the state of a channel. A block waits
// meanwhile.
const learnTimeout = 5 * time.Second

// quietChannel is one channel of a Quiet.
//
// The limit that it goes by is never above the one that data-transfer goes by:
// a lower one only makes it pass on more than it must. So a limit that is being
// changed counts as the lower of the two, from before data-transfer is told
// until it has been.
type quietChannel struct {
	q       *Quiet
	chid    datatransfer.ChannelID
	tallies [3]tally
	over    atomic.Bool // terminal: gather nothing

	mu      sync.Mutex    // guards the fields below
	seen    bool          // data-transfer has told of it
	known   bool          // limit is data-transfer's
	limit   uint64        // 0: none
	updates int           // changes under way
	lowest  uint64        // of the limits that are being set, 0: none
	raised  chan struct{} // closed and replaced when anything here changes; nil if nobody waits
	halted  bool          // data-transfer was left to pause, and has not been told to go on
	graced  graceResult
	unsure  int // requests under way that may set any limit
}

// graceResult is how waiting for a channel's limit has turned out.
type graceResult uint8

const (
	graceUnknown graceResult = iota
	graceHelps               // the limit was raised in time
	graceVain                // it was not; whoever pays waits for the pause
	graceDoubt               // it was not, and then it was raised while the channel ran
)

// lower returns the lower of two limits, of which 0 is none.
func lower(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// limits returns the limit to go by, asking data-transfer for what is not known
// of the channel or of t. It returns false if that cannot be had: then nothing
// may be gathered. It is called with t.mu held.
func (c *quietChannel) limits(t *tally) (uint64, bool) {
	c.mu.Lock()
	known, unsure, limit := c.known, c.unsure > 0, lower(c.limit, c.lowest)
	c.mu.Unlock()
	if unsure {
		return 0, false
	}
	if known && t.known {
		return limit, true
	}
	return c.learn(t)
}

// learn asks data-transfer for the state of the channel.
func (c *quietChannel) learn(t *tally) (uint64, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), learnTimeout)
	defer cancel()
	s, err := c.q.events.states.ChannelState(ctx, c.chid)
	if err != nil || ended(s.Status()) {
		c.q.forget(c.chid)
		return 0, false
	}
	if !t.known {
		t.known = true
		t.high, t.total = s.SentCidsTotal(), s.Sent()
		switch t.kind {
		case tallyQueued:
			t.high, t.total = s.QueuedCidsTotal(), s.Queued()
		case tallyReceived:
			t.high, t.total = s.ReceivedCidsTotal(), s.Received()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = true
	if !c.known {
		c.known, c.limit = true, s.DataLimit()
	}
	return lower(c.limit, c.lowest), c.unsure == 0
}

// begins notes what holds for a channel that was opened a moment ago, so that
// data-transfer need not be asked: that takes turns of the channel's state machine.
func (c *quietChannel) begins(limit uint64) {
	for k := range c.tallies {
		t := &c.tallies[k]
		t.mu.Lock()
		t.known = true // with nothing, or as it has been learnt meanwhile
		t.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = true
	if !c.known {
		c.known, c.limit = true, limit
	}
}

// ended says that a channel is terminal or about to be.
func ended(s datatransfer.Status) bool {
	return terminal(s) || s == datatransfer.Failing || s == datatransfer.Cancelling || s == datatransfer.Completing
}

// change is called before data-transfer is given a new limit. Whatever it could
// pause is passed on first, under the old one.
func (c *quietChannel) change(limit uint64) {
	c.mu.Lock()
	c.updates++
	c.lowest = lower(c.lowest, limit)
	c.mu.Unlock()
	for k := range c.tallies {
		t := &c.tallies[k]
		t.mu.Lock()
		if limit != 0 && t.total >= limit {
			t.held = t.flush()
		}
		t.mu.Unlock()
	}
}

// changed is called when data-transfer has the new limit, or perhaps has it.
func (c *quietChannel) changed(limit uint64, certain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.updates--
	if certain && c.graced == graceVain && !c.halted && c.known && lower(c.limit, limit) == c.limit && c.limit != limit {
		c.graced = graceDoubt // raised while the channel runs: whoever pays pays ahead
	}
	c.halted = c.halted && !certain
	c.wake()
	if certain && c.updates == 0 && c.lowest == limit { // no other crossed it
		c.known, c.limit = true, limit
	} else {
		c.limit = lower(c.limit, c.lowest)
	}
	if c.updates == 0 {
		c.lowest = 0
	}
}

// doubt is called before data-transfer is given a request, which may set any
// limit. Until certain is called every block is passed on.
func (c *quietChannel) doubt() {
	c.mu.Lock()
	c.unsure++
	c.wake()
	c.mu.Unlock()
	c.flush()
}

func (c *quietChannel) certain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsure--
	c.known = false // ask again
}

// begun says that a block of the channel has been seen.
func (c *quietChannel) begun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *quietChannel) flush() {
	for k := range c.tallies {
		c.tallies[k].flushNow()
	}
}
