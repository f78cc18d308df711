package main

import (
	"context"
	"fmt"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/piece"
)

// plainGraphsync is go-graphsync as it comes, for one request.
type plainGraphsync struct {
	f    *field
	gs   graphsync.GraphExchange
	to   peer.ID
	sink *clientStore
}

// clientStore is where the client of a plain library keeps its blocks: a sink,
// or a CAR.
type clientStore struct {
	f    *field
	sink *sink
	car  *piece.Partial
}

// renew makes the store empty and returns it.
func (s *clientStore) renew() (ipld.LinkSystem, error) {
	if !s.f.c.Disk {
		s.sink.clear()
		return s.sink.links(), nil
	}
	s.close()
	dir, err := s.f.fresh("plain")
	if err != nil {
		return ipld.LinkSystem{}, err
	}
	if s.car, err = piece.OpenPartial(dir+"/copy.car", s.f.goods.root); err != nil {
		return ipld.LinkSystem{}, err
	}
	return s.car.LinkSystem(), nil
}

func (s *clientStore) complete() error {
	if s.car == nil {
		return s.f.complete(s.sink.held())
	}
	n, err := s.car.Sync()
	if err != nil {
		return err
	}
	return s.f.complete(n)
}

func (s *clientStore) close() {
	if s.car != nil {
		_ = s.car.Close() // its content is not wanted
		s.car = nil
	}
}

// serving returns the link system that the plain libraries serve from.
func (f *field) serving(ctx context.Context) (ipld.LinkSystem, error) {
	if !f.c.Disk {
		return f.goods.links(), nil
	}
	s, err := f.pieces(ctx)
	if err != nil {
		return ipld.LinkSystem{}, err
	}
	info, ok := s.Find(f.goods.root, nil)
	if !ok {
		return ipld.LinkSystem{}, fmt.Errorf("root %s is not in the CAR", f.goods.root)
	}
	return s.LinkSystem(info.ID), nil
}

// stockGraphsync runs go-graphsync with its own network and defaults.
func (f *field) stockGraphsync(ctx context.Context, h host.Host, ls ipld.LinkSystem) graphsync.GraphExchange {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.atEnd(stop)
	return gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), ls)
}

func makeGraphsync(ctx context.Context, f *field) (rival, error) {
	provider, client, err := f.hosts(ctx)
	if err != nil {
		return nil, err
	}
	ls, err := f.serving(ctx)
	if err != nil {
		return nil, err
	}
	serve := f.stockGraphsync(ctx, provider, ls)
	serve.RegisterIncomingRequestHook(func(_ peer.ID, _ graphsync.RequestData, a graphsync.IncomingRequestHookActions) { a.ValidateRequest() })
	g := &plainGraphsync{f: f, to: provider.ID(), sink: &clientStore{f: f, sink: newSink()}}
	g.gs = f.stockGraphsync(ctx, client, cidlink.DefaultLinkSystem())
	g.gs.RegisterOutgoingRequestHook(func(_ peer.ID, _ graphsync.RequestData, a graphsync.OutgoingRequestHookActions) {
		a.UsePersistenceOption("copy")
	})
	return g, nil
}

func (g *plainGraphsync) fetch(ctx context.Context) error {
	ls, err := g.sink.renew()
	if err != nil {
		return err
	}
	_ = g.gs.UnregisterPersistenceOption("copy") // the first time there is none
	if err := g.gs.RegisterPersistenceOption("copy", ls); err != nil {
		return err
	}
	progress, errs := g.gs.Request(ctx, g.to, cidlink.Link{Cid: g.f.goods.root}, selectorparse.CommonSelector_ExploreAllRecursively)
	for range progress {
	}
	for e := range errs {
		err = e
	}
	if err != nil {
		return err
	}
	return g.sink.complete()
}

func (g *plainGraphsync) close() { g.sink.close() }

// plainTransfer is go-data-transfer on go-graphsync, both as they come.
type plainTransfer struct {
	f       *field
	manager datatransfer.Manager
	to      peer.ID
	sink    *clientStore
	ended   chan datatransfer.ChannelState
}

const plainVoucher = datatransfer.TypeIdentifier("bench")

// anything is a validator that accepts.
type anything struct{}

func (anything) ValidatePush(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{}, nil
}

func (anything) ValidatePull(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{Accepted: true}, nil
}

func (anything) ValidateRestart(datatransfer.ChannelID, datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{Accepted: true}, nil
}

func (f *field) stockTransfer(ctx context.Context, h host.Host) (datatransfer.Manager, error) {
	gs := f.stockGraphsync(ctx, h, cidlink.DefaultLinkSystem())
	m, err := dtimpl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), dtnet.NewFromLibp2pHost(h), dtgs.NewTransport(h.ID(), gs))
	if err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	f.atEnd(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_ = m.Stop(ctx) // nothing depends on it
	})
	return m, <-ready
}

func makeDataTransfer(ctx context.Context, f *field) (rival, error) {
	provider, client, err := f.hosts(ctx)
	if err != nil {
		return nil, err
	}
	ls, err := f.serving(ctx)
	if err != nil {
		return nil, err
	}
	serve, err := f.stockTransfer(ctx, provider)
	if err != nil {
		return nil, err
	}
	if err := serve.RegisterVoucherType(plainVoucher, anything{}); err != nil {
		return nil, err
	}
	err = serve.RegisterTransportConfigurer(plainVoucher, func(datatransfer.ChannelID, datatransfer.TypedVoucher) []datatransfer.TransportOption {
		return []datatransfer.TransportOption{dtgs.UseStore(ls)}
	})
	if err != nil {
		return nil, err
	}
	p := &plainTransfer{f: f, to: provider.ID(), sink: &clientStore{f: f, sink: newSink()}, ended: make(chan datatransfer.ChannelState, 1)}
	if p.manager, err = f.stockTransfer(ctx, client); err != nil {
		return nil, err
	}
	p.manager.SubscribeToEvents(func(_ datatransfer.Event, s datatransfer.ChannelState) {
		switch s.Status() {
		case datatransfer.Completed, datatransfer.Failed, datatransfer.Cancelled:
			select {
			case p.ended <- s:
			default:
			}
		}
	})
	return p, nil
}

func (p *plainTransfer) fetch(ctx context.Context) error {
	ls, err := p.sink.renew()
	if err != nil {
		return err
	}
	_, err = p.manager.OpenPullDataChannel(ctx, p.to, datatransfer.TypedVoucher{Voucher: basicnode.NewString("bench"), Type: plainVoucher},
		p.f.goods.root, selectorparse.CommonSelector_ExploreAllRecursively, datatransfer.WithTransportOptions(dtgs.UseStore(ls)))
	if err != nil {
		return err
	}
	select {
	case s := <-p.ended:
		if s.Status() != datatransfer.Completed {
			return fmt.Errorf("channel %s: %s", s.Status(), s.Message())
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.sink.complete()
}

func (p *plainTransfer) close() { p.sink.close() }

// overBitswap fetches the graph with boxo's bitswap, as it comes. Every fetch has
// a client of its own: a node that has just had the same blocks may wait for the
// cancels of the time before.
type overBitswap struct {
	f        *field
	provider host.Host
	client   *field // what the client of the next fetch holds; nil if there is none
	sink     *sink
	dag      blockservice.BlockService
}

func makeBitswap(ctx context.Context, f *field) (rival, error) {
	provider, err := f.host("/ip4/127.0.0.1/tcp/0")
	if err != nil {
		return nil, err
	}
	f.bitswap(ctx, provider, source{newSink(), f.goods})
	return &overBitswap{f: f, provider: provider}, nil
}

// bitswap runs a node of it.
func (f *field) bitswap(ctx context.Context, h host.Host, blocks blockstore.Blockstore) *bitswap.Bitswap {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.atEnd(stop)
	net := bsnet.NewFromIpfsHost(h)
	b := bitswap.New(life, net, nil, blocks)
	net.Start(b)
	f.atEnd(func() { _ = b.Close(); net.Stop() })
	return b
}

func (b *overBitswap) prepare(ctx context.Context) error {
	b.close()
	b.client = &field{c: b.f.c, goods: b.f.goods}
	client, err := b.client.host("")
	if err != nil {
		return err
	}
	b.sink = newSink()
	b.dag = blockservice.New(b.sink, b.client.bitswap(ctx, client, b.sink))
	return b.client.connect(ctx, client, b.provider) // only now: bitswap must see it happen
}

func (b *overBitswap) fetch(ctx context.Context) error {
	if err := merkledag.FetchGraph(ctx, b.f.goods.root, merkledag.NewDAGService(b.dag)); err != nil {
		return err
	}
	return b.f.complete(b.sink.held())
}

func (b *overBitswap) close() {
	if b.client != nil {
		b.client.close()
		b.client = nil
	}
}
