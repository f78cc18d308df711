package transport

import (
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime"
)

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
	age := now.Sub(t.since)
	full := t.bytes >= 4*cfg.Bytes || t.bytes >= cfg.Bytes && age >= flushEvery || t.blocks >= cfg.Blocks || age >= cfg.Delay
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
	if cfg := t.c.q.cfg; now.Sub(t.last) >= cfg.Idle || now.Sub(t.since) >= cfg.Delay {
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
