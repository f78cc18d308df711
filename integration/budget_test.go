package integration

import (
	"errors"
	"testing"
	"time"

	"github.com/tollgraph/tollgraph/payment"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestBudgetOverDeals: the budget is that of what was asked for, not of one
// deal, and so is what the repo allows for one purchase. A provider that cannot
// take up a deal where it stood, and asks twice as much for a new one, does not get
// more than is left: not by the retrieval that it happened to, and not by the same
// one again.
func TestBudgetOverDeals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		allow func(*testing.T, *buyer, *market.Request, voucher.Amount)
		want  error
	}{
		"budget": {func(_ *testing.T, _ *buyer, r *market.Request, most voucher.Amount) { r.Budget = most }, market.ErrBudget},
		"policy": {func(t *testing.T, b *buyer, r *market.Request, most voucher.Amount) {
			r.Budget = voucher.OneFIL
			must(t, b.wallet.SetPolicy(t.Context(), payment.Policy{PerDeal: most}))
		}, payment.ErrBudget},
	} {
		t.Run(name, func(t *testing.T) { budgetOverDeals(t, c.allow, c.want) })
	}
}

func budgetOverDeals(t *testing.T, allow func(*testing.T, *buyer, *market.Request, voucher.Amount), want error) {
	car, root, size := makeCAR(t, t.TempDir(), 8<<20, 64<<10)
	h := newHost(t, true)
	s := newSeller(t, t.TempDir(), h, []string{car}, defaultAsk, voucher.OneFIL, func(c *market.ProviderConfig) { c.Meter = nil }) // takes up nothing
	proxy, addr := proxyTo(t, h)
	b := newBuyer(t, t.TempDir())
	half := b.received(t, voucher.Bytes(size/2))
	ctx := within(t, longest)
	whole := defaultAsk.Terms().Cost(voucher.Bytes(size))
	most := whole.Add(defaultAsk.Terms().Cost(voucher.Bytes(size / 4)))
	request := market.Request{Provider: market.RetrievalPeer{AddrInfo: addr}, Root: root, AtRisk: risk(0)}
	allow(t, b, &request, most)
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
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if spent := b.spent(t); most.Less(spent) {
		t.Errorf("%s spent of %s", spent, most)
	}
	most = whole.Add(whole)
	allow(t, b, &request, most)
	got, err := b.Get(ctx, request)
	must(t, err)
	if spent := b.spent(t); most.Less(spent) || spent != got.SpentBefore.Add(got.FundsSpent) || spent.Less(whole) {
		t.Errorf("%s spent of %s, %s before and %s by the last deal", spent, most, got.SpentBefore, got.FundsSpent)
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
