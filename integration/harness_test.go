// Package integration is the proof: real nodes over real sockets, real files,
// real databases.
package integration

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

func TestMain(m *testing.M) {
	golog.SetAllLoggers(golog.LevelFatal) // the libraries log every invalid transition as an error
	// The processes of tests end without the second that the race detector lets pass
	// before each exit, for what still runs then.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // never fails: there is no NUL in it
	manyAtOnce()
	os.Exit(m.Run())
}

// manyAtOnce runs twice as many tests at once as there are processors, if -parallel
// does not say otherwise: most of them wait half of their time.
func manyAtOnce() {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // never fails: it is a number
	}
}

func testLogger() *slog.Logger {
	level := slog.LevelError
	if os.Getenv("TOLLGRAPH_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// stack is a host with the transport on it.
type stack struct {
	t    testing.TB
	dir  string
	host host.Host
	node *transport.Node
}

func newHost(t testing.TB, listen bool) host.Host {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	return newHostWithKey(t, key, listen)
}

func newHostWithKey(t testing.TB, key crypto.PrivKey, listen bool) host.Host {
	t.Helper()
	var addrs []string
	if listen {
		addrs = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	h, err := transport.NewHost(transport.HostConfig{Key: key, Listen: addrs})
	must(t, err)
	return h
}

func newStack(t testing.TB, h host.Host, dir string, opts ...func(*transport.Config)) *stack {
	t.Helper()
	cfg := transport.Config{Host: h, StateDir: filepath.Join(dir, "transfer"), Logger: testLogger()}
	for _, o := range opts {
		o(&cfg)
	}
	node, err := transport.New(t.Context(), cfg)
	must(t, err)
	return &stack{t: t, dir: dir, host: h, node: node}
}

func (s *stack) close() {
	must(s.t, s.node.Close())
	must(s.t, s.host.Close())
}

func (s *stack) addr() peer.AddrInfo {
	return peer.AddrInfo{ID: s.host.ID(), Addrs: s.host.Addrs()}
}

func (s *stack) meter(chid datatransfer.ChannelID) (market.Progress, bool) {
	return meterOf(s.node.Meter)(chid)
}

// goods adapts a piece.Store to the market.
type goods struct{ *piece.Store }

func (g goods) Find(c cid.Cid, want *cid.Cid) (market.Piece, bool) {
	info, ok := g.Store.Find(c, want)
	return market.Piece{ID: info.ID, Size: market.Bytes(info.Size), Sealed: info.Sealed}, ok
}

func (g goods) BlockSize(c cid.Cid) (uint64, bool) { return g.Size(c) }

// stores keeps one resumable CAR per root.
type stores struct{ dir string }

func (s stores) path(root cid.Cid) string { return filepath.Join(s.dir, root.String()+".car") }

func (s stores) Open(_ context.Context, root cid.Cid) (market.Store, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	return piece.OpenPartial(s.path(root), root)
}

// seller is a provider node.
type seller struct {
	*stack
	*market.Provider
	pieces *piece.Store
	till   *payment.Till
	stop   func()
}

type sellerOption func(*market.ProviderConfig)

// defaultAsk is 3 attoFIL per byte, an interval of 1 MiB.
var defaultAsk = voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 20}

func newSeller(t testing.TB, dir string, h host.Host, cars []string, ask voucher.Ask, credit voucher.Amount, opts ...sellerOption) *seller {
	t.Helper()
	return newSellerOn(t, newStack(t, h, dir), dir, cars, ask, credit, opts...)
}

// newSellerOn sells on a stack, which it closes in the end.
func newSellerOn(t testing.TB, on *stack, dir string, cars []string, ask voucher.Ask, credit voucher.Amount, opts ...sellerOption) *seller {
	t.Helper()
	s := &seller{stack: on}
	var err error
	s.pieces, err = piece.Open(t.Context(), piece.Config{Paths: cars, IndexDir: filepath.Join(dir, "index"), Logger: testLogger()})
	must(t, err)
	db, err := market.OpenDatabase(filepath.Join(dir, "tollgraph.db"))
	must(t, err)
	must(t, payment.Migrate(t.Context(), db))
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	must(t, err)
	s.till, err = payment.NewTill(db, key.Address(), payment.TillConfig{DefaultCredit: credit})
	must(t, err)
	cfg := market.ProviderConfig{
		Host: s.host, Transfers: s.node.Transfers(), UseStore: transport.UseStore, Pieces: goods{s.pieces}, Node: s.till, DB: db, PayTo: key.Address(),
		Ask: ask, Meter: s.meter, Hold: s.node.Meter.Hold, Bound: s.node.Meter.Bound, Proven: s.node.Meter.Prove, Logger: testLogger(),
		CreditLine: func() *voucher.Amount { line := s.till.DefaultCredit(); return &line },
	}
	for _, o := range opts {
		o(&cfg)
	}
	s.Provider, err = market.NewProvider(cfg)
	must(t, err)
	must(t, s.Start(t.Context()))
	s.stop = once(func() {
		must(t, s.Provider.Close())
		s.close()
		must(t, s.pieces.Close())
		must(t, db.Close())
	})
	t.Cleanup(s.stop)
	return s
}

// buyer is a client node.
type buyer struct {
	*stack
	*market.Client
	wallet *payment.Wallet
	stores stores
	stop   func()
}

type buyerOption func(*market.ClientConfig)

func newBuyer(t testing.TB, dir string, opts ...buyerOption) *buyer {
	t.Helper()
	return newBuyerOn(t, dir, newHost(t, false), opts...)
}

func newBuyerOn(t testing.TB, dir string, h host.Host, opts ...buyerOption) *buyer {
	t.Helper()
	b := &buyer{stack: newStack(t, h, dir), stores: stores{filepath.Join(dir, "blocks")}}
	db, err := market.OpenDatabase(filepath.Join(dir, "tollgraph.db"))
	must(t, err)
	must(t, payment.Migrate(t.Context(), db))
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	must(t, err)
	b.wallet, err = payment.NewWallet(db, key, payment.WalletConfig{})
	must(t, err)
	cfg := market.ClientConfig{
		Host: h, Transfers: b.node.Transfers(), UseStore: transport.UseStore, Stores: b.stores, DB: db,
		Node: b.wallet, Wallet: b.wallet.Address(), Logger: testLogger(),
	}
	for _, o := range opts {
		o(&cfg)
	}
	b.Client, err = market.NewClient(t.Context(), cfg)
	must(t, err)
	b.stop = once(func() {
		must(t, b.Client.Close())
		b.close()
		must(t, db.Close())
	})
	t.Cleanup(b.stop)
	return b
}

func once(f func()) func() {
	done := false
	return func() {
		if !done {
			done = true
			f()
		}
	}
}

// makeCAR packs size random bytes, cut into chunks, as one UnixFS file.
func makeCAR(t testing.TB, dir string, size, chunk int64) (car string, root cid.Cid, bytes uint64) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "data.bin")
	f, err := os.Create(src)
	must(t, err)
	_, err = io.CopyN(f, mrand.NewChaCha8([32]byte{byte(size), byte(chunk), 7}), size)
	must(t, err)
	must(t, f.Close())
	car = filepath.Join(dir, "data.car")
	res, err := piece.Create(t.Context(), car, []string{src}, piece.CreateOptions{ChunkSize: chunk})
	must(t, err)
	return car, res.Root, res.Bytes
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// longest is what a test waits for anything, before it takes it for stuck: a slow
// machine that is busy takes its time.
const longest = 3 * time.Minute

// within bounds a test's waiting.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func risk(b voucher.Bytes) *voucher.Bytes { return &b }

// lastPort is the port that freeAddress gave away last.
var lastPort atomic.Uint32

// freeAddress is a loopback address on which nobody listens now. Nor does anybody
// while its own host is away: systems do not choose ports below 32,768 by themselves,
// and no other test of this process is given this one.
func freeAddress(t testing.TB) string {
	t.Helper()
	const lowest, many = 20_000, 12_000
	lastPort.CompareAndSwap(0, mrand.Uint32N(many))
	for range many {
		port := lowest + lastPort.Add(1)%many
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			must(t, l.Close())
			return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// newHostAt listens on an address to which a host can come back.
func newHostAt(t testing.TB, key crypto.PrivKey, addr string) host.Host {
	t.Helper()
	h, err := transport.NewHost(transport.HostConfig{Key: key, Listen: []string{addr}})
	must(t, err)
	return h
}

// until begins to buy root from s, paid strictly after receipt, and returns when more
// than n bytes are here.
func (b *buyer) until(ctx context.Context, t *testing.T, s *seller, root cid.Cid, n voucher.Bytes) market.DealID {
	t.Helper()
	return b.begun(ctx, t, market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}, n)
}

// begun begins to buy, and returns when more than n bytes are here.
func (b *buyer) begun(ctx context.Context, t *testing.T, r market.Request, n voucher.Bytes) market.DealID {
	t.Helper()
	some := b.received(t, n)
	id, err := b.Retrieve(ctx, r)
	must(t, err)
	wait(ctx, t, some)
	return id
}

// received tells when a deal of b has more than n bytes.
func (b *buyer) received(t testing.TB, n voucher.Bytes) <-chan struct{} {
	t.Helper()
	some := make(chan struct{})
	enough := once(func() { close(some) })
	t.Cleanup(b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
		if d.TotalReceived > n {
			enough()
		}
	}))
	return some
}
