package interop

import (
	"slices"
	"testing"
	"time"

	rt "github.com/filecoin-project/go-retrieval-types"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// risk is how many bytes may be paid ahead.
func risk(b voucher.Bytes) *voucher.Bytes { return &b }

func (s sale) request(p *strictProvider) market.Request {
	return market.Request{
		Provider: market.RetrievalPeer{AddrInfo: p.addr()}, Root: p.dag.root, Selector: s.selector(),
		Budget: voucher.Atto(s.total()), AtRisk: risk(0),
	}
}

// TestBuyFromStrictProvider: our client pays a provider of the existing network
// exactly what the table says, on one proposal, and both complete.
func TestBuyFromStrictProvider(t *testing.T) {
	for _, s := range sales {
		t.Run(s.name, func(t *testing.T) { buyExactly(t, s, func(*strictProvider) {}) })
	}
}

// TestBuyFromOlderProvider: nor does it matter what the provider claims. Those
// before data-transfer v2 asked for all that they had sent, and some said Ongoing
// with it.
func TestBuyFromOlderProvider(t *testing.T) {
	for _, s := range sales {
		t.Run(s.name, func(t *testing.T) {
			buyExactly(t, s, func(p *strictProvider) { p.full, p.asks = true, rt.DealStatusOngoing })
		})
	}
}

// buyExactly is one deal, with a provider as it is made to be.
func buyExactly(t *testing.T, s sale, change func(*strictProvider)) {
	dag := newChain(t, s.sizes...)
	provider := newStrictProvider(t, dag, params(s.price, s.unseal, s.interval, s.increase, nil, nil))
	change(provider)
	client := newBuyer(t)
	got, err := client.market.Get(within(t, 30*time.Second), s.request(provider))
	must(t, err)
	checkPaid(t, s, got)
	d := provider.deal(within(t, 10*time.Second))
	if d.state != rt.DealStatusCompleted || d.err != nil || !slices.Equal(d.sent, s.payments) {
		t.Errorf("provider: %s, %v, got %v, want %v", d.state, d.err, d.sent, s.payments)
	}
	if provider.proposals != 1 {
		t.Errorf("%d proposals", provider.proposals)
	}
}

// checkPaid holds our client's deal to the table.
func checkPaid(t testing.TB, s sale, got market.ClientDealState) {
	t.Helper()
	if got.Status != voucher.DealStatusCompleted || uint64(got.TotalReceived) != s.bytes() || got.FundsSpent != voucher.Atto(s.total()) {
		t.Errorf("client: %s (%s), %s for %d bytes, want %d for %d", got.Status, got.Message, got.FundsSpent, got.TotalReceived, s.total(), s.bytes())
	}
}
