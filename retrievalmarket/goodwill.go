package retrievalmarket

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// earnedShare is the share of what a client has paid for that it may be lent: one of so
// many bytes. So one that pays honestly in order to run away in the end has had so much
// off, and a new name, which gets a first interval for nothing, is cheaper for it.
const earnedShare = 32

// leastEarned is what a client must earn in one deal to be remembered for it: so names
// that pay for next to nothing do not drive out others.
const leastEarned = 64 << 10

// goodwill is what a provider lends to clients that have paid in earlier deals, beyond
// each boundary of their next ones. The first payment of a deal comes a round trip after
// its first byte, and without it a provider far away would stand still for as long.
// It is lent once, to all deals of a client together, and what a deal ends owing is
// taken off. It is not on disk, but for what is lent to deals that go on: a provider that
// starts anew lends nothing more yet.
type goodwill struct {
	most Bytes // to one deal; 0 lends nothing

	mu      sync.Mutex
	clients map[peer.ID]standing // guarded by mu
}

// standing is what one client may be lent, and what of it is lent now. It is money and
// not bytes, which may be cheap in one deal and dear in another.
type standing struct{ earned, lent voucher.Amount }

func newGoodwill(most Bytes) *goodwill {
	return &goodwill{most: most, clients: make(map[peer.ID]standing)}
}

// lend returns how many bytes a new deal of a client at price may run beyond each
// boundary. They are lent until the deal is over.
func (g *goodwill) lend(to peer.ID, price voucher.Price) Bytes {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, known := g.clients[to]
	if !known || price == 0 {
		return 0
	}
	lent := min(g.most, price.Buys(s.earned.Sub(s.lent)))
	s.lent = s.lent.Add(price.Of(lent))
	g.clients[to] = s
	return lent
}

// lentBefore takes in what an earlier run lent to a deal that goes on.
func (g *goodwill) lentBefore(to peer.ID, lent Bytes, price voucher.Price) {
	if lent == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.clients[to]
	s.lent = s.lent.Add(price.Of(lent))
	g.clients[to] = s
}

// over takes in that a deal which was lent so many bytes has ended with a.
func (g *goodwill) over(from peer.ID, lent Bytes, a revalidator.Account) {
	if g.most == 0 || a.Terms.Price == 0 {
		return
	}
	paid := a.Terms.Covered(a.Paid)
	g.mu.Lock()
	defer g.mu.Unlock()
	s, known := g.clients[from]
	price, earned := a.Terms.Price, min(paid, a.Moved)/earnedShare
	if !known && earned < leastEarned {
		return
	}
	if !known && len(g.clients) >= throttled {
		g.forget()
	}
	s.lent = s.lent.Sub(price.Of(lent))
	s.earned = s.earned.Add(price.Of(earned)).Sub(price.Of(a.Moved.Sub(paid)))
	g.clients[from] = s
}

// repay gives back what the deal was lent. It is called once, when nothing more is sent.
func (d *providerDeal) repay() {
	d.mu.Lock()
	d.measure(&d.view)
	a := d.view.account
	d.mu.Unlock()
	d.p.trust.over(d.key.From, d.lent, a)
}

// forget makes room: one of those that are lent nothing now has to earn it again. g.mu
// is held.
func (g *goodwill) forget() {
	for p, s := range g.clients { // in no order
		if s.lent.IsZero() {
			delete(g.clients, p)
			return
		}
	}
}
