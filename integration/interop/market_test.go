package interop

import (
	"context"
	"crypto/rand"
	"database/sql"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

func testLogger() *slog.Logger {
	level := slog.LevelError
	if os.Getenv("TOLLGRAPH_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// node is what both of ours stand on: a host, a transport and a database, all
// of which a restart brings back from dir.
type node struct {
	t     testing.TB
	dir   string
	key   crypto.PrivKey
	addrs []string

	host host.Host
	tr   *transport.Node
	db   *sql.DB
}

func newNode(t testing.TB) *node {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	return &node{t: t, dir: t.TempDir(), key: key, addrs: []string{"/ip4/127.0.0.1/tcp/0"}}
}

func (n *node) start() {
	n.t.Helper()
	var err error
	n.host, err = transport.NewHost(transport.HostConfig{Key: n.key, Listen: n.addrs})
	must(n.t, err)
	n.addrs = nil
	for _, a := range n.host.Addrs() {
		n.addrs = append(n.addrs, a.String())
	}
	n.tr, err = transport.New(n.t.Context(), transport.Config{
		Host: n.host, StateDir: filepath.Join(n.dir, "transfer"), Network: transport.NewNetwork(n.host, transport.NetworkConfig{}), Logger: testLogger(),
	})
	must(n.t, err)
	n.db, err = market.OpenDatabase(filepath.Join(n.dir, "tollgraph.db"))
	must(n.t, err)
	must(n.t, payment.Migrate(n.t.Context(), n.db))
}

func (n *node) stop() {
	must(n.t, n.tr.Close())
	must(n.t, n.host.Close())
	must(n.t, n.db.Close())
}

func (n *node) addr() peer.AddrInfo { return peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()} }

func (n *node) meter(chid datatransfer.ChannelID) (market.Progress, bool) {
	p, ok := n.tr.Meter.Progress(chid)
	return market.Progress(p), ok
}

// goods adapts a piece.Store to the market.
type goods struct {
	*piece.Store
	mu   sync.Mutex
	gate *gate // guarded by mu; what reads pass
}

func (g *goods) Find(c cid.Cid, want *cid.Cid) (market.Piece, bool) {
	info, ok := g.Store.Find(c, want)
	return market.Piece{ID: info.ID, Size: market.Bytes(info.Size), Sealed: info.Sealed}, ok
}

func (g *goods) LinkSystem(id cid.Cid) ipld.LinkSystem {
	ls := g.Store.LinkSystem(id)
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(c ipld.LinkContext, l datamodel.Link) (io.Reader, error) {
		g.mu.Lock()
		gate := g.gate
		g.mu.Unlock()
		size, _ := g.Size(l.(cidlink.Link).Cid)
		if err := gate.pass(c.Ctx, int(size)); err != nil {
			return nil, err
		}
		return read(c, l)
	}
	return ls
}

func (g *goods) BlockSize(c cid.Cid) (uint64, bool) { return g.Size(c) }

// seller is one of our providers.
type seller struct {
	*node
	market  *market.Provider
	till    *payment.Till
	payTo   address.Address
	ask     voucher.Ask
	goods   *goods
	pricing func(market.PricingInput) voucher.Ask
	running bool
}

func newSeller(t testing.TB, ask voucher.Ask, sealed bool, cars ...string) *seller {
	t.Helper()
	unseal := ""
	if sealed {
		unseal = "cp {in} {out}"
	}
	return newSellerOfSealed(t, ask, unseal, cars...)
}

// newSellerOfSealed sells pieces that a command unseals; without one they are
// not sealed.
func newSellerOfSealed(t testing.TB, ask voucher.Ask, unseal string, cars ...string) *seller {
	t.Helper()
	s := &seller{node: newNode(t), ask: ask}
	cfg := piece.Config{Paths: cars, IndexDir: filepath.Join(s.dir, "index"), Logger: testLogger()}
	if unseal != "" {
		cfg.Paths = seal(t, cfg)
		cfg.Unsealer = piece.CommandUnsealer{Command: unseal}
	}
	pieces, err := piece.Open(t.Context(), cfg)
	must(t, err)
	s.goods = &goods{Store: pieces}
	s.start()
	t.Cleanup(func() {
		s.stop()
		must(t, pieces.Close())
	})
	return s
}

// seal indexes pieces, as an operator does before sealing them, and returns what
// is left of them.
func seal(t testing.TB, cfg piece.Config) (sealed []string) {
	t.Helper()
	pieces, err := piece.Open(t.Context(), cfg)
	must(t, err)
	must(t, pieces.Close())
	for _, car := range cfg.Paths {
		sealed = append(sealed, car+".sealed")
		must(t, os.Rename(car, car+".sealed"))
	}
	return sealed
}

func (s *seller) start() {
	s.t.Helper()
	s.node.start()
	key, err := payment.LoadOrCreateKey(filepath.Join(s.dir, "wallet.key"))
	must(s.t, err)
	s.payTo = key.Address()
	s.till, err = payment.NewTill(s.db, s.payTo, payment.TillConfig{DefaultCredit: voucher.OneFIL})
	must(s.t, err)
	s.market, err = market.NewProvider(market.ProviderConfig{
		Host: s.host, Transfers: s.tr.Transfers(), UseStore: transport.UseStore, Pieces: s.goods, Node: s.till, DB: s.db, PayTo: s.payTo,
		Ask: s.ask, Meter: s.meter, Hold: s.tr.Meter.Hold, Bound: s.tr.Meter.Bound, Pricing: s.price, Logger: testLogger(),
	})
	must(s.t, err)
	must(s.t, s.market.Start(s.t.Context()))
	s.running = true
}

func (s *seller) price(in market.PricingInput) voucher.Ask {
	if s.pricing != nil {
		return s.pricing(in)
	}
	return in.Ask
}

func (s *seller) stop() {
	if !s.running {
		return
	}
	s.running = false
	must(s.t, s.market.Close())
	s.node.stop()
}

// onRecord is closed when a deal that has moved bytes is on disk.
func (s *seller) onRecord() <-chan struct{} {
	done := make(chan struct{})
	tell := sync.OnceFunc(func() { close(done) })
	s.market.SubscribeToEvents(func(_ market.ProviderEvent, st market.ProviderDealState) {
		if st.TotalSent > 0 {
			tell()
		}
	})
	return done
}

// sold returns the only deal in the seller's book.
func (s *seller) sold() market.ProviderDealState {
	s.t.Helper()
	deals, err := s.market.Deals(s.t.Context(), 10)
	must(s.t, err)
	if len(deals) != 1 {
		s.t.Fatalf("%d deals in the provider's book, want 1: %+v", len(deals), deals)
	}
	return deals[0]
}

// buyer is one of our clients.
type buyer struct {
	*node
	market *market.Client
	wallet *payment.Wallet
}

type stores struct{ dir string }

func (s stores) Open(_ context.Context, root cid.Cid) (market.Store, error) {
	return piece.OpenPartial(filepath.Join(s.dir, root.String()+".car"), root)
}

func newBuyer(t testing.TB) *buyer {
	t.Helper()
	b := &buyer{node: newNode(t)}
	b.start()
	key, err := payment.LoadOrCreateKey(filepath.Join(b.dir, "wallet.key"))
	must(t, err)
	b.wallet, err = payment.NewWallet(b.db, key, payment.WalletConfig{})
	must(t, err)
	b.market, err = market.NewClient(t.Context(), market.ClientConfig{
		Host: b.host, Transfers: b.tr.Transfers(), UseStore: transport.UseStore, Stores: stores{b.dir}, DB: b.db,
		Node: b.wallet, Wallet: b.wallet.Address(), Logger: testLogger(),
	})
	must(t, err)
	t.Cleanup(func() {
		must(t, b.market.Close())
		b.stop()
	})
	return b
}

// accepted is closed when a channel of the buyer is accepted.
func (b *buyer) accepted() <-chan struct{} {
	done := make(chan struct{})
	tell := sync.OnceFunc(func() { close(done) })
	b.tr.Transfers().SubscribeToEvents(func(e datatransfer.Event, _ datatransfer.ChannelState) {
		if e.Code == datatransfer.Accept {
			tell()
		}
	})
	return done
}
