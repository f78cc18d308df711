package integration

import (
	"testing"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

func TestSaleStrict(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 16<<20, 256<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	for name, vouchersOnly := range map[string]bool{"stream": false, "vouchers": true} {
		t.Run(name, func(t *testing.T) {
			b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.VouchersOnly = vouchersOnly })
			start := time.Now()
			got, err := b.Get(within(t, longest), market.Request{
				Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0),
			})
			must(t, err)
			t.Logf("%.1f MiB/s, %d payments, %d stalls, first byte %s", float64(size)/(1<<20)/time.Since(start).Seconds(), got.Payments, got.Stalls, got.FirstByte)
			if want := defaultAsk.PricePerByte.Of(voucher.Bytes(size)); uint64(got.TotalReceived) != size || got.FundsSpent != want {
				t.Errorf("%d bytes for %s, want %d for %s", got.TotalReceived, got.FundsSpent, size, want)
			}
			if got.Payments < 16 {
				t.Errorf("%d payments in %d intervals", got.Payments, size>>20)
			}
			untilEnded(t, s.Provider)
			sold, err := s.Deals(t.Context(), 1)
			must(t, err)
			if len(sold) == 0 || sold[0].FundsReceived != got.FundsSpent || sold[0].TotalSent != got.TotalReceived || sold[0].Status != voucher.DealStatusCompleted {
				t.Errorf("provider's book %+v", sold)
			}
		})
	}
}

func TestSaleAhead(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 64<<20, 1<<20)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	start := time.Now()
	got, err := b.Get(within(t, longest), market.Request{
		Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL,
	})
	must(t, err)
	t.Logf("%.1f MiB/s, %d payments, %d stalls, first byte %s", float64(size)/(1<<20)/time.Since(start).Seconds(), got.Payments, got.Stalls, got.FirstByte)
	if want := defaultAsk.PricePerByte.Of(voucher.Bytes(size)); uint64(got.TotalReceived) != size || got.FundsSpent != want {
		t.Errorf("%d bytes for %s, want %d for %s", got.TotalReceived, got.FundsSpent, size, want)
	}
	again, err := b.Get(within(t, longest), market.Request{
		Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL,
	})
	must(t, err)
	if again.TotalReceived != 0 || !again.FundsSpent.IsZero() {
		t.Errorf("the second time %d bytes for %s", again.TotalReceived, again.FundsSpent)
	}
}

func TestSaleFree(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 16<<20, 256<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, voucher.Ask{}, voucher.Amount{})
	b := newBuyer(t, t.TempDir())
	got, err := b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root})
	must(t, err)
	if uint64(got.TotalReceived) != size || !got.FundsSpent.IsZero() {
		t.Errorf("%d bytes for %s", got.TotalReceived, got.FundsSpent)
	}
}
