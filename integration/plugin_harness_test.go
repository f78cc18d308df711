package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	mrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/channels"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
)

// shelf is a store of blocks in memory. It may be used concurrently.
type shelf struct {
	mu     sync.Mutex
	blocks map[string][]byte // guarded by mu
	left   int               // guarded by mu; reads until the shelf is shut, 0 if it never is
	opened chan struct{}     // guarded by mu; closed when a shut shelf is opened
}

// shutAfter lets n more reads through and then none until the next call. 0 opens
// it for good.
func (s *shelf) shutAfter(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		close(s.opened)
		s.opened = nil
	}
	if s.left = n; n > 0 {
		s.opened = make(chan struct{})
	}
}

// pass waits while the shelf is shut.
func (s *shelf) pass(ctx context.Context) error {
	for {
		s.mu.Lock()
		opened := s.opened
		if opened == nil || s.left > 0 {
			s.left--
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func newShelf() *shelf { return &shelf{blocks: make(map[string][]byte)} }

func (s *shelf) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(lc ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		if err := s.pass(lc.Ctx); err != nil {
			return nil, err
		}
		data := s.get(l)
		if data == nil {
			return nil, errors.New("not on the shelf")
		}
		return bytes.NewBuffer(bytes.Clone(data)), nil
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		var data bytes.Buffer
		return &data, func(l ipld.Link) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.blocks[l.Binary()] = data.Bytes()
			return nil
		}, nil
	}
	return ls
}

// fill puts a list of n random blocks of 64 KiB on the shelf and returns its root.
func (s *shelf) fill(t testing.TB, n int, seed byte) (root cid.Cid, size int) {
	t.Helper()
	ls, random := s.links(), mrand.NewChaCha8([32]byte{seed})
	list := basicnode.Prototype.List.NewBuilder()
	links, err := list.BeginList(int64(n))
	must(t, err)
	proto := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32}}
	for range n {
		data := make([]byte, 64<<10)
		_, _ = random.Read(data) // never fails
		l, err := ls.Store(ipld.LinkContext{Ctx: t.Context()}, proto, basicnode.NewBytes(data))
		must(t, err)
		must(t, links.AssembleValue().AssignLink(l))
	}
	must(t, links.Finish())
	proto.Codec = cid.DagCBOR
	l, err := ls.Store(ipld.LinkContext{Ctx: t.Context()}, proto, list.Build())
	must(t, err)
	return l.(cidlink.Link).Cid, n<<16 + len(s.get(l))
}

func (s *shelf) get(l ipld.Link) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks[l.Binary()]
}

// homemade returns a site on a stack that a program built without transport.New,
// with a store of its own: plain, but for the manager that does not panic, or
// with the guards of transport around everything.
func homemade(t testing.TB, guarded bool) (site, *shelf) {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	must(t, err)
	return homemadeOn(t, h, guarded)
}

// homemadeOn is homemade on a host, which it closes.
func homemadeOn(t testing.TB, h host.Host, guarded bool) (site, *shelf) {
	t.Helper()
	return homemadeOver(t, h, guarded, dssync.MutexWrap(datastore.NewMapDatastore()))
}

// homemadeOver is homemadeOn with a datastore.
func homemadeOver(t testing.TB, h host.Host, guarded bool, ds datastore.Batching) (site, *shelf) {
	t.Helper()
	t.Cleanup(func() { must(t, h.Close()) })
	own := newShelf()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	out := site{host: h}
	var plain datatransfer.Manager
	var err error
	if guarded {
		patient := transport.WrapHost(h, transport.HostGuard{})
		t.Cleanup(patient.Release)
		network := transport.WrapNetwork(gsnet.NewFromLibp2pHost(patient), transport.NetworkGuard{Logger: testLogger()})
		exchange := transport.WrapExchange(gsimpl.New(ctx, network, own.links(), gsimpl.RejectAllRequestsByDefault()), h.ID(),
			transport.GuardConfig{Network: network, Logger: testLogger()})
		t.Cleanup(func() { must(t, exchange.Close()) })
		messages := transport.WrapTransferNetwork(dtnet.NewFromLibp2pHost(h), transport.TransferGuard{Logger: testLogger()})
		plain, err = dtimpl.NewDataTransfer(ds, messages, transport.WrapTransport(dtgs.NewTransport(h.ID(), exchange), exchange))
		out.meter, out.hold = meterOf(exchange), exchange.Hold
	} else {
		gs := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), own.links(), gsimpl.RejectAllRequestsByDefault())
		plain, err = dtimpl.NewDataTransfer(ds, dtnet.NewFromLibp2pHost(h), dtgs.NewTransport(h.ID(), gs))
	}
	must(t, err)
	out.plain, out.transfers = plain, transport.WrapManager(plain)
	ready := make(chan error, 1)
	plain.OnReady(func(err error) { ready <- err })
	must(t, plain.Start(ctx))
	must(t, <-ready)
	t.Cleanup(func() { stopWithin(5*time.Second, plain) })
	return out, own
}

// stopWithin stops a manager of the plain library, which heeds no deadline: where a
// response ends while the state machines are stopped, it waits for itself for ever.
// Transfers that did not end are a failure already.
func stopWithin(d time.Duration, plain datatransfer.Manager) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		_ = plain.Stop(ctx) // see above
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
	}
}

// meterOf lets the market read an exchange.
func meterOf(e *transport.Exchange) market.Meter {
	return func(chid datatransfer.ChannelID) (market.Progress, bool) {
		p, ok := e.Progress(chid)
		return market.Progress(p), ok
	}
}

// trade is a program's own use of a manager: a voucher type with its own
// validator and, if it has one, its own store for each channel.
type trade struct {
	name  datatransfer.TypeIdentifier
	store *shelf // nil: that of the stack

	mu      sync.Mutex
	strange []string                        // guarded by mu; vouchers of others that it was shown
	seen    map[datatransfer.ChannelID]bool // guarded by mu; channels that it was asked about
}

func newTrade(t testing.TB, m datatransfer.Manager, name datatransfer.TypeIdentifier, store *shelf) *trade {
	t.Helper()
	tr := &trade{name: name, store: store, seen: make(map[datatransfer.ChannelID]bool)}
	must(t, m.RegisterVoucherType(name, tr))
	if store != nil {
		must(t, m.RegisterTransportConfigurer(name, func(_ datatransfer.ChannelID, v datatransfer.TypedVoucher) []datatransfer.TransportOption {
			tr.look(v.Voucher)
			return []datatransfer.TransportOption{transport.UseStore(store.links())}
		}))
	}
	return tr
}

// look notes a voucher that is not of this trade.
func (tr *trade) look(v datamodel.Node) bool {
	word, err := v.AsString()
	if err == nil && word == string(tr.name) {
		return true
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.strange = append(tr.strange, word)
	return false
}

func (tr *trade) validate(chid datatransfer.ChannelID, v datamodel.Node) (datatransfer.ValidationResult, error) {
	tr.mu.Lock()
	tr.seen[chid] = true
	tr.mu.Unlock()
	return datatransfer.ValidationResult{Accepted: tr.look(v)}, nil
}

func (tr *trade) ValidatePull(chid datatransfer.ChannelID, _ peer.ID, v datamodel.Node, _ cid.Cid, _ datamodel.Node) (datatransfer.ValidationResult, error) {
	return tr.validate(chid, v)
}

func (tr *trade) ValidatePush(chid datatransfer.ChannelID, _ peer.ID, v datamodel.Node, _ cid.Cid, _ datamodel.Node) (datatransfer.ValidationResult, error) {
	return tr.validate(chid, v)
}

func (tr *trade) ValidateRestart(chid datatransfer.ChannelID, st datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
	return tr.validate(chid, st.Voucher().Voucher)
}

// open opens a channel of the trade from or to a peer. The channel that it returns
// tells of the end.
func (tr *trade) open(ctx context.Context, s site, push bool, with peer.ID, root cid.Cid) (datatransfer.ChannelID, <-chan datatransfer.ChannelState, error) {
	ended := make(chan datatransfer.ChannelState, 1)
	open := s.transfers.OpenPullDataChannel
	if push {
		open = s.plain.OpenPushDataChannel
	}
	chid, err := open(ctx, with, datatransfer.TypedVoucher{Type: tr.name, Voucher: basicnode.NewString(string(tr.name))}, root,
		selectorparse.CommonSelector_ExploreAllRecursively, datatransfer.WithSubscriber(func(_ datatransfer.Event, st datatransfer.ChannelState) {
			if channels.IsChannelTerminated(st.Status()) {
				ended <- st
			}
		}))
	return chid, ended, err
}

// move opens a channel of the trade and waits for its end.
func (tr *trade) move(ctx context.Context, s site, push bool, with peer.ID, root cid.Cid) (datatransfer.ChannelState, error) {
	_, ended, err := tr.open(ctx, s, push, with, root)
	if err != nil {
		return nil, err
	}
	select {
	case st := <-ended:
		return st, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
