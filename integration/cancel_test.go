package integration

import (
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestCancel: a cancelled deal is paid for what arrived, on both sides.
func TestCancel(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 32<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	some := b.received(t, 3<<20)
	ctx := within(t, longest)
	id, err := b.Retrieve(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)})
	must(t, err)
	<-some
	must(t, b.CancelDeal(ctx, id))
	st, err := b.Wait(ctx, id)
	if err == nil || st.Status != voucher.DealStatusCancelled {
		t.Errorf("ended as %s, %v", st.Status, err)
	}
	if st.FundsSpent != defaultAsk.PricePerByte.Of(st.TotalReceived) {
		t.Errorf("%s paid for %d bytes", st.FundsSpent, st.TotalReceived)
	}
}

// TestCancelStored: a deal that does not run is cancelled like one that does: what
// arrived is paid for, and its provider is told, or else the deal says that it was
// not.
func TestCancelStored(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 32<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	cancelStored(t, s, root, "told", false)
	cancelStored(t, s, root, "provider away", true)
}

func cancelStored(t *testing.T, s *seller, root cid.Cid, name string, away bool) {
	t.Helper()
	b := newBuyer(t, t.TempDir())
	some := b.received(t, 3<<20)
	ctx := within(t, longest)
	id, err := b.Retrieve(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)})
	must(t, err)
	<-some
	must(t, b.PauseDeal(ctx, id))
	if away {
		s.stop()
	}
	must(t, b.CancelDeal(ctx, id))
	got, err := b.RetrievalStatus(ctx, id)
	must(t, err)
	if got.Status != voucher.DealStatusCancelled || got.FundsSpent != defaultAsk.PricePerByte.Of(got.TotalReceived) || strings.Contains(got.Message, "could not be told") != away {
		t.Errorf("%s: %s %q, %s for %d bytes", name, got.Status, got.Message, got.FundsSpent, got.TotalReceived)
	}
	if away {
		return
	}
	sold, ok := s.ListDeals()[market.ProviderDealID{From: b.host.ID(), ID: id}]
	if !ok || sold.FundsReceived != got.FundsSpent || sold.Status != voucher.DealStatusCompleted && sold.Status != voucher.DealStatusCancelled {
		t.Errorf("%s: the provider has %s %q for %s", name, sold.Status, sold.Message, sold.FundsReceived)
	}
}
