package transport

import (
	"sync"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// Progress is how far a channel that this node serves has come, counted from
// the blocks themselves. Bytes are raw block bytes.
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

	// Links is the index of the last link passed in the latest request, the
	// root being 1. Links to blocks that this node lacks are counted.
	Links int64

	// Started says that a block of the latest request has gone on the wire.
	Started bool

	// Requests is the number of graphsync requests admitted for the channel.
	Requests int
}

// A meter counts the blocks of one channel.
type meter struct {
	mu     sync.Mutex           // guards the fields below
	p      Progress             // what is shown
	latest graphsync.RequestID  // the request that p.SkipLinks, Skipped, Links and Started describe
	first  int64                // the lowest SkipLinks of all requests
	high   int64                // the highest link index sent by any request
	seen   map[cid.Cid]struct{} // blocks skipped in the latest request; nil once it has started
}

// begin makes id the latest request of the channel, with skip links to leave out.
func (m *meter) begin(id graphsync.RequestID, skip int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.p.Requests == 0 || skip < m.first {
		m.first = skip
	}
	m.latest, m.seen = id, nil
	m.p.SkipLinks, m.p.Skipped, m.p.Links, m.p.Started = skip, 0, 0, false
	m.p.Requests++
}

// block counts one block of request id and returns the bytes sent again so far.
// A block of an older request, which is being stopped, counts as sent only.
func (m *meter) block(id graphsync.RequestID, b graphsync.BlockData) (resent uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	index, wire := b.Index(), b.BlockSizeOnWire()
	if id == m.latest {
		m.p.Links = index
		if index <= m.p.SkipLinks {
			m.skip(b)
		}
		m.p.Started = m.p.Started || wire != 0
		if m.p.Started {
			m.seen = nil
		}
	}
	m.p.Sent += wire
	if wire != 0 && index <= m.high {
		m.p.Resent += wire
	}
	if wire != 0 && index > m.high {
		m.high = index
	}
	return m.p.Resent
}

// skip counts a block that is left out, once. The set of those seen is as large
// as the skipped part of the DAG and dropped when it has been passed.
func (m *meter) skip(b graphsync.BlockData) {
	link, ok := b.Link().(cidlink.Link)
	if !ok {
		return
	}
	if m.seen == nil {
		m.seen = make(map[cid.Cid]struct{})
	}
	if _, dup := m.seen[link.Cid]; !dup {
		m.seen[link.Cid] = struct{}{}
		m.p.Skipped += b.BlockSize()
	}
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
