package integration

import (
	"errors"
	"testing"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestBudgetOverDeals: the budget is that of what was asked for, not of one
// deal. A provider that cannot take up a deal where it stood, and asks twice as
// much for a new one, does not get more than is left: not by the retrieval that it
// happened to, and not by the same one again.
func TestBudgetOverDeals(t *testing.T) {
	car, root, size := makeCAR(t, t.TempDir(), 8<<20, 64<<10)
	h := newHost(t, true)
	s := newSeller(t, t.TempDir(), h, []string{car}, defaultAsk, voucher.OneFIL, func(c *market.ProviderConfig) { c.Meter = nil }) // takes up nothing
	proxy, addr := proxyTo(t, h)
	b := newBuyer(t, t.TempDir())
	half := b.received(t, voucher.Bytes(size/2))
	ctx := within(t, time.Minute)
	whole := defaultAsk.Terms().Cost(voucher.Bytes(size))
	budget := whole.Add(defaultAsk.Terms().Cost(voucher.Bytes(size / 4)))
	request := market.Request{Provider: market.RetrievalPeer{AddrInfo: addr}, Root: root, Budget: budget, AtRisk: risk(0)}
	proxy.latency(2 * time.Millisecond)
	id, err := b.Retrieve(ctx, request)
	must(t, err)
	select {
	case <-half:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	s.SetPricePerByte(2 * defaultAsk.PricePerByte)
	proxy.cut()
	_, first := b.Wait(ctx, id)
	_, second := b.Get(ctx, request)
	for _, err := range []error{first, second} {
		if !errors.Is(err, market.ErrBudget) {
			t.Errorf("got %v, want %v", err, market.ErrBudget)
		}
	}
	if spent := b.spent(t); budget.Less(spent) {
		t.Errorf("%s spent of %s", spent, budget)
	}
	request.Budget = whole.Add(whole)
	got, err := b.Get(ctx, request)
	must(t, err)
	if spent := b.spent(t); request.Budget.Less(spent) || spent != got.SpentBefore.Add(got.FundsSpent) || spent.Less(whole) {
		t.Errorf("%s spent of %s, %s before and %s by the last deal", spent, request.Budget, got.SpentBefore, got.FundsSpent)
	}
}

// spent is what all deals of b paid.
func (b *buyer) spent(t *testing.T) (sum voucher.Amount) {
	t.Helper()
	deals, err := b.Deals(t.Context(), 1000)
	must(t, err)
	for _, d := range deals {
		sum = sum.Add(d.FundsSpent)
	}
	return sum
}
