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
	recalled   bool // taken up from disk, and nothing sent since: links is not known
	ready      bool
	account    revalidator.Account
	base       uint64
	baseKnown  bool
	queued     voucher.Bytes // by data-transfer's count, which has no meter's detail
	links      int64         // furthest link sent
	sent       voucher.Bytes // by the current channel
	sentBefore voucher.Bytes // by the channels before it
	offset     voucher.Bytes // the deal's bytes before the current channel's first
	started    bool          // the current channel put a block on the wire
	state      ProviderDealState
	instance   int64
}

// measure brings v up to date with what its channel sent. d.mu is held.
func (d *providerDeal) measure(v *channelView) {
	if d.p.cfg.Meter == nil {
		v.account = v.account.Move(v.queued)
		v.started = v.started || v.queued > 0
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
	v.started, v.recalled = true, false
	v.links = max(v.links, m.Links)
	v.offset = voucher.Bytes(m.Skipped).Sub(voucher.Bytes(v.base))
	v.account = v.account.Move(v.offset.Add(v.sent))
}
