package integration

import (
	"context"
	"crypto/rand"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// settledExactly: both books hold exactly the price of the DAG.
func settledExactly(t *testing.T, s *seller, b *buyer, size uint64, ask voucher.Ask) {
	t.Helper()
	bought, err := b.Deals(t.Context(), 100)
	must(t, err)
	sold, err := s.Deals(t.Context(), 100)
	must(t, err)
	var spent, earned voucher.Amount
	var received voucher.Bytes
	for _, d := range bought {
		spent, received = spent.Add(d.FundsSpent), received+d.TotalReceived
	}
	for _, d := range sold {
		earned = earned.Add(d.FundsReceived)
	}
	if want := ask.Terms().Cost(voucher.Bytes(size)); spent != want || earned != want || uint64(received) != size {
		t.Errorf("%d of %d bytes, spent %s, earned %s, want %s\n%+v\n%+v", received, size, spent, earned, want, bought, sold)
	}
}

// TestClientStopsAndResumes: a client that is closed in the middle, again and
// again, pays each byte once.
func TestClientStopsAndResumes(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]*voucher.Bytes{"strict": risk(0), "ahead": nil} {
		t.Run(name, func(t *testing.T) {
			car, root, size := makeCAR(t, t.TempDir(), 24<<20, 64<<10)
			s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
			dir := t.TempDir()
			key, _, err := crypto.GenerateEd25519Key(rand.Reader)
			must(t, err)
			for stop := voucher.Bytes(3 << 20); ; stop += 5 << 20 {
				b := newBuyerOn(t, dir, newHostWithKey(t, key, false))
				ctx, cancel := context.WithCancel(within(t, longest))
				defer b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
					if d.TotalReceived > stop {
						cancel()
					}
				})()
				_, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: ahead})
				cancel()
				if err == nil {
					settledExactly(t, s, b, size, defaultAsk)
					break
				}
				if ctx.Err() == nil {
					t.Fatal(err)
				}
				b.stop()
			}
		})
	}
}

// TestProviderRestarts: the provider goes away in the middle and comes back on
// the same address; the client goes on by itself.
func TestProviderRestarts(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 24<<20, 64<<10)
	dir := t.TempDir()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	addr := freeAddress(t)
	s := newSeller(t, dir, newHostAt(t, key, addr), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	id := b.until(ctx, t, s, root, 8<<20)
	s.stop()
	again := newSeller(t, dir, newHostAt(t, key, addr), []string{car}, defaultAsk, voucher.OneFIL)
	_, err = b.Wait(ctx, id)
	must(t, err)
	settledExactly(t, again, b, size, defaultAsk)
}

// TestProviderStarts: a client comes back to a provider that is starting: its host
// is there, and what carries deals, but not yet the market. It is not taken for one
// of another kind, with which the deal could not go on.
func TestProviderStarts(t *testing.T) {
	car, root, size := makeCAR(t, t.TempDir(), 24<<20, 64<<10)
	dir := t.TempDir()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	s := newSeller(t, dir, newHostWithKey(t, key, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	id := b.until(ctx, t, s, root, 8<<20)
	addrs := s.host.Addrs()
	s.stop()
	starting := newStack(t, newHostAt(t, key, addrs[0].String()), dir)
	refused := make(chan struct{}, 1)
	t.Cleanup(b.node.Transfers().SubscribeToEvents(func(ev datatransfer.Event, _ datatransfer.ChannelState) {
		if ev.Code != datatransfer.Error {
			return
		}
		select {
		case refused <- struct{}{}:
		default:
		}
	}))
	wait(ctx, t, refused)
	again := newSellerOn(t, starting, dir, []string{car}, defaultAsk, voucher.OneFIL)
	_, err = b.Wait(ctx, id)
	must(t, err)
	settledExactly(t, again, b, size, defaultAsk)
	if sold := again.ListDeals(); len(sold) != 1 {
		t.Errorf("%d deals, want one: %+v", len(sold), sold)
	}
}
