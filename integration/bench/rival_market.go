package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// stopTimeout bounds the stopping of a library.
const stopTimeout = 5 * time.Second

// terms are how a market rival deals.
type terms int

const (
	free   terms = iota
	paid         // ahead of receipt, as far as a client risks by default
	strict       // after receipt
)

// piecesInMemory are the goods as a provider's one piece.
type piecesInMemory struct{ g *goods }

func (p piecesInMemory) Find(c cid.Cid, _ *cid.Cid) (market.Piece, bool) {
	_, has := p.g.blocks[c]
	return market.Piece{ID: p.g.root, Size: market.Bytes(p.g.bytes)}, has
}

func (p piecesInMemory) LinkSystem(cid.Cid) ipld.LinkSystem {
	ls := p.g.links()
	selectors.AddReifiers(&ls)
	return ls
}

func (p piecesInMemory) BlockSize(c cid.Cid) (uint64, bool) {
	b, has := p.g.blocks[c]
	return uint64(len(b)), has
}

func (p piecesInMemory) Unseal(context.Context, cid.Cid) error { return nil }

// piecesOnDisk are CARs as a provider's pieces.
type piecesOnDisk struct{ *piece.Store }

func (p piecesOnDisk) Find(c cid.Cid, want *cid.Cid) (market.Piece, bool) {
	info, ok := p.Store.Find(c, want)
	return market.Piece{ID: info.ID, Size: market.Bytes(info.Size), Sealed: info.Sealed}, ok
}

func (p piecesOnDisk) LinkSystem(id cid.Cid) ipld.LinkSystem {
	ls := p.Store.LinkSystem(id)
	selectors.AddReifiers(&ls)
	return ls
}

func (p piecesOnDisk) BlockSize(c cid.Cid) (uint64, bool) { return p.Size(c) }

// pieces opens the CAR of the goods.
func (f *field) pieces(ctx context.Context) (*piece.Store, error) {
	s, err := piece.Open(ctx, piece.Config{Paths: []string{f.goods.car}, IndexDir: filepath.Join(f.dir, "index"), Logger: silent})
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { _ = s.Close() })
	return s, nil
}

// sinkStore is a sink as a client's store: what arrives is as durable as it gets.
type sinkStore struct{ *sink }

func (s sinkStore) LinkSystem() ipld.LinkSystem {
	ls := s.links()
	selectors.AddReifiers(&ls)
	return ls
}

func (s sinkStore) Written() uint64       { return s.held() }
func (s sinkStore) Sync() (uint64, error) { return s.held(), nil }
func (s sinkStore) Once(uint64) error     { return nil } // no block comes twice here
func (s sinkStore) Close() error          { return nil }

// partialStore is a CAR that is being received.
type partialStore struct{ *piece.Partial }

func (s partialStore) LinkSystem() ipld.LinkSystem {
	ls := s.Partial.LinkSystem()
	selectors.AddReifiers(&ls)
	return ls
}

// emptyStores gives every deal an empty store.
type emptyStores struct{ f *field }

func (s emptyStores) Open(_ context.Context, root cid.Cid) (market.Store, error) {
	if !s.f.c.Disk {
		sink := newSink()
		sink.first = s.f.first
		if s.f.sinks != nil {
			s.f.sinks.Store(root, sink)
		}
		return sinkStore{sink}, nil
	}
	dir, err := s.f.fresh("deal")
	if err != nil {
		return nil, err
	}
	p, err := piece.OpenPartial(filepath.Join(dir, "copy.car"), root)
	if err != nil {
		return nil, err
	}
	return partialStore{p}, nil
}

// trade is a provider and a client of the market.
type trade struct {
	f      *field
	terms  terms
	client *market.Client
	to     market.RetrievalPeer
	ask    *voucher.Ask // what is known of the provider's terms; nil: it is asked
	last   market.ClientDealState
	over   chan struct{} // a deal has ended; nil: nobody waits for that
}

func makeMarket(ctx context.Context, f *field, t terms) (rival, error) {
	provider, client, err := f.hosts(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := f.sell(ctx, provider, t); err != nil {
		return nil, err
	}
	r := &trade{f: f, terms: t, to: market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: provider.ID()}}}
	if r.client, err = f.buy(ctx, client); err != nil {
		return nil, err
	}
	r.over = make(chan struct{}, 1)
	r.client.SubscribeToEvents(func(ev market.ClientEvent, _ market.ClientDealState) {
		if ev != market.ClientEventComplete {
			return
		}
		select {
		case r.over <- struct{}{}:
		default:
		}
	})
	return r, nil
}

// prepare waits for the last words of the deal before, which nobody waits for who does
// not buy the same again at once. They take a round trip.
func (r *trade) prepare(ctx context.Context) error {
	if r.last.ID == 0 {
		return nil
	}
	select {
	case <-r.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the end of the deal before: %w", ctx.Err())
	}
}

func (f *field) node(ctx context.Context, h host.Host, dir string) (*transport.Node, error) {
	n, err := transport.New(ctx, transport.Config{Host: h, StateDir: filepath.Join(dir, "transfer"), Logger: silent})
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { _ = n.Close() })
	return n, nil
}

// askOf are the terms that the market rivals deal on.
func (f *field) askOf(t terms) voucher.Ask {
	if t == free {
		return voucher.Ask{}
	}
	return voucher.Ask{PricePerByte: 1, PaymentInterval: voucher.Bytes(f.c.Interval)}
}

// sell starts a provider on h and returns whom to pay.
func (f *field) sell(ctx context.Context, h host.Host, t terms) (address.Address, error) {
	none := address.Undef
	dir, err := f.fresh("provider")
	if err != nil {
		return none, err
	}
	n, err := f.stack(ctx, h, dir)
	if err != nil {
		return none, err
	}
	db, key, err := f.books(ctx, dir)
	if err != nil {
		return none, err
	}
	till, err := payment.NewTill(db, key.Address(), payment.TillConfig{DefaultCredit: voucher.OneFIL})
	if err != nil {
		return none, err
	}
	cfg := market.ProviderConfig{
		Host: h, Transfers: n.transfers, UseStore: transport.UseStore, Pieces: f.goods.memory, Node: till, DB: db, PayTo: key.Address(), Logger: silent,
		Ask:   f.askOf(t),
		Meter: n.meter, Hold: n.hold, Bound: n.bound, Proven: n.prove,
	}
	if !f.c.Strange {
		cfg.EarnedCredit = earnedCredit
	}
	if f.c.Disk {
		s, err := f.pieces(ctx)
		if err != nil {
			return none, err
		}
		cfg.Pieces = piecesOnDisk{s}
	}
	p, err := market.NewProvider(cfg)
	if err != nil {
		return none, err
	}
	f.atEnd(func() { _ = p.Close() })
	return key.Address(), p.Start(ctx)
}

// earnedCredit is what tollgraph serve lends at most, if it is not told otherwise.
const earnedCredit = 16 << 20

// books opens a node's database and key in dir.
func (f *field) books(ctx context.Context, dir string) (*sql.DB, voucher.Key, error) {
	db, err := market.OpenDatabase(filepath.Join(dir, "tollgraph.db"))
	if err != nil {
		return nil, voucher.Key{}, err
	}
	f.atEnd(func() { _ = db.Close() })
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	if err != nil {
		return nil, key, err
	}
	return db, key, payment.Migrate(ctx, db)
}

func (f *field) buy(ctx context.Context, h host.Host) (*market.Client, error) {
	dir, err := f.fresh("client")
	if err != nil {
		return nil, err
	}
	n, err := f.stack(ctx, h, dir)
	if err != nil {
		return nil, err
	}
	db, key, err := f.books(ctx, dir)
	if err != nil {
		return nil, err
	}
	wallet, err := payment.NewWallet(db, key, payment.WalletConfig{})
	if err != nil {
		return nil, err
	}
	c, err := market.NewClient(ctx, market.ClientConfig{
		Host: h, Transfers: n.transfers, UseStore: transport.UseStore, Stores: emptyStores{f}, DB: db, Node: wallet, Wallet: wallet.Address(), Logger: silent,
	})
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { _ = c.Close() })
	return c, nil
}

func (r *trade) fetch(ctx context.Context) error {
	got, err := r.deal(ctx, r.f.goods.root)
	r.last = got
	return err
}

// deal buys one root.
func (r *trade) deal(ctx context.Context, root cid.Cid) (market.ClientDealState, error) {
	req := market.Request{Provider: r.to, Root: root, Budget: voucher.OneFIL}
	if r.ask != nil {
		req.Ask, req.Expected = r.ask, market.Bytes(r.f.goods.bytes)
	}
	if ahead := market.Bytes(r.f.c.Risk); r.terms == strict || ahead != 0 {
		if r.terms == strict {
			ahead = 0
		}
		req.AtRisk = &ahead
	}
	got, err := r.client.Get(ctx, req)
	if err != nil {
		return got, err
	}
	if r.terms != free && got.FundsSpent != voucher.Price(1).Of(voucher.Bytes(r.f.goods.bytes)) {
		return got, fmt.Errorf("%s paid for %d bytes", got.FundsSpent, r.f.goods.bytes)
	}
	return got, r.f.complete(uint64(got.TotalReceived))
}

// note tells what the last deal took.
func (r *trade) note() string {
	if r.terms == free {
		return ""
	}
	return fmt.Sprintf("%d payments, %d stalls", r.last.Payments, r.last.Stalls)
}

func (r *trade) close() {}

var errNoRival = errors.New("no such rival")

// removeAll is os.RemoveAll for what nobody waits for.
func removeAll(dir string) { _ = os.RemoveAll(dir) }
