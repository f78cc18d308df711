package transport

import datatransfer "github.com/filecoin-project/go-data-transfer/v2"

// bound is which bytes of its traversal a channel may be sent, counted as
// Progress.Skipped and Reached are: those of different blocks.
type bound struct {
	set  bool
	own  bool   // from is the channel's own Base
	from uint64 // where the first block may begin
	size uint64 // how many bytes further all but mayPass must begin
	held uint64 // how many bytes further a request may begin
}

// Bound says which bytes of its traversal a channel may be sent, whatever
// data-transfer lets it do: none that begin before from, and, once size bytes behind it
// are reached, two blocks; and no request begins more than held bytes behind it, which is
// what the peer can have. A negative from is where the channel's first block begins. A
// request that sends anything else is ended, and what it sent is not counted as progress:
// Progress.Outside says so. Data-transfer's limit counts blocks that its channel has not
// had before, by their links; who keeps accounts in bytes of the traversal cannot rely on
// it, for a peer can leave out what it likes and come back for it. It returns at once and
// may be called by a validator, and again at any time.
func (e *Exchange) Bound(chid datatransfer.ChannelID, from int64, size, held uint64) {
	m := e.table.meterOf(chid)
	if m == nil {
		return
	}
	b := bound{set: true, own: from < 0, size: size, held: held}
	if from > 0 {
		b.from = uint64(from)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.bound.set || m.bound.size < size {
		m.past = 0 // whoever raises it may want to see where the channel is
	}
	m.bound = b
}

// begins is where the first block may begin. It is called with mu held.
func (m *meter) begins() uint64 {
	switch {
	case !m.bound.own:
		return m.bound.from
	case m.p.Begun:
		return m.p.Base
	}
	return m.p.Skipped
}

// mayPass is how many blocks may be sent behind what was let, each time that this is
// raised: one that shows where the channel is when the node was restarted, and one more
// if a payment came before that was seen.
const mayPass = 2

// isOutside reports whether the latest request's next block is none that it may be sent.
// It is called with mu held, before the block is counted.
func (m *meter) isOutside() bool {
	if !m.bound.set {
		return false
	}
	from, at := m.begins(), m.p.Skipped+m.p.Latest
	switch {
	case at < from, !m.p.Started && at-from > m.bound.held:
		m.p.Outside = true
	case at-from >= m.bound.size:
		m.past++
		m.p.Outside = m.p.Outside || m.past > mayPass
	}
	return m.p.Outside
}
