package integration

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// trader is a node that sells and buys: client and provider on one host, one
// data-transfer manager, one database and one key.
type trader struct {
	*stack
	client   *market.Client
	provider *market.Provider
	root     cid.Cid // what it sells
	size     uint64
}

func newTrader(t *testing.T, size int64) *trader {
	t.Helper()
	dir := t.TempDir()
	tr := &trader{stack: newStack(t, newHost(t, true), dir)}
	var car string
	car, tr.root, tr.size = makeCAR(t, dir, size, 64<<10)
	pieces, err := piece.Open(t.Context(), piece.Config{Paths: []string{car}, IndexDir: filepath.Join(dir, "index"), Logger: testLogger()})
	must(t, err)
	db, err := market.OpenDatabase(filepath.Join(dir, "tollgraph.db"))
	must(t, err)
	must(t, payment.Migrate(t.Context(), db))
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	must(t, err)
	wallet, err := payment.NewWallet(db, key, payment.WalletConfig{})
	must(t, err)
	till, err := payment.NewTill(db, key.Address(), payment.TillConfig{DefaultCredit: voucher.OneFIL})
	must(t, err)
	tr.client, err = market.NewClient(t.Context(), market.ClientConfig{
		Host: tr.host, Transfers: tr.node.Transfers(), UseStore: transport.UseStore, Stores: stores{filepath.Join(dir, "blocks")}, DB: db,
		Node: wallet, Wallet: wallet.Address(), Logger: testLogger(),
	})
	must(t, err)
	tr.provider, err = market.NewProvider(market.ProviderConfig{
		Host: tr.host, Transfers: tr.node.Transfers(), UseStore: transport.UseStore, Pieces: goods{pieces}, Node: till, DB: db, PayTo: key.Address(),
		Ask: defaultAsk, Meter: tr.meter, Client: tr.client, Logger: testLogger(),
	})
	must(t, err)
	must(t, tr.provider.Start(t.Context()))
	t.Cleanup(func() {
		must(t, tr.client.Close())
		must(t, tr.provider.Close())
		tr.close()
		must(t, pieces.Close())
		must(t, db.Close())
	})
	return tr
}

// TestBothDirections: two nodes, each client and provider at once, buy from
// each other at the same time.
func TestBothDirections(t *testing.T) {
	one, two := newTrader(t, 8<<20), newTrader(t, 9<<20)
	ctx := within(t, time.Minute)
	var both sync.WaitGroup
	for _, deal := range []struct{ buyer, seller *trader }{{one, two}, {two, one}} {
		both.Go(func() {
			got, err := deal.buyer.client.Get(ctx, market.Request{
				Provider: market.RetrievalPeer{AddrInfo: deal.seller.addr()}, Root: deal.seller.root, Budget: voucher.OneFIL,
			})
			want := defaultAsk.Terms().Cost(voucher.Bytes(deal.seller.size))
			if err != nil || uint64(got.TotalReceived) != deal.seller.size || got.FundsSpent != want {
				t.Errorf("%d bytes for %s, %v; want %d for %s", got.TotalReceived, got.FundsSpent, err, deal.seller.size, want)
			}
		})
	}
	both.Wait()
	for _, tr := range []*trader{one, two} {
		sold := tr.provider.ListDeals()
		for id, d := range sold {
			if d.Status != voucher.DealStatusCompleted || d.FundsReceived != defaultAsk.Terms().Cost(voucher.Bytes(tr.size)) {
				t.Errorf("sold %+v: %+v", id, d)
			}
		}
		if len(sold) != 1 {
			t.Errorf("%d deals sold, want 1", len(sold))
		}
	}
}
