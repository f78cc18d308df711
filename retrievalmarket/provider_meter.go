package retrievalmarket

import (
	"time"

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
	restarted  bool          // by data-transfer's own restart: its count goes on
	placed     bool          // offset is known
	beyond     bool          // the current channel skipped what was never sent
	behind     bool          // it began further back than what can have been lost
	before     bool          // it began before the deal did
	endless    bool          // it was stopped because it follows links without end
	outside    bool          // it was stopped because it went where it may not
	held       bool          // it may not go beyond links, see Hold
	pinned     bool          // first is known
	recalled   bool          // taken up from disk, and nothing sent since: links is not known
	let        voucher.Bytes // of one that was, how far it was let go at most
	ready      bool
	account    revalidator.Account
	base       uint64
	baseKnown  bool
	queued     voucher.Bytes // by data-transfer's count, which has no meter's detail
	first      int64         // links that the deal's first channel skips, none of the others fewer
	links      int64         // furthest link sent
	sent       voucher.Bytes // by the current channel
	position   voucher.Bytes // where the current channel's latest request is in the deal
	probed     voucher.Bytes // queued when a restart began to probe
	sentBefore voucher.Bytes // by the channels before it
	offset     voucher.Bytes // the deal\'s bytes where data-transfer\'s count of the current channel is 0
	ahead      voucher.Bytes // by how much that count is ahead instead
	started    bool          // the current channel put a block on the wire since it was attached or restarted
	returnedAt voucher.Bytes // moved when the client last came back
	state      ProviderDealState
	instance   int64
	moved      time.Time // when a byte last moved
	unsealing  bool
	leaving    bool // it was asked to make room for another deal
	away       bool // as its client was not connected
}

// measure brings v up to date with what its channel sent. d.mu is held.
func (d *providerDeal) measure(v *channelView) {
	meter := d.p.carrierOf(v.chid).meter()
	if meter == nil {
		v.account = v.account.Move(v.queued)
		v.started, v.placed = v.started || v.queued > 0, true
		return
	}
	m, ok := meter(v.chid)
	if !ok {
		return
	}
	v.sent, v.endless = voucher.Bytes(m.Sent), v.endless || m.Endless
	v.outside = v.outside || m.Outside
	if !m.Begun {
		return
	}
	if !v.baseKnown {
		v.base, v.baseKnown = m.Base, true
	}
	v.links = max(v.links, m.High)
	if m.Started {
		d.locate(v, m)
	}
	v.account = v.account.Move(voucher.Bytes(m.Reached).Sub(voucher.Bytes(v.base)))
}

// locate finds out where in the deal the channel's latest request is.
func (d *providerDeal) locate(v *channelView, m Progress) {
	begin := voucher.Bytes(m.Skipped).Sub(voucher.Bytes(v.base))
	v.before = v.before || m.Skipped < v.base // those are nobody's bytes: no account has them
	if !v.started {
		v.behind = v.behind || v.returnedAt.Sub(begin) > d.p.cfg.ResendAllowance
		v.beyond = v.beyond || begin > v.canHold()
	}
	if !v.placed && !v.restarted {
		v.offset, v.placed = begin, true
	}
	v.started, v.recalled = true, false
	v.position = begin.Add(voucher.Bytes(m.Latest))
}

// canHold is how many of the deal's bytes its client can have been sent. After a restart
// of the provider, which sent what is not on record, that is what it was let.
func (v *channelView) canHold() voucher.Bytes {
	switch {
	case !v.recalled:
		return v.account.Moved
	case v.let == 0: // a program wrote the record that did not say
		return voucher.MaxBytes
	}
	return max(v.account.Moved, v.let.Add(largestBlock))
}

// largestBlock is what a block has at most, as other protocols have it, that crosses a limit.
const largestBlock = 2 << 20

// overdone is why a client that asks for what it asks for is not served any more,
// in words for it; "" if it is.
func (v *channelView) overdone() string {
	switch {
	case v.beyond:
		return voucher.RefusedResume.Message("the client left out blocks that it was not sent: make a new deal")
	case v.outside, v.before:
		return voucher.RefusedResume.Message("the client asks for what its deal does not have, or what it left out: make a new deal")
	case v.behind:
		return voucher.RefusedResume.Message("the client asks again for more than can have been lost on the way: make a new deal")
	case v.endless:
		return voucher.RefusedSelector.Message("the selection follows links to the same blocks without end: ask for a part of it")
	}
	return ""
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
