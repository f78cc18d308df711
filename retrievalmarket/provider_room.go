package retrievalmarket

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// A stranger costs nothing to make, and a deal that waits for money costs a
// stranger nothing, or an attoFIL. So a provider that has no room ends one of those
// for a new deal, and tells its client that it is busy. It does not end them before:
// an honest client may take minutes for a payment channel, and is in nobody's way.
//
//   - A deal in which bytes move, that has paid for its place (placeRate), or whose
//     piece is being unsealed, is not ended.
//   - Of the others the one from the network that has the most of them goes, there
//     the one that has paid least for the time that it has its place, and of those
//     the one that has stood still longest.
//   - It keeps its place for UnpaidFor, unless its network has more of them than
//     that of the new deal has deals: many from one place wait for each other, and
//     not others for them. One whose client is not connected goes before all others
//     of its network, and at once.

const (
	// still is how long no byte has moved in a deal that stands still. A payment of
	// less than what is due, or another channel, is no movement: it costs nothing.
	still = 5 * time.Second
	// placeRate is how many bytes a deal must have paid for, for each second that it
	// has its place, to keep that while it stands still: an interval of 1 MiB is a
	// minute.
	placeRate = 16 << 10
	// beginRate and beginBurst bound how many deals that come to nothing a client may
	// begin, in a second and at once: each lends it an interval.
	beginRate  = 2
	beginBurst = 128
)

// room reports whether one more deal of a client may be live, and makes room for
// it if it can. p.mu is held.
func (p *Provider) room(from peer.ID) error {
	if p.closed {
		return fmt.Errorf("%w: shutting down", voucher.RefusedBusy)
	}
	if !p.begun.take(from) {
		return fmt.Errorf("%w: too many of your deals have come to nothing", voucher.RefusedBusy)
	}
	if err := p.place(from); err != nil {
		p.begun.giveBack(from)
		return err
	}
	return nil
}

// place finds a place for one more deal of a client. p.mu is held.
func (p *Provider) place(from peer.ID) error {
	mine, all := p.staying(from)
	at := origin(p.cfg.Host.Network(), from)
	if mine >= p.cfg.MaxDealsPerPeer && !p.evict(func(d *providerDeal) bool { return d.key.From == from }, at) {
		return fmt.Errorf("%w: %d of your deals are under way", voucher.RefusedBusy, mine)
	}
	if all >= p.cfg.MaxDeals && mine < p.cfg.MaxDealsPerPeer && !p.evict(func(*providerDeal) bool { return true }, at) {
		return fmt.Errorf("%w: %d deals are under way", voucher.RefusedBusy, all)
	}
	return nil
}

// staying counts the deals of a client and all deals, without those that are to
// make room. p.mu is held.
func (p *Provider) staying(from peer.ID) (mine, all int) {
	for key, d := range p.live {
		d.mu.Lock()
		leaving := d.view.leaving
		d.mu.Unlock()
		if leaving {
			continue
		}
		all++
		if key.From == from {
			mine++
		}
	}
	return mine, all
}

// evict has one of the deals that are among make room for one of a client at place,
// and reports whether there was one that may be asked to. p.mu is held.
func (p *Provider) evict(among func(*providerDeal) bool, place string) bool {
	here, now := 0, time.Now()
	var deals []*providerDeal
	var all []waiter
	for _, d := range p.live {
		if d.origin == place {
			here++
		}
		if w, waits := d.waits(now, p.away(d.key.From)); waits && among(d) {
			deals, all = append(deals, d), append(all, w)
		}
	}
	i := leastMissed(all, place, here, now.Add(-p.cfg.UnpaidFor))
	if i < 0 {
		return false
	}
	deals[i].leaveSoon(all[i].away)
	return true
}

// waiter is a deal that stands still and has not paid for its place.
type waiter struct {
	origin string
	since  time.Time // when a byte last moved, or could again
	away   bool      // its client is not connected
	worth  uint64    // bytes that it paid for, for each second that it has its place
}

// less reports whether w is less of a loss than v.
func (w waiter) less(v waiter) bool {
	if w.away != v.away {
		return w.away
	}
	return w.worth < v.worth || w.worth == v.worth && w.since.Before(v.since)
}

// leastMissed returns which of all is to go for a deal from place, from where
// there are deals here already; -1 if none. Where there are no more of a kind than
// that makes, only one that has waited since before a time goes.
func leastMissed(all []waiter, place string, here int, before time.Time) int {
	count := make(map[string]int)
	for _, w := range all {
		count[w.origin]++
	}
	found := -1
	for i, w := range all {
		if found < 0 {
			found = i
			continue
		}
		best := all[found]
		if n := count[w.origin] - count[best.origin]; n > 0 || n == 0 && w.less(best) {
			found = i
		}
	}
	if found < 0 || all[found].origin != place && count[all[found].origin] > here+1 || all[found].away || all[found].since.Before(before) {
		return found
	}
	return -1
}

// waits reports whether a deal stands still, as that of a client that is away does, and
// has not paid for its place. p.mu is held.
func (d *providerDeal) waits(now time.Time, away bool) (w waiter, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := &d.view
	w = waiter{d.origin, v.moved, away, worth(v.account, now.Sub(d.since))}
	return w, !v.leaving && !v.unsealing && (away || now.Sub(v.moved) >= still) && w.worth < placeRate
}

// worth is how many bytes an account has paid for, for each second of a time. What
// was paid for unsealing counts as bytes too.
func worth(a revalidator.Account, held time.Duration) uint64 {
	if a.Paid.IsZero() {
		return 0
	}
	return uint64(a.Terms.Price.Buys(a.Paid)) / uint64(held/time.Second+1)
}

// leaveSoon asks the deal to make room. Its goroutine finds that out whatever else
// waits for it. p.mu is held.
func (d *providerDeal) leaveSoon(away bool) {
	d.mu.Lock()
	d.view.leaving, d.view.away = true, away
	d.mu.Unlock()
	d.inbox.rouse()
}

// makeRoom ends the deal if it was asked to make room, unless it was paid for, or
// moved, since.
func (d *providerDeal) makeRoom() {
	d.mu.Lock()
	leaving, away := d.view.leaving, d.view.away
	d.view.leaving = false
	d.mu.Unlock()
	now := time.Now()
	switch {
	case !leaving || d.unsealing || !away && now.Sub(d.moved) < still || worth(d.deal.Account, now.Sub(d.since)) >= placeRate:
	case d.deal.settled():
		d.done = true // nobody waits for it
	default:
		d.fail(voucher.DealStatusRejected, voucher.RefusedBusy.Message("another deal took the place of this one, which stood still and had paid too little for that"))
	}
}

// cameToSomething reports whether a deal that has ended with a makes no difference to
// how many its client may begin. It has paid for at least half of what it was sent, or
// was sent it for free, or came to its end with nothing to send and nothing to pay: its
// client held everything, and was lent nothing. What it was read is paced elsewhere.
func cameToSomething(a revalidator.Account) bool {
	switch {
	case a.Moved == 0:
		return a.Ended && a.Due().IsZero()
	case a.Terms.Free():
		return true
	}
	return !a.Paid.Less(a.Terms.Cost(a.Moved).Sub(a.Paid))
}

// tally looks at a deal again that ended by its client's word: what was sent to it
// since, within its limit, may have made it one that came to nothing.
func (d *providerDeal) tally() {
	d.mu.Lock()
	before := d.view.account
	d.measure(&d.view)
	after := d.view.account
	d.mu.Unlock()
	if cameToSomething(before) && !cameToSomething(after) {
		d.p.begun.owe(d.key.From)
	}
}

// origin is the network that a peer is in, as far as its address tells: what one
// subscriber can have for nothing.
func origin(n network.Network, p peer.ID) string {
	for _, c := range n.ConnsToPeer(p) {
		ip, err := manet.ToIP(c.RemoteMultiaddr())
		if err != nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			continue
		}
		bits := 24
		if addr = addr.Unmap(); addr.Is6() {
			bits = 48
		}
		if prefix, err := addr.Prefix(bits); err == nil {
			return prefix.String()
		}
	}
	return ""
}
