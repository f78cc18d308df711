package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
)

// fastStore is a block store in memory that takes blocks without copying them.
type fastStore struct {
	mu     sync.Mutex
	blocks map[string][]byte
	bytes  int
	onPut  func() // called for each block that is stored
	forget bool   // only count what is put
}

func newFastStore() *fastStore { return &fastStore{blocks: make(map[string][]byte)} }

// settable is the writer that graphsync's loader hands a block to in one piece.
type settable struct{ data []byte }

func (s *settable) Write(p []byte) (int, error) { s.data = append(s.data, p...); return len(p), nil }
func (s *settable) SetBytes(p []byte) error     { s.data = p; return nil }

func (s *fastStore) linkSystem() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, l datamodel.Link) (io.Reader, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, ok := s.blocks[l.Binary()]
		if !ok {
			return nil, fmt.Errorf("no block %s", l)
		}
		return bytes.NewBuffer(b), nil
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		w := &settable{}
		return w, func(l datamodel.Link) error {
			if s.onPut != nil {
				s.onPut()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.forget {
				s.blocks[l.Binary()] = w.data
			}
			s.bytes += len(w.data)
			return nil
		}, nil
	}
	return ls
}

func cborLink() cidlink.LinkPrototype {
	return cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0x12, MhLength: 32}}
}

func rawLink() cidlink.LinkPrototype {
	return cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}}
}

// fillStar stores a list of total/block links to raw blocks and returns its root.
func fillStar(tb testing.TB, s *fastStore, total, block int) cid.Cid {
	tb.Helper()
	ls := s.linkSystem()
	rnd := rand.NewChaCha8([32]byte{1})
	var links []datamodel.Link
	for n := 0; n < total; n += block {
		data := make([]byte, block)
		_, _ = rnd.Read(data)
		links = append(links, ls.MustStore(ipld.LinkContext{}, rawLink(), basicnode.NewBytes(data)))
	}
	n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(links)), func(la datamodel.ListAssembler) {
		for _, l := range links {
			qp.ListEntry(la, qp.Link(l))
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ls.MustStore(ipld.LinkContext{}, cborLink(), n).(cidlink.Link).Cid
}

// fillChain stores a chain of count blocks, each with size bytes of its own.
func fillChain(tb testing.TB, s *fastStore, count, size int) cid.Cid {
	tb.Helper()
	ls := s.linkSystem()
	rnd := rand.NewChaCha8([32]byte{2})
	var last datamodel.Link
	for i := range count {
		data := make([]byte, size)
		_, _ = rnd.Read(data)
		n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "i", qp.Int(int64(i)))
			qp.MapEntry(ma, "data", qp.Bytes(data))
			if last != nil {
				qp.MapEntry(ma, "next", qp.Link(last))
			}
		})
		if err != nil {
			tb.Fatal(err)
		}
		last = ls.MustStore(ipld.LinkContext{}, cborLink(), n)
	}
	return last.(cidlink.Link).Cid
}

// newTestHost listens on a loopback TCP port.
func newTestHost(tb testing.TB, opts ...libp2p.Option) host.Host {
	tb.Helper()
	opts = append([]libp2p.Option{
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(),
	}, opts...)
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits), rcmgr.WithMetricsDisabled())
	if err != nil {
		tb.Fatal(err)
	}
	h, err := libp2p.New(append(opts, libp2p.ResourceManager(rm))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Close() })
	return h
}

func introduce(a, b host.Host) {
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
	b.Peerstore().AddAddrs(a.ID(), a.Addrs(), peerstore.PermanentAddrTTL)
}

// networkKind makes one of the two networks.
type networkKind struct {
	name string
	make func(host.Host) gsnet.GraphSyncNetwork
}

var (
	stockKind = networkKind{"stock", func(h host.Host) gsnet.GraphSyncNetwork { return gsnet.NewFromLibp2pHost(h) }}
	fastKind  = networkKind{"fast", func(h host.Host) gsnet.GraphSyncNetwork { return NewNetwork(h, NetworkConfig{}) }}
)

// gsPair is a provider and a client on real sockets.
type gsPair struct {
	provider, client host.Host
	store            *fastStore // the client's
	gsProvider, gs   graphsync.GraphExchange
}

func newPair(tb testing.TB, from *fastStore, serve, fetch networkKind, opts ...libp2p.Option) *gsPair {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	p := &gsPair{provider: newTestHost(tb, opts...), client: newTestHost(tb, opts...), store: newFastStore()}
	introduce(p.provider, p.client)
	p.gsProvider = gsimpl.New(ctx, serve.make(p.provider), from.linkSystem())
	p.gsProvider.RegisterIncomingRequestHook(func(_ peer.ID, _ graphsync.RequestData, a graphsync.IncomingRequestHookActions) {
		a.ValidateRequest()
	})
	p.gs = gsimpl.New(ctx, fetch.make(p.client), p.store.linkSystem())
	if err := p.client.Connect(ctx, peer.AddrInfo{ID: p.provider.ID()}); err != nil {
		tb.Fatal(err)
	}
	return p
}

// fetch requests everything under root and waits for its end.
func (p *gsPair) fetch(ctx context.Context, root cid.Cid, ext ...graphsync.ExtensionData) error {
	progress, errs := p.gs.Request(ctx, p.provider.ID(), cidlink.Link{Cid: root},
		selectorparse.CommonSelector_ExploreAllRecursively, ext...)
	for range progress {
	}
	for err := range errs {
		return err
	}
	return ctx.Err()
}

func testContext(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}
