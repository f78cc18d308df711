package transport

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// grace waits for the limit of the channel to rise above reach, the bytes that
// the block at hand brings it to, if there is hope for that. No lock is held.
//
// Who pays after the pause, as clients of the existing network do, is found out
// with one wait, and a short one when its limit is raised while it runs. The next channel
// of the same peer begins with what is known of it. Of a stranger as much is hoped
// as of a friend: over a long line its first payment is on the way for as long.
func (c *quietChannel) grace(reach uint64) {
	c.mu.Lock()
	d := c.q.cfg.Grace
	if c.graced == graceDoubt {
		d /= 10
	}
	hope := d > 0 && c.graced != graceVain
	c.mu.Unlock()
	if !hope {
		c.halt()
		return
	}
	select {
	case c.q.graces <- struct{}{}:
		defer func() { <-c.q.graces }()
	default:
		c.halt() // too many wait; it says nothing of this channel
		return
	}
	if c.await(reach, d) {
		return
	}
	c.mu.Lock()
	c.graced, c.halted = graceVain, true
	c.mu.Unlock()
	c.q.remember(c.chid.Initiator, graceVain)
}

// maxPayers is how many peers are remembered.
const maxPayers = 4096

func (q *Quiet) remember(p peer.ID, r graceResult) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.payers) >= maxPayers {
		clear(q.payers) // rare; each is found out again
	}
	q.payers[p] = r
}

// halt notes that the channel is about to be paused.
func (c *quietChannel) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halted = true
}

// await reports whether the limit rose above reach within d. It returns early
// when the channel is not what it was.
func (c *quietChannel) await(reach uint64, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		c.mu.Lock()
		limit := lower(c.limit, c.lowest)
		switch {
		case c.unsure > 0 || !c.known || c.over.Load():
			c.mu.Unlock()
			return true // not its fault
		case limit == 0 || reach < limit:
			c.graced = graceHelps
			c.mu.Unlock()
			c.q.remember(c.chid.Initiator, graceHelps)
			return true
		}
		if c.raised == nil {
			c.raised = make(chan struct{})
		}
		raised := c.raised
		c.mu.Unlock()
		select {
		case <-raised:
		case <-t.C:
			return false
		}
	}
}

// wake lets those who wait look again. It is called with mu held.
func (c *quietChannel) wake() {
	if c.raised != nil {
		close(c.raised)
		c.raised = nil
	}
}
