package integration

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestLastWords: a client that has everything, and whose money is all booked, need
// not wait until both sides have closed the deal. The same request again buys
// nothing, and a client that is closed at once has closed the deal before.
func TestLastWords(t *testing.T) {
	for name, then := range map[string]func(context.Context, *testing.T, *buyer, market.Request){
		"closed": func(_ context.Context, _ *testing.T, b *buyer, _ market.Request) { b.stop() },
		"asked again": func(ctx context.Context, t *testing.T, b *buyer, r market.Request) {
			again, err := b.Get(ctx, r)
			if err != nil || again.TotalReceived != 0 || !again.FundsSpent.IsZero() {
				t.Errorf("again: %d bytes for %s, %v", again.TotalReceived, again.FundsSpent, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const trip = 800 * time.Millisecond
			car, root, size := makeCAR(t, t.TempDir(), 10<<20, 256<<10)
			key, _, err := crypto.GenerateEd25519Key(rand.Reader)
			must(t, err)
			s := newSeller(t, t.TempDir(), hiddenHost(t, key), []string{car}, defaultAsk, voucher.OneFIL)
			proxy, addr := proxyTo(t, s.host)
			proxy.latency(trip / 2)
			b := newBuyer(t, t.TempDir())
			ctx := within(t, longest)
			request := market.Request{Provider: market.RetrievalPeer{AddrInfo: addr}, Root: root, Budget: voucher.OneFIL}
			got, err := b.Get(ctx, request)
			must(t, err)
			id := market.ProviderDealID{From: b.host.ID(), ID: got.ID}
			if d := s.ListDeals()[id]; d.Status == voucher.DealStatusCompleted {
				t.Errorf("the client waited for the last word: %+v", d)
			}
			if got.Status != voucher.DealStatusCompleted || got.Open() {
				t.Errorf("to who asked for it the deal is %s", got.Status)
			}
			settledExactly(t, s, b, size, defaultAsk)
			then(ctx, t, b, request)
			if d := s.ListDeals()[id]; d.Status != voucher.DealStatusCompleted {
				t.Errorf("the last word did not come: %+v", d)
			}
		})
	}
}
