package transport

import (
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
)

// QuietConfig says how much progress a Quiet gathers before data-transfer hears
// of it. Whichever comes first counts.
type QuietConfig struct {
	// Bytes of blocks. Default 4 MiB for what is received, which is when a client
	// pays, and 16 MiB for what is queued and sent, where a limit that comes near is
	// what counts; 1 passes on every block.
	Bytes uint64

	// Blocks is how many blocks. Default 8192.
	Blocks int

	// Delay is how old progress may become, measured when a block comes or
	// after Idle. Default 200 ms.
	Delay time.Duration

	// Idle is how long no block has come. Default 20 ms.
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
	c.Blocks = orDefault(c.Blocks, 8192)
	c.Delay = orDefault(c.Delay, 200*time.Millisecond)
	c.Idle = orDefault(c.Idle, 20*time.Millisecond)
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
// anything else is said of the channel. A Quiet needs to hear of limits before
// data-transfer acts on them, so both Transport and Manager must be wrapped, and
// nothing may change a channel behind the manager's back. A limit that it does
// not know makes it pass on every block.
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
	payers   map[peer.ID]graceResult // how waiting for a peer turned out the last time

	timers sync.WaitGroup // timers that run or will
}

// NewQuiet returns a Quiet for one data-transfer manager.
func NewQuiet(cfg QuietConfig) *Quiet {
	cfg = cfg.withDefaults()
	return &Quiet{cfg: cfg, graces: make(chan struct{}, max(0, cfg.MaxGraces)), channels: make(map[datatransfer.ChannelID]*quietChannel), payers: make(map[peer.ID]graceResult)}
}

// enough returns how many bytes of a kind are gathered at most.
func (c QuietConfig) enough(kind tallyKind) uint64 {
	if kind == tallyReceived {
		return orDefault(c.Bytes, 4<<20)
	}
	return orDefault(c.Bytes, 16<<20)
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

// tallyKind is one of the three things that happen to a block.
type tallyKind int

const (
	tallyQueued tallyKind = iota
	tallySent
	tallyReceived
)

// A tally is what has been gathered of one kind for one channel.
type tally struct {
	c    *quietChannel
	kind tallyKind

	mu    sync.Mutex // guards the fields below; held while data-transfer is told
	known bool       // high and total are as data-transfer has them
	loud  bool       // gather nothing
	begun bool       // the first block has been passed on
	high  int64      // highest index that counted
	total uint64     // bytes that counted, those gathered included

	bytes  uint64 // gathered
	blocks int
	link   ipld.Link // the last that counted
	again  int64     // highest index of a block that did not count, 0 if none
	where  ipld.Link // its link
	since  time.Time // when the first was gathered
	last   time.Time // and the last

	timer *time.Timer
	armed bool // timer will run
	held  answer
}

// answer is what data-transfer says to progress.
type answer struct {
	msg datatransfer.Message
	err error
}

// none says that there is nothing to do about it.
func (a answer) none() bool { return a.err == nil && a.msg == nil }

// or returns a, or b if a says nothing.
func (a answer) or(b answer) answer {
	if a.none() {
		return b
	}
	return a
}

// add counts a block and returns data-transfer's answer, or none if the block
// was only gathered.
func (t *tally) add(link ipld.Link, size uint64, index int64, unique bool) answer {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit, known := t.limit()
	if known && t.kind == tallyQueued && unique && index > t.high && limit != 0 && t.total+size >= limit {
		reach := t.total + size
		t.mu.Unlock()
		t.c.grace(reach)
		t.mu.Lock()
		limit, known = t.limit()
	}
	if !known {
		return t.pass(link, size, index, unique)
	}
	if unique && index > t.high {
		t.high, t.link = index, link
		t.total += size
		t.bytes += size
	} else if index > t.again {
		t.again, t.where = index, link
	}
	now := time.Now()
	if t.blocks++; t.blocks == 1 {
		t.since = now
	}
	t.last = now
	cfg := t.c.q.cfg
	full := t.bytes >= cfg.enough(t.kind) || t.blocks >= cfg.Blocks || now.Sub(t.since) >= cfg.Delay
	if full || !t.begun || t.kind != tallySent && limit != 0 && t.total >= limit || !t.held.none() {
		t.begun = true
		return t.flush()
	}
	t.arm()
	return answer{}
}

// limit returns the limit to go by, and false if nothing may be gathered. It is
// called with mu held.
func (t *tally) limit() (uint64, bool) {
	if t.loud || t.c.over.Load() {
		return 0, false
	}
	return t.c.limits(t)
}

// pass tells of what was gathered and then of one block by itself.
func (t *tally) pass(link ipld.Link, size uint64, index int64, unique bool) answer {
	before := t.flush()
	if t.known && unique && index > t.high {
		t.high = index
		t.total += size
	}
	a := t.tell(link, size, index, unique)
	return a.or(before)
}

// flush tells data-transfer of what was gathered, as one block with the highest
// index and the size of all. It is called with mu held.
func (t *tally) flush() answer {
	a := t.held
	t.held = answer{}
	if t.blocks == 0 {
		return a
	}
	bytes, link, again, where := t.bytes, t.link, t.again, t.where
	t.bytes, t.blocks, t.link, t.again, t.where = 0, 0, nil, 0, nil
	if link != nil {
		a = t.tell(link, bytes, t.high, true).or(a)
	}
	if where != nil && (link == nil || again > t.high) {
		a = t.tell(where, 0, again, false).or(a)
	}
	return a
}

// tell tells data-transfer of one block, or of a sum.
func (t *tally) tell(link ipld.Link, size uint64, index int64, unique bool) answer {
	e, chid := t.c.q.events.EventsHandler, t.c.chid
	switch t.kind {
	case tallyQueued:
		msg, err := e.OnDataQueued(chid, link, size, index, unique)
		return answer{msg, err}
	case tallySent:
		return answer{err: e.OnDataSent(chid, link, size, index, unique)}
	default:
		return answer{err: e.OnDataReceived(chid, link, size, index, unique)}
	}
}

// flushNow is flush outside of a block. An answer that matters waits for the
// next one: there is nothing else to give it to.
func (t *tally) flushNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = t.flush()
}

// arm sees to it that what was gathered does not stay. It is called with mu held.
func (t *tally) arm() {
	if t.armed {
		return
	}
	t.armed = true
	t.c.q.timers.Add(1)
	if t.timer == nil {
		t.timer = time.AfterFunc(t.c.q.cfg.Idle, t.ring)
		return
	}
	t.timer.Reset(t.c.q.cfg.Idle)
}

// ring passes on what is old, or what no block follows.
func (t *tally) ring() {
	defer t.c.q.timers.Done()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	if t.blocks == 0 || t.c.over.Load() || t.loud {
		return
	}
	now := time.Now()
	if now.Sub(t.last) >= t.c.q.cfg.Idle || now.Sub(t.since) >= t.c.q.cfg.Delay {
		t.held = t.flush()
		return
	}
	t.arm()
}

// close passes on what is left and ends the gathering.
func (t *tally) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loud = true
	t.disarm()
	t.held = t.flush()
}

// disarm stops the timer unless it is about to ring. It is called with mu held.
func (t *tally) disarm() {
	if t.armed && t.timer.Stop() {
		t.armed = false
		t.c.q.timers.Done()
	}
}
