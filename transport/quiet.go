package transport

import (
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// QuietConfig says how much progress a Quiet gathers before data-transfer hears
// of it. Whichever comes first counts.
type QuietConfig struct {
	// Bytes of blocks; four times as many where they come within a quarter of a
	// second, which is how often a WriteBehind writes. A crash loses the count of
	// what was gathered. Default 16 MiB; 1 passes on every block.
	Bytes uint64

	// Blocks is how many blocks. Default 8192.
	Blocks int

	// Delay is how old progress may become, measured when a block comes or
	// after Idle. Default 2 s: data-transfer takes one event at a time, of all channels
	// together, and a hundred slow ones would leave it no time for a new one. A program
	// that pays by data-transfer's word of what was received wants less; the market's
	// client hears from its store.
	Delay time.Duration

	// Idle is how long no block has come. Default 1 s.
	Idle time.Duration

	// Grace is how long a block that reaches the limit of its channel waits for
	// the limit to be raised, unless that has been in vain before; a tenth of it
	// where there is new hope. Default 250 ms; negative: not at all.
	Grace time.Duration

	// MaxGraces is how many blocks wait at a time. Each holds one of graphsync's
	// workers. Default 32.
	MaxGraces int
}

func (c QuietConfig) withDefaults() QuietConfig {
	c.Bytes = orDefault(c.Bytes, 16<<20)
	c.Blocks = orDefault(c.Blocks, 8192)
	c.Delay = orDefault(c.Delay, 2*time.Second)
	c.Idle = orDefault(c.Idle, time.Second)
	c.Grace = orDefault(c.Grace, 250*time.Millisecond)
	c.MaxGraces = orDefault(c.MaxGraces, 32)
	return c
}

// Quiet sums up the progress of channels, so that data-transfer hears of it
// rarely. data-transfer fires two events for each block that is queued, sent or
// received, and for every event it decodes and encodes the whole record of the
// channel and tells every subscriber.
//
// What data-transfer decides and records is the same as without it: a block that
// reaches the DataLimit of its channel is passed on at once, with all before it,
// and the answer goes to that block; and everything gathered is passed on before
// anything else is said of the channel. The first block is passed on at once. A Quiet
// needs to hear of limits before data-transfer acts on them, so both Transport and
// Manager must be wrapped, and nothing may change a channel behind the manager's back.
// A limit that it does not know makes it pass on every block.
//
// A limit is often raised at the moment it is reached: the payment is on its
// way. To pause and resume a response costs up to a tenth of a second, so a block
// that reaches the limit of a channel whose limit has been raised in time before
// waits a little, on its own goroutine, before data-transfer decides on it.
//
// It may be used concurrently. Close it before the manager is stopped.
type Quiet struct {
	cfg    QuietConfig
	events *quietEvents  // set once, before the first block
	graces chan struct{} // one for each block that waits

	mu       sync.Mutex // guards the fields below
	closed   bool
	channels map[datatransfer.ChannelID]*quietChannel
	payers   map[peer.ID]graceResult           // how waiting for a peer turned out the last time
	grants   map[datatransfer.ChannelID]uint64 // limits of channels that are being opened

	timers sync.WaitGroup // timers that run or will
}

// NewQuiet returns a Quiet for one data-transfer manager.
func NewQuiet(cfg QuietConfig) *Quiet {
	cfg = cfg.withDefaults()
	return &Quiet{cfg: cfg, graces: make(chan struct{}, max(0, cfg.MaxGraces)), channels: make(map[datatransfer.ChannelID]*quietChannel), payers: make(map[peer.ID]graceResult),
		grants: make(map[datatransfer.ChannelID]uint64)}
}

// channel returns what is known of a channel, making it if need be.
func (q *Quiet) channel(chid datatransfer.ChannelID) *quietChannel {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.channels[chid]
	if c == nil {
		c = &quietChannel{q: q, chid: chid, graced: q.payers[chid.Initiator]}
		for k := range c.tallies {
			c.tallies[k].c, c.tallies[k].kind, c.tallies[k].loud = c, tallyKind(k), q.closed
		}
		q.channels[chid] = c
	}
	return c
}

// grant notes the limit of a channel that a validator accepts.
func (q *Quiet) grant(chid datatransfer.ChannelID, limit uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.grants[chid] = limit
}

// granted takes the limit of a channel whose request has been received.
func (q *Quiet) granted(chid datatransfer.ChannelID) (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit, ok := q.grants[chid]
	delete(q.grants, chid)
	return limit, ok
}

// known returns a channel, nil if nothing is known of it.
func (q *Quiet) known(chid datatransfer.ChannelID) *quietChannel {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.channels[chid]
}

// flush passes on what a channel has gathered. It must not be called by a
// channel's state machine, which it may wait for.
func (q *Quiet) flush(chid datatransfer.ChannelID) {
	if c := q.known(chid); c != nil {
		c.flush()
	}
}

// Flush passes on everything gathered.
func (q *Quiet) Flush() {
	q.mu.Lock()
	all := make([]*quietChannel, 0, len(q.channels))
	for _, c := range q.channels {
		all = append(all, c)
	}
	q.mu.Unlock()
	for _, c := range all {
		c.flush()
	}
}

// forget drops a channel that is over. What it has gathered is lost: nothing
// that happens to it counts any more. It waits for nobody.
func (q *Quiet) forget(chid datatransfer.ChannelID) {
	q.mu.Lock()
	c := q.channels[chid]
	delete(q.channels, chid)
	delete(q.grants, chid)
	q.mu.Unlock()
	if c == nil {
		return
	}
	c.over.Store(true)
	c.mu.Lock()
	c.wake()
	c.mu.Unlock()
	for k := range c.tallies {
		if t := &c.tallies[k]; t.mu.TryLock() { // if not, its timer runs out
			t.disarm()
			t.mu.Unlock()
		}
	}
}

// Close passes on everything gathered; from then on every block is passed on as
// it comes. It waits for its timers.
func (q *Quiet) Close() {
	q.mu.Lock()
	q.closed = true
	all := make([]*quietChannel, 0, len(q.channels))
	for _, c := range q.channels {
		all = append(all, c)
	}
	q.mu.Unlock()
	for _, c := range all {
		for k := range c.tallies {
			c.tallies[k].close()
		}
	}
	q.timers.Wait()
}
