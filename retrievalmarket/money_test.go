package retrievalmarket

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/voucher"
)

// market is a deal between the two sides' own logic, with what would be around
// them: a wire that loses, doubles and reorders payments, processes that crash at
// any moment, and disks that keep what was synced.
type market struct {
	t      *rapid.T
	terms  voucher.Terms
	total  Bytes // of the selection
	block  Bytes // the largest
	budget Amount
	rides  bool // payments ride along

	client  clientDeal
	disk    record // the client's, as it was last written
	seen    Bytes  // arrived, durable or not
	durable Bytes
	lane    Amount // signed, and durable before it leaves

	provider Deal
	book     record // the provider's
	till     Amount // booked, durable
	at       Bytes  // where its channel is in the selection
	wire     Bytes  // sent on the channel, not arrived
	recalled bool   // the provider restarted, and sent nothing since
	restarts Bytes  // of the provider
	mail     []Amount
}

func newMarket(t *rapid.T) *market {
	m := &market{
		t: t, total: Bytes(rapid.IntRange(1, 5000).Draw(t, "total")), block: Bytes(rapid.IntRange(1, 300).Draw(t, "block")),
		terms: voucher.Terms{Price: voucher.Price(rapid.IntRange(1, 9).Draw(t, "price")), Interval: Bytes(rapid.IntRange(1, 700).Draw(t, "interval")),
			Increase: Bytes(rapid.IntRange(0, 300).Draw(t, "increase")), Unseal: voucher.Atto(uint64(rapid.IntRange(0, 1).Draw(t, "unseal")) * 77)},
	}
	whole := m.terms.Cost(m.total)
	m.budget = whole
	if rapid.Bool().Draw(t, "poor") {
		m.budget = voucher.Atto(rapid.Uint64Range(0, 50_000).Draw(t, "budget")).Min(whole)
	}
	m.rides = rapid.Bool().Draw(t, "rides along")
	m.disk = record{Budget: m.budget, AtRisk: uint64(rapid.IntRange(0, 1500).Draw(t, "risk")), Phase: Moving}
	if rapid.Bool().Draw(t, "quoted") {
		m.disk.Expected = uint64(m.total)
	}
	m.book = record{Phase: Moving, Ready: true}
	m.restartClient()
	m.restartProvider()
	m.recalled, m.restarts = false, 0
	return m
}

// restartClient is a client that comes up again: from its record, its lane and
// what is durable of its store.
func (m *market) restartClient() {
	m.client = clientDeal{courier: &courier{asVouch: m.rides}, rec: m.disk, deal: m.disk.deal(m.terms, 0)}
	m.client.purse = m.client.newPurse()
	m.client.deal = m.client.deal.step(paid{m.lane})
	m.seen = m.durable
	m.reconnect()
}

// restartProvider is a provider that comes up again: from its record.
func (m *market) restartProvider() {
	m.provider = m.book.deal(m.terms, 0)
	m.recalled, m.restarts = true, m.restarts+1
	m.reconnect()
}

// reconnect opens another channel: what was on the wire is lost, and the transfer
// goes on behind what the client holds.
func (m *market) reconnect() { m.at, m.wire = m.seen, 0 }

// send puts the next block on the wire if the provider's account lets it. After a
// restart it does not know how far it was before one block has shown it.
func (m *market) send() bool {
	again := m.at < m.provider.Account.Moved // what was sent before goes again without charge
	probe := m.recalled && !m.provider.Account.Paid.Less(m.terms.Unseal)
	if m.at == m.total || !again && !probe && m.provider.Account.Moved >= m.provider.verdict().Limit {
		return false
	}
	m.recalled = false
	n := min(m.total-m.at, Bytes(rapid.IntRange(1, int(m.block)).Draw(m.t, "size")))
	if again {
		n = min(n, m.provider.Account.Moved-m.at)
	}
	m.at, m.wire = m.at+n, m.wire+n
	m.provider = m.provider.step(moved{m.at})
	return true
}

// arrive takes some of what is on the wire.
func (m *market) arrive(n Bytes) {
	n = min(n, m.wire)
	m.seen, m.wire = m.seen+n, m.wire-n
}

// pay is the client's clientDeal.pay: blocks are durable before they are paid for,
// and the voucher before it leaves.
func (m *market) pay(still bool) bool {
	c := &m.client
	c.payAll = still
	if m.seen == m.total {
		m.sync()
		c.deal = c.deal.step(ended{m.seen})
	}
	if _, wanted := c.wants(c.deal.Account.Move(m.seen)); !wanted {
		return false
	}
	m.sync()
	amount, wanted := c.wants(c.deal.Account)
	if !wanted {
		return false
	}
	m.lane = m.lane.Max(amount)
	c.deal = c.deal.step(paid{m.lane})
	m.mail = append(m.mail, m.lane)
	return true
}

func (m *market) sync() {
	m.durable = m.seen
	m.client.deal = m.client.deal.step(moved{m.durable})
}

// book takes one payment, as takePayment does: stored, then counted.
func (m *market) booked(amount Amount) {
	m.till = m.till.Max(amount)
	m.provider = m.provider.step(paid{m.till})
	m.book.keep(m.provider)
}

// check is what must hold at any moment, whatever happened.
func (m *market) check() {
	risk := Bytes(m.disk.AtRisk)
	if m.budget.Less(m.lane) {
		m.t.Fatalf("%s signed, the budget is %s", m.lane, m.budget)
	}
	if most := m.terms.Cost(m.durable.Add(risk)); most.Less(m.lane) {
		m.t.Fatalf("%s signed for %d bytes and %d at risk: more than %s", m.lane, m.durable, risk, most)
	}
	if whole := m.terms.Cost(m.total); m.rides && m.durable < m.total && m.total > 1 && !m.lane.Less(whole) {
		m.t.Fatalf("%s signed, which is for everything, and %d bytes of %d are here", m.lane, m.durable, m.total)
	}
	if m.lane.Less(m.till) {
		m.t.Fatalf("the provider has %s of %s", m.till, m.lane)
	}
	if limit := m.boundary(); m.at > limit+m.block*(1+m.restarts) {
		m.t.Fatalf("%d bytes sent, %s paid lets it send %d and a block of %d, and one more after each of %d restarts", m.at, m.till, limit, m.block, m.restarts)
	}
}

// boundary is where the interval ends that begins behind what is paid for, counted
// one by one.
func (m *market) boundary() Bytes {
	if m.till.Less(m.terms.Unseal) {
		return 0
	}
	covered := Bytes(m.till.Sub(m.terms.Unseal).Big().Uint64()) / Bytes(m.terms.Price)
	end, interval := m.terms.Interval, m.terms.Interval
	for end <= covered {
		interval += m.terms.Increase
		end += interval
	}
	return end
}

// happen is one thing that happens.
func (m *market) happen() {
	switch rapid.SampledFrom([]string{"send", "send", "arrive", "arrive", "pay", "pay", "book", "book", "keep", "lose", "cut", "client", "provider"}).Draw(m.t, "next") {
	case "send":
		m.send()
	case "arrive":
		m.arrive(Bytes(rapid.IntRange(1, 600).Draw(m.t, "arrives")))
	case "pay":
		m.pay(rapid.Bool().Draw(m.t, "still"))
	case "book": // any that was ever sent, as often as it likes
		if len(m.mail) > 0 {
			m.booked(m.mail[rapid.IntRange(0, len(m.mail)-1).Draw(m.t, "mail")])
		}
	case "keep":
		m.disk.keep(m.client.deal)
	case "lose":
		m.mail = nil
	case "cut":
		m.reconnect()
	case "client":
		m.restartClient()
	case "provider":
		m.restartProvider()
	}
	m.check()
}

// TestMoney: over a whole deal with crashes of both sides, a wire that loses,
// doubles and reorders, and restarts from whatever was on disk, no more is ever
// signed than the budget, or than what is held and the risk cost; no more is sent
// than is paid for, an interval and a block, and a block after each restart of the
// provider; and left alone the deal ends settled to the byte, or waits for money.
func TestMoney(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMarket(t)
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			m.happen()
		}
		m.reconnect()
		for range 3 * (5000 + 1) { // nothing happens any more but the deal
			m.booked(m.lane)
			moves := m.send()
			m.arrive(m.wire)
			again := m.pay(!moves)
			m.check()
			if !moves && !again {
				break
			}
		}
		m.booked(m.lane)
		whole := m.terms.Cost(m.total)
		switch {
		case m.seen == m.total && m.lane == whole && m.till == whole:
		case m.budget.Less(whole) && !m.client.purse.Short(m.client.deal.Account.Move(m.seen)).IsZero():
		default:
			t.Fatalf("%d of %d bytes, %s signed, %s booked, the whole costs %s, the budget is %s\n%+v\n%+v",
				m.seen, m.total, m.lane, m.till, whole, m.budget, m.client.deal, m.provider)
		}
	})
}
