package integration

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// trader is a node that sells and buys: client and provider on one host, one
// data-transfer manager, one database and one key.
type trader struct {
	site
	t        *testing.T
	client   *market.Client
	provider *market.Provider
	goods    goods
	root     cid.Cid // what it sells
	size     uint64
}

// site is where a trader can be: a host and a manager on it, and a meter, if
// there is one.
type site struct {
	host      host.Host
	transfers datatransfer.Manager
	plain     datatransfer.Manager // what transfers wraps, in a homemade stack
	meter     market.Meter
	hold      market.Hold
	bound     market.Bound
}

func (s site) addr() peer.AddrInfo { return peer.AddrInfo{ID: s.host.ID(), Addrs: s.host.Addrs()} }

// newSite is a site on a transport of ours.
func newSite(t *testing.T) site {
	t.Helper()
	s := newStack(t, newHost(t, true), t.TempDir())
	t.Cleanup(s.close)
	return site{host: s.host, transfers: s.node.Transfers(), meter: s.meter, hold: s.node.Meter.Hold, bound: s.node.Meter.Bound}
}

func newTrader(t *testing.T, s site, size int64) *trader {
	t.Helper()
	dir := t.TempDir()
	tr := &trader{site: s, t: t}
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
		Host: tr.host, Transfers: tr.transfers, UseStore: transport.UseStore, Stores: stores{filepath.Join(dir, "blocks")}, DB: db,
		Node: wallet, Wallet: wallet.Address(), Logger: testLogger(),
	})
	must(t, err)
	tr.goods = goods{pieces}
	tr.provider, err = market.NewProvider(market.ProviderConfig{
		Host: tr.host, Transfers: tr.transfers, UseStore: transport.UseStore, Pieces: tr.goods, Node: till, DB: db, PayTo: key.Address(),
		Ask: defaultAsk, Meter: tr.meter, Hold: tr.hold, Bound: tr.bound, Client: tr.client, Logger: testLogger(),
	})
	must(t, err)
	must(t, tr.provider.Start(t.Context()))
	t.Cleanup(func() {
		must(t, tr.client.Close())
		must(t, tr.provider.Close())
		must(t, pieces.Close())
		must(t, db.Close())
	})
	return tr
}

// TestBothDirections: two nodes, each client and provider at once, buy from
// each other at the same time.
func TestBothDirections(t *testing.T) {
	t.Parallel()
	one, two := newTrader(t, newSite(t), 8<<20), newTrader(t, newSite(t), 9<<20)
	ctx := within(t, longest)
	var both sync.WaitGroup
	both.Go(func() { one.buy(ctx, two) })
	both.Go(func() { two.buy(ctx, one) })
	both.Wait()
	one.checkSold(1)
	two.checkSold(1)
}

// untilEnded waits until no deal of a provider is open.
func untilEnded(t testing.TB, p *market.Provider) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	changed := make(chan struct{}, 1)
	defer p.SubscribeToEvents(func(market.ProviderEvent, market.ProviderDealState) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	open := func(d market.ProviderDealState) bool { return market.ClientDealState{Status: d.Status}.Open() }
	for slices.ContainsFunc(slices.Collect(maps.Values(p.ListDeals())), open) {
		select {
		case <-changed:
		case <-ctx.Done():
			return // whoever looks says what is open
		}
	}
}

// buy buys what another trader sells, for exactly what that costs.
func (tr *trader) buy(ctx context.Context, from *trader) {
	got, err := tr.client.Get(ctx, market.Request{
		Provider: market.RetrievalPeer{AddrInfo: from.addr()}, Root: from.root, Budget: voucher.OneFIL,
	})
	want := defaultAsk.Terms().Cost(voucher.Bytes(from.size))
	if err != nil || uint64(got.TotalReceived) != from.size || got.FundsSpent != want {
		tr.t.Errorf("%d bytes for %s, %v; want %d for %s", got.TotalReceived, got.FundsSpent, err, from.size, want)
	}
}

// checkSold says that all was sold so many times, and paid. Its buyers may know that
// before the last words are said.
func (tr *trader) checkSold(times int) {
	tr.t.Helper()
	untilEnded(tr.t, tr.provider)
	sold := tr.provider.ListDeals()
	for id, d := range sold {
		if d.Status != voucher.DealStatusCompleted || d.FundsReceived != defaultAsk.Terms().Cost(voucher.Bytes(tr.size)) {
			tr.t.Errorf("sold %+v: %+v", id, d)
		}
	}
	if len(sold) != times {
		tr.t.Errorf("%d deals sold, want %d", len(sold), times)
	}
}
