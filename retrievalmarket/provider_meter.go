package retrievalmarket

import (
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// channelView is what a deal knows of its channel. The validator reads and
// changes it while graphsync waits, the deal's goroutine the rest of the time.
//
// A deal's bytes are its position in the traversal: the unique bytes of the
// blocks behind the point at which its first channel began to send. Both sides
// count the same, whichever channels carried them:
//
//	|--- skipped by the first channel: base ---|--- the deal's bytes ---->
//	|--- skipped by a later channel --------------------|--- sent ------->
type channelView struct {
	chid       datatransfer.ChannelID
	attached   bool
	restarted  bool // by data-transfer's own restart: its count goes on
	placed     bool // offset is known
	beyond     bool // the current channel skipped what was never sent
	recalled   bool // taken up from disk, and nothing sent since: links is not known
	ready      bool
	account    revalidator.Account
	base       uint64
	baseKnown  bool
	queued     voucher.Bytes  // by data-transfer's count, which has no meter's detail
	links      int64          // furthest link sent
	sent       voucher.Bytes  // by the current channel
	mark       voucher.Bytes  // of sent, by the requests before the channel's latest restart
	position   voucher.Bytes  // where the current channel is in the deal
	probed     voucher.Bytes  // queued when a restart began to probe
	sentBefore voucher.Bytes  // by the channels before it
	offset     voucher.Bytes  // the deal\'s bytes where data-transfer\'s count of the current channel is 0
	ahead      voucher.Bytes  // by how much that count is ahead instead
	started    bool           // the current channel put a block on the wire since it was attached or restarted
	lentAt     voucher.Amount // paid when a restart was last let go with money due
	lent       int            // and how often it was since
	state      ProviderDealState
	instance   int64
}

// measure brings v up to date with what its channel sent. d.mu is held.
func (d *providerDeal) measure(v *channelView) {
	if d.p.cfg.Meter == nil {
		v.account = v.account.Move(v.queued)
		v.started, v.placed = v.started || v.queued > 0, true
		return
	}
	m, ok := d.p.cfg.Meter(v.chid)
	if !ok {
		return
	}
	v.sent = voucher.Bytes(m.Sent)
	if !m.Started {
		return
	}
	if !v.baseKnown {
		v.base, v.baseKnown = m.Skipped, true
	}
	begin := voucher.Bytes(m.Skipped).Sub(voucher.Bytes(v.base)) // of the latest request
	if !v.placed && !v.restarted {
		v.beyond = v.beyond || begin > v.account.Moved && !v.recalled
		v.offset, v.placed = begin, true
	}
	v.started, v.recalled = true, false
	v.links = max(v.links, m.Links)
	v.position = begin.Add(v.sent.Sub(v.mark))
	v.account = v.account.Move(v.position)
}

// place finds out where data-transfer's count of a restarted channel stands in
// the deal: the channel stands still, at queued. What data-transfer remembers of
// a channel over a restart of the process is no better than its last writes, so
// it is not relied on.
func (v *channelView) place(queued voucher.Bytes) {
	if !v.restarted || v.placed || !v.started || queued <= v.probed {
		return
	}
	v.offset, v.ahead, v.placed = v.position.Sub(queued), queued.Sub(v.position), true
}
