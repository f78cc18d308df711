package integration

import (
	"testing"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// sellsByStream and buysByStream leave data-transfer out.
func sellsByStream(c *market.ProviderConfig) { c.Transfers, c.UseStore = nil, nil }
func buysByStream(c *market.ClientConfig)    { c.Transfers, c.UseStore = nil, nil }

// TestV0Sale: deals on streams cost what they cost elsewhere, to the attoFIL,
// whether they are paid ahead, strictly after receipt, or not at all.
func TestV0Sale(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 16<<20, 200_000) // divides no interval
	for name, tc := range map[string]struct {
		ask  voucher.Ask
		risk *voucher.Bytes
	}{
		"strict":   {defaultAsk, risk(0)},
		"ahead":    {defaultAsk, risk(4 << 20)},
		"growing":  {voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 20, PaymentIntervalIncrease: 300_000}, risk(0)},
		"at once":  {voucher.Ask{PricePerByte: 7, PaymentInterval: 64 << 20}, risk(0)},
		"for free": {voucher.Ask{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, tc.ask, voucher.OneFIL, sellsByStream)
			b := newBuyer(t, t.TempDir(), buysByStream)
			start := time.Now()
			got, err := b.Get(within(t, longest), market.Request{
				Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: tc.risk,
			})
			must(t, err)
			t.Logf("%.1f MiB/s, %d payments, %d stalls, first byte %s", float64(size)/(1<<20)/time.Since(start).Seconds(), got.Payments, got.Stalls, got.FirstByte)
			if tc.ask.Terms().Free() {
				if uint64(got.TotalReceived) != size || !got.FundsSpent.IsZero() {
					t.Errorf("%d of %d bytes for %s", got.TotalReceived, size, got.FundsSpent)
				}
				return
			}
			settledExactly(t, s, b, size, tc.ask)
		})
	}
}
