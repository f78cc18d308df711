package integration

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestLastVoucher: a client that pays by vouchers alone, which nobody
// acknowledges, loses its connection when everything has come, at its last
// payment, for a moment or longer than it waits for the last word. The provider
// has all of the money all the same.
func TestLastVoucher(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	for carrier, options := range map[string]struct {
		sell sellerOption
		buy  buyerOption
	}{
		"data-transfer": {func(*market.ProviderConfig) {}, func(c *market.ClientConfig) { c.VouchersOnly = true }},
		"v0":            {sellsByStream, buysByStream},
	} {
		for _, away := range []time.Duration{0, time.Second, 12 * time.Second} {
			for _, at := range []voucher.Bytes{voucher.Bytes(shop.dealSize) - 1, voucher.Bytes(shop.dealSize) - shopBlock} {
				t.Run(fmt.Sprintf("%s, away %s at %d", carrier, away, at), func(t *testing.T) {
					t.Parallel()
					lastVoucher(t, shop, away, at, options.sell, options.buy)
				})
			}
		}
	}
}

func lastVoucher(t *testing.T, shop *shop, away time.Duration, at voucher.Bytes, sell sellerOption, buy buyerOption) {
	t.Helper()
	ctx := within(t, longest)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	sel := newSeller(t, t.TempDir(), hiddenHost(t, key), shop.cars, shopAsk, voucher.OneFIL, sell)
	proxy, addr := proxyTo(t, sel.host)
	b := newBuyer(t, t.TempDir(), buy)
	here, cut := b.received(t, at), make(chan struct{})
	go func() {
		defer close(cut)
		select {
		case <-here:
		case <-ctx.Done():
			return
		}
		if away > 0 {
			proxy.refuse(true)
			time.AfterFunc(away, func() { proxy.refuse(false) })
		}
		proxy.cut()
	}()
	got, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: addr}, Root: shop.deal, Budget: voucher.OneFIL, AtRisk: risk(0)})
	<-cut
	want := shopAsk.PricePerByte.Of(voucher.Bytes(shop.dealSize))
	if err != nil || uint64(got.TotalReceived) != shop.dealSize || got.FundsSpent != want {
		t.Errorf("client: %d bytes for %s: %v", got.TotalReceived, got.FundsSpent, err)
	}
	sold, err := sel.Deals(ctx, 10) // another one if the last word of the first was lost
	must(t, err)
	var earned voucher.Amount
	for _, d := range sold {
		earned = earned.Add(d.FundsReceived)
	}
	if earned != want {
		t.Errorf("the provider has %s of %s; the client says %q", earned, want, got.Message)
	}
}
