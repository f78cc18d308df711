package transport

import (
	"sync"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// Progress is how far a channel that this node serves has come, counted from
// the blocks themselves. Bytes are raw block bytes. The market's Progress is the
// same, field for field.
type Progress struct {
	// SkipLinks is how many links the peer asked to leave out at the start of
	// its latest request (graphsync/do-not-send-first-blocks). It is known
	// before data-transfer's validator runs.
	SkipLinks int64

	// Skipped is the size of the different blocks passed so far in the latest
	// request that were left out because of SkipLinks. It is final once Started.
	Skipped uint64

	// Sent is the size of all blocks queued for the wire by all requests of the
	// channel, re-sends included.
	Sent uint64

	// Resent is the part of Sent that lies at links of the traversal which had
	// been sent before in this process.
	Resent uint64

	// Written is the part of Sent that was handed to the network without error.
	Written uint64

	// Latest is the part of Sent that the latest request sent.
	Latest uint64

	// Links is the index of the last link passed in the latest request, the
	// root being 1. Links to blocks that this node lacks are counted.
	Links int64

	// High is the index of the furthest link whose block any request of the channel
	// sent.
	High int64

	// Begun says that a block of any request has gone on the wire, and Base is what
	// the first of them that came so far had Skipped.
	Begun bool
	Base  uint64

	// Reached is the size of the different blocks up to the furthest point that any
	// request of the channel has come to, skipped ones included.
	Reached uint64

	// Started says that a block of the latest request has gone on the wire.
	Started bool

	// Requests is the number of graphsync requests admitted for the channel.
	Requests int

	// Repeats is how many links to blocks that the latest request had passed before
	// it followed, and Endless says that it was stopped because of that.
	Repeats int64
	Endless bool

	// Outside says that a request was stopped because it went where Bound lets none
	// go. What it sent there is in Sent, and in nothing else.
	Outside bool
}

// A meter counts the blocks of one channel.
type meter struct {
	mu     sync.Mutex           // guards the fields below
	p      Progress             // what is shown
	latest graphsync.RequestID  // the request that p.SkipLinks, Skipped, Latest, Links, Started and Repeats describe
	first  int64                // the lowest SkipLinks of all requests
	again  uint64               // of p.Resent, what the latest request sent
	hold   int64                // the link behind which the latest request stops; 0: none
	bound  bound                // what may be sent
	past   int                  // blocks that the latest request sent behind that
	seen   map[cid.Cid]struct{} // blocks skipped in the latest request; nil once it has started
}

// begin makes id the latest request of the channel, with skip links to leave out.
func (m *meter) begin(id graphsync.RequestID, skip int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.p.Requests == 0 || skip < m.first {
		m.first = skip
	}
	m.latest, m.again, m.hold, m.past, m.seen = id, 0, 0, 0, nil
	m.p.SkipLinks, m.p.Skipped, m.p.Latest, m.p.Links, m.p.Started, m.p.Repeats = skip, 0, 0, 0, false, 0
	m.p.Requests++
}

// block counts one block of request id. A block of an older request, which is
// being stopped, counts as sent only. again says that the block was a repetition,
// which nothing is sent for; outside that it is none that the channel may be sent.
func (m *meter) block(id graphsync.RequestID, b graphsync.BlockData) (again, outside bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	index, wire := b.Index(), b.BlockSizeOnWire()
	latest := id == m.latest
	if latest && wire != 0 && m.isOutside() {
		m.p.Sent += wire
		return false, true
	}
	if latest {
		m.p.Links = index
		again = wire == 0 && !(index <= m.p.SkipLinks && m.skip(b))
		m.start(wire)
	}
	if again {
		m.p.Repeats++
	}
	m.p.Sent += wire
	if wire != 0 && index <= m.p.High {
		m.p.Resent += wire
		if latest {
			m.again += wire
		}
	}
	if wire != 0 {
		m.p.High = max(m.p.High, index)
	}
	return again, false
}

// start counts what the latest request sends.
func (m *meter) start(wire uint64) {
	m.p.Latest += wire
	m.p.Started = m.p.Started || wire != 0
	if !m.p.Started {
		return
	}
	m.seen = nil
	if !m.p.Begun {
		m.p.Begun, m.p.Base = true, m.p.Skipped
	}
	m.p.Reached = max(m.p.Reached, m.p.Skipped+m.p.Latest)
}

// resentTooMuch reports whether more was sent again than can have been lost on
// the way: by one request more than window, or by all of them more than that and
// as much as was sent for the first time.
func (m *meter) resentTooMuch(window uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.again > window || m.p.Resent > window+(m.p.Sent-m.p.Resent)
}

// endless reports whether a request has followed more than limit links to blocks
// that it had passed before.
func (m *meter) endless(id graphsync.RequestID, limit int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	over := id == m.latest && m.p.Repeats > limit
	m.p.Endless = m.p.Endless || over
	return over
}

// holdAt makes the latest request stop behind a link; 0 lets it go.
func (m *meter) holdAt(link int64) {
	m.mu.Lock()
	m.hold = link
	m.mu.Unlock()
}

// held reports whether request id is to stop behind a link.
func (m *meter) held(id graphsync.RequestID, link int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return id == m.latest && m.hold != 0 && link >= m.hold
}

// skip counts a block that is left out, once, and reports whether it was the first
// time. The set of those seen is as large as the skipped part of the DAG and
// dropped when it has been passed.
func (m *meter) skip(b graphsync.BlockData) bool {
	link, ok := b.Link().(cidlink.Link)
	if !ok {
		return false
	}
	if m.seen == nil {
		m.seen = make(map[cid.Cid]struct{})
	}
	_, dup := m.seen[link.Cid]
	if !dup {
		m.seen[link.Cid] = struct{}{}
		m.p.Skipped += b.BlockSize()
	}
	return !dup
}

func (m *meter) written(n uint64) {
	m.mu.Lock()
	m.p.Written += n
	m.mu.Unlock()
}

func (m *meter) progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p
}

// lowest returns the smallest SkipLinks of the channel's requests and the
// number of requests.
func (m *meter) lowest() (skip int64, requests int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first, m.p.Requests
}

// isLatest says whether id is the newest request of the channel.
func (m *meter) isLatest(id graphsync.RequestID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest == id
}

// Progress returns what has been counted for a channel. ok is false if no
// request of the channel was admitted in this process, or it was forgotten.
// It may be called at any time, also from a data-transfer validator.
func (e *Exchange) Progress(chid datatransfer.ChannelID) (p Progress, ok bool) {
	m := e.table.meterOf(chid)
	if m == nil {
		return Progress{}, false
	}
	return m.progress(), true
}

// Forget drops the count of a channel. A channel that has a live request keeps
// it until that has ended.
func (e *Exchange) Forget(chid datatransfer.ChannelID) { e.table.forget(chid) }
