package transport

import (
	"context"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-datastore"
)

// collector deletes the records of channels that finished long ago.
// data-transfer keeps them for ever and decodes all of them for every list.
type collector struct {
	store datastore.Datastore
	keep  time.Duration
	unsub datatransfer.Unsubscribe
	stop  chan struct{}
	done  chan struct{}

	mu       sync.Mutex // guards finished
	finished map[datatransfer.ChannelID]time.Time
}

// recordPrefix is where data-transfer v2 keeps its records.
const recordPrefix = "/3"

// newCollector begins to collect. Channels that are finished already count from
// now.
func newCollector(m datatransfer.Manager, s *stateStore, keep time.Duration) *collector {
	c := &collector{
		store:    s.store,
		keep:     keep,
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
		finished: make(map[datatransfer.ChannelID]time.Time),
	}
	c.unsub = m.SubscribeToEvents(func(_ datatransfer.Event, s datatransfer.ChannelState) {
		if terminal(s.Status()) {
			c.note(s.ChannelID(), time.Now())
		}
	})
	if old, err := m.InProgressChannels(context.Background()); err == nil {
		for chid, s := range old {
			if terminal(s.Status()) {
				c.note(chid, time.Now())
			}
		}
	}
	go c.run(min(keep, time.Minute))
	return c
}

func terminal(s datatransfer.Status) bool {
	return s == datatransfer.Completed || s == datatransfer.Failed || s == datatransfer.Cancelled
}

func (c *collector) note(chid datatransfer.ChannelID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.finished[chid]; !has {
		c.finished[chid] = at
	}
}

func (c *collector) run(every time.Duration) {
	defer close(c.done)
	t := time.NewTicker(max(every, 10*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			c.collect(now)
		case <-c.stop:
			return
		}
	}
}

// collect deletes what finished before now less keep.
func (c *collector) collect(now time.Time) {
	c.mu.Lock()
	var old []datatransfer.ChannelID
	for chid, at := range c.finished {
		if now.Sub(at) >= c.keep {
			old = append(old, chid)
			delete(c.finished, chid)
		}
	}
	c.mu.Unlock()
	for _, chid := range old {
		// If it fails the record is found and collected again at the next start.
		_ = c.store.Delete(context.Background(), recordKey(chid))
	}
}

func recordKey(chid datatransfer.ChannelID) datastore.Key {
	return datastore.NewKey(recordPrefix).ChildString(chid.String())
}

func (c *collector) close() {
	c.unsub()
	close(c.stop)
	<-c.done
}
