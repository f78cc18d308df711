package transport

import datatransfer "github.com/filecoin-project/go-data-transfer/v2"

// bound is which bytes of its traversal a channel may be sent, counted as
// Progress.Skipped and Reached are: those of different blocks.
type bound struct {
	set  bool
	own  bool   // from is the channel's own Base
	from uint64 // where the first block may begin
	size uint64 // how many bytes further all but one must begin
}

// Bound says which bytes of its traversal a channel may be sent, whatever
// data-transfer lets it do: none that begin before from, and, once size bytes behind it
// are reached, one block. A negative from is where the channel's first block begins. A
// request that sends more than that is ended. Data-transfer's limit counts blocks that
// its channel has not had before, by their links; who keeps accounts in bytes of the
// traversal cannot rely on it, for a peer can leave out what it likes and come back for
// it. It returns at once and may be called by a validator, and again at any time.
func (e *Exchange) Bound(chid datatransfer.ChannelID, from int64, size uint64) {
	m := e.table.meterOf(chid)
	if m == nil {
		return
	}
	b := bound{set: true, own: from < 0, size: size}
	if from > 0 {
		b.from = uint64(from)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b != m.bound {
		m.bound, m.past = b, 0
	}
}

// isOutside reports whether the latest request's latest block, of wire bytes, is none
// that it may be sent. It is called with mu held, when the block is counted.
func (m *meter) isOutside(wire uint64) bool {
	if !m.bound.set {
		return false
	}
	from, at := m.bound.from, m.p.Skipped+m.p.Latest-wire
	if m.bound.own {
		from = m.p.Base
	}
	switch {
	case at < from:
		return true
	case at-from >= m.bound.size:
		m.past++
	}
	return m.past > 1
}
