package retrievalmarket

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/tollgraph/tollgraph/voucher"
)

// A stranger costs nothing to make, and a deal that waits for its first payment
// costs a stranger nothing. So a provider that has no room ends one of those for a
// new deal, and tells its client that it is busy. It does not end them before: an
// honest client may take minutes for a payment channel, and is in nobody's way.
//
//   - A deal that has paid, or whose piece is being unsealed, is never ended.
//   - Of the others that stand still the one from the network that has the most of
//     them goes, and there the one that has stood still longest.
//   - It keeps its place for UnpaidFor, unless its network has more of them than
//     that of the new deal has deals: many from one place wait for each other, and
//     not others for them.

// still is how long nothing has moved in a deal that stands still.
const still = 5 * time.Second

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
	if mine >= p.cfg.MaxDealsPerPeer && !p.evict(func(d *providerDeal) bool { return d.key.From == from }, from) {
		return fmt.Errorf("%w: %d of your deals are under way", voucher.RefusedBusy, mine)
	}
	if all >= p.cfg.MaxDeals && mine < p.cfg.MaxDealsPerPeer && !p.evict(func(*providerDeal) bool { return true }, from) {
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

// evict asks one of the deals that are among to make room, and reports whether
// there was one that may be asked. p.mu is held.
func (p *Provider) evict(among func(*providerDeal) bool, from peer.ID) bool {
	place, here := origin(p.cfg.Host.Network(), from), 0
	var deals []*providerDeal
	var all []waiter
	for _, d := range p.live {
		if d.origin == place {
			here++
		}
		if since, waits := d.waits(); waits && among(d) {
			deals, all = append(deals, d), append(all, waiter{d.origin, since})
		}
	}
	i := leastMissed(all, place, here, time.Now().Add(-p.cfg.UnpaidFor))
	if i < 0 {
		return false
	}
	d := deals[i]
	d.mu.Lock()
	d.view.leaving = d.inbox.post(makeRoomNote{})
	d.mu.Unlock()
	return true
}

// waiter is a deal that stands still and has paid nothing.
type waiter struct {
	origin string
	since  time.Time
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
		if n := count[w.origin] - count[best.origin]; n > 0 || n == 0 && w.since.Before(best.since) {
			found = i
		}
	}
	if found < 0 || all[found].origin != place && count[all[found].origin] > here+1 || all[found].since.Before(before) {
		return found
	}
	return -1
}

// waits reports whether a deal stands still and has paid nothing, and since when.
func (d *providerDeal) waits() (since time.Time, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := &d.view
	return v.active, !v.leaving && !v.unsealing && v.account.Paid.IsZero() && time.Since(v.active) >= still
}

type makeRoomNote struct{}

// makeRoom ends the deal, unless it was paid for since it was asked to.
func (d *providerDeal) makeRoom() {
	switch {
	case d.deal.settled():
		d.done = true // nobody waits for it
	case d.deal.Account.Paid.IsZero() && !d.unsealing:
		d.fail(voucher.DealStatusRejected, voucher.RefusedBusy.Message("another deal took the place of this one, which had paid nothing"))
	default:
		d.mu.Lock()
		d.view.leaving = false
		d.mu.Unlock()
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
