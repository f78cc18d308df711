package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/filecoin-project/go-data-transfer/v2/transport/graphsync/extension"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// Every attack runs twice: against the plain stack, to show the damage, and
// against a seller, which must stand it. If the first half fails the libraries
// have become better, or the attack was never one; the test says which.

// shop is what is on offer in most attacks: one DAG that the attacker has a deal
// for and one that it has not.
type shop struct {
	cars        []string
	deal, other cid.Cid
	dealSize    uint64
	blocks      *piece.Store
	ofDeal      map[cid.Cid]bool
}

const (
	shopBlock    = 64 << 10
	shopInterval = 256 << 10
	// shopCredit is what may be served without a payment: what was agreed to, and
	// the block that crosses it with what UnixFS adds to its data.
	shopCredit = shopInterval + shopBlock + 1024
)

var shopAsk = voucher.Ask{PricePerByte: 3, PaymentInterval: shopInterval}

func newShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{}
	var size uint64
	var car string
	car, s.deal, s.dealSize = makeCAR(t, t.TempDir(), 2<<20, shopBlock)
	s.cars = append(s.cars, car)
	car, s.other, size = makeCAR(t, t.TempDir(), 1<<20+1, shopBlock)
	_ = size
	s.cars = append(s.cars, car)
	s.open(t)
	return s
}

// open reads the CARs, for the plain stack and to know which block is whose.
func (s *shop) open(t testing.TB) {
	t.Helper()
	var err error
	s.blocks, err = piece.Open(t.Context(), piece.Config{Paths: s.cars, IndexDir: t.TempDir(), Logger: testLogger()})
	must(t, err)
	t.Cleanup(func() { must(t, s.blocks.Close()) })
	s.ofDeal = make(map[cid.Cid]bool)
	ls := s.links()
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		s.ofDeal[l.(cidlink.Link).Cid] = true
		return read(lc, l)
	}
	_, _, err = selectors.Complete(t.Context(), ls, s.deal, selectors.All(), 1<<20)
	must(t, err)
}

// links reads every block of the shop: the store that a plain stack serves from.
func (s *shop) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		b, err := s.blocks.Get(l.(cidlink.Link).Cid)
		return bytes.NewBuffer(b), err
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		return io.Discard, func(ipld.Link) error { return nil }, nil
	}
	return ls
}

// plain is a provider of the two libraries as they come, which accepts
// everything and goes by their own limit.
type plain struct {
	host    host.Host
	manager datatransfer.Manager
	gs      graphsync.GraphExchange
	stop    func()
}

// credulous accepts what anybody proposes, until limit bytes are queued.
type credulous struct{ limit uint64 }

func (c credulous) result() (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{Accepted: true, DataLimit: c.limit, RequiresFinalization: c.limit != 0}, nil
}

func (c credulous) ValidatePush(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return c.result()
}

func (c credulous) ValidatePull(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return c.result()
}

func (c credulous) ValidateRestart(datatransfer.ChannelID, datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
	return c.result()
}

// plainHost is a host as libp2p makes it, on loopback TCP.
func plainHost(t testing.TB, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())...)
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func newPlain(t testing.TB, links ipld.LinkSystem, limit uint64, opts ...gsimpl.Option) *plain {
	t.Helper()
	return newPlainHooked(t, links, limit, nil, opts...)
}

// newPlainHooked has a hook that meets each block before data-transfer does.
func newPlainHooked(t testing.TB, links ipld.LinkSystem, limit uint64, hook graphsync.OnOutgoingBlockHook, opts ...gsimpl.Option) *plain {
	t.Helper()
	return newPlainOn(t, plainHost(t), dssync.MutexWrap(datastore.NewMapDatastore()), links, limit, hook, opts...)
}

// newPlainOn takes up the channels that are in ds.
func newPlainOn(t testing.TB, h host.Host, ds datastore.Batching, links ipld.LinkSystem, limit uint64, hook graphsync.OnOutgoingBlockHook, opts ...gsimpl.Option) *plain {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &plain{host: h, gs: gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), links, opts...)}
	if hook != nil {
		p.gs.RegisterOutgoingBlockHook(hook)
	}
	m, err := dtimpl.NewDataTransfer(ds, dtnet.NewFromLibp2pHost(h), dtgs.NewTransport(h.ID(), p.gs))
	must(t, err)
	p.manager = m
	must(t, m.RegisterVoucherType(voucher.ProposalType, credulous{limit}))
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	must(t, m.Start(ctx))
	must(t, <-ready)
	p.stop = once(func() {
		cancel()
		stopWithin(time.Second, m) // it may hang after an attack, and is given up
	})
	t.Cleanup(p.stop)
	return p
}

// raider speaks graphsync by itself.
type raider struct {
	t      testing.TB
	host   host.Host
	net    gsnet.GraphSyncNetwork
	to     peer.ID
	sender gsnet.MessageSender // one stream: in order
	hold   chan struct{}       // if not nil, nothing is read after the first message until it is closed

	mu     sync.Mutex // guards the fields below
	blocks map[cid.Cid]int
	total  uint64 // block bytes, those that came again included
	asked  int    // requests that came from the other side
	status map[graphsync.RequestID]graphsync.ResponseStatusCode
	more   chan struct{}
}

func newRaider(t testing.TB, victim host.Host) *raider {
	t.Helper()
	return newRaiderOf(t, peer.AddrInfo{ID: victim.ID(), Addrs: victim.Addrs()})
}

// newRaiderOf raids a host that may be in another process.
func newRaiderOf(t testing.TB, victim peer.AddrInfo) *raider {
	t.Helper()
	h := newHost(t, false)
	t.Cleanup(func() { _ = h.Close() })
	r := &raider{
		t: t, host: h, net: gsnet.NewFromLibp2pHost(h), to: victim.ID,
		blocks: make(map[cid.Cid]int), status: make(map[graphsync.RequestID]graphsync.ResponseStatusCode), more: make(chan struct{}),
	}
	r.net.SetDelegate(r)
	h.SetStreamHandler(datatransfer.ProtocolDataTransfer1_2, func(s network.Stream) {
		_, _ = io.Copy(io.Discard, s) // or the provider tries for seconds to tell it something
		_ = s.Close()
	})
	must(t, h.Connect(t.Context(), victim))
	return r
}

func (r *raider) ReceiveMessage(_ context.Context, _ peer.ID, m gsmsg.GraphSyncMessage) {
	if r.hold != nil {
		<-r.hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range m.Blocks() {
		r.blocks[b.Cid()] = len(b.RawData())
		r.total += uint64(len(b.RawData()))
	}
	for _, s := range m.Responses() {
		r.status[s.RequestID()] = s.Status()
	}
	r.asked += len(m.Requests())
	close(r.more)
	r.more = make(chan struct{})
}

func (r *raider) ReceiveError(peer.ID, error) {}
func (r *raider) Connected(peer.ID)           {}
func (r *raider) Disconnected(peer.ID)        {}

func (r *raider) send(ctx context.Context, reqs ...gsmsg.GraphSyncRequest) {
	r.t.Helper()
	must(r.t, r.trySend(ctx, reqs...))
}

func (r *raider) trySend(ctx context.Context, reqs ...gsmsg.GraphSyncRequest) error {
	if r.sender == nil {
		s, err := r.net.NewMessageSender(ctx, r.to, gsnet.MessageSenderOpts{})
		if err != nil {
			return err
		}
		r.sender = s
	}
	all := make(map[graphsync.RequestID]gsmsg.GraphSyncRequest, len(reqs))
	for _, q := range reqs {
		all[q.ID()] = q
	}
	return r.sender.SendMsg(ctx, gsmsg.NewMessage(all, nil, nil))
}

// answered waits until a request is over or paused, or ctx is done.
func (r *raider) answered(ctx context.Context, id graphsync.RequestID) graphsync.ResponseStatusCode {
	for {
		r.mu.Lock()
		s, more := r.status[id], r.more
		r.mu.Unlock()
		if s != 0 && (s.IsTerminal() || s == graphsync.RequestPaused) {
			return s
		}
		select {
		case <-more:
		case <-ctx.Done():
			return s
		}
	}
}

// ask sends requests one after the other, each when the one before was answered.
func (r *raider) ask(ctx context.Context, reqs ...gsmsg.GraphSyncRequest) {
	r.t.Helper()
	for _, q := range reqs {
		r.send(ctx, q)
		r.rest(ctx, q.ID())
	}
}

// until waits until is says so, with r's lock held, or ctx is done.
func (r *raider) until(ctx context.Context, is func() bool) {
	for {
		r.mu.Lock()
		done, more := is(), r.more
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			r.t.Fatal("it did not come")
		}
	}
}

// calm is how long nothing must have come before the other side counts as done.
const calm = 300 * time.Millisecond

// rest waits until id is answered or nothing has come for a while: what is not
// served is often not answered either.
func (r *raider) rest(ctx context.Context, id graphsync.RequestID) {
	timer := time.NewTimer(calm)
	defer timer.Stop()
	for {
		r.mu.Lock()
		s, more := r.status[id], r.more
		r.mu.Unlock()
		if s != 0 && (s.IsTerminal() || s == graphsync.RequestPaused) {
			return
		}
		select {
		case <-more:
			timer.Reset(calm)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// loot is what a raider got.
type loot struct {
	total   uint64 // block bytes
	unique  uint64
	foreign uint64 // of total, those of blocks that no deal is about
	asked   int
}

// loot counts, after nothing more has come for a while.
func (r *raider) loot(ctx context.Context, s *shop) loot {
	r.rest(ctx, graphsync.RequestID{})
	r.mu.Lock()
	defer r.mu.Unlock()
	l := loot{total: r.total, asked: r.asked}
	for c, n := range r.blocks {
		l.unique += uint64(n)
		if !s.ofDeal[c] {
			l.foreign += uint64(n)
		}
	}
	return l
}

// dtExt is an extension that holds a data-transfer message.
func dtExt(t testing.TB, m datatransfer.Message) graphsync.ExtensionData {
	t.Helper()
	es, err := extension.ToExtensionData(m, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
	must(t, err)
	return es[0]
}

// proposalFor is the voucher of a deal on the shop's terms.
func proposalFor(t testing.TB, id voucher.DealID, root cid.Cid, sel datamodel.Node) datatransfer.TypedVoucher {
	t.Helper()
	p := voucher.DealProposal{PayloadCID: root, ID: id, Params: voucher.Params{
		Selector: sel, PricePerByte: shopAsk.PricePerByte, PaymentInterval: shopAsk.PaymentInterval}}
	node, err := p.Encode()
	must(t, err)
	return datatransfer.TypedVoucher{Voucher: node, Type: voucher.ProposalType}
}

// pullMessage opens or restarts the pull of a deal; its transfer has the same id.
func pullMessage(t testing.TB, id voucher.DealID, restart bool, root cid.Cid) graphsync.ExtensionData {
	t.Helper()
	v := proposalFor(t, id, root, selectors.All())
	m, err := message.NewRequest(datatransfer.TransferID(id), restart, true, &v, root, selectors.All())
	must(t, err)
	return dtExt(t, m)
}

func gsRequest(root cid.Cid, ext ...graphsync.ExtensionData) gsmsg.GraphSyncRequest {
	return gsmsg.NewRequest(graphsync.NewRequestID(), root, selectors.All(), 0, ext...)
}

// honestSale shows that a seller serves: a client that has never been there buys
// the DAG and pays for it exactly.
func honestSale(t testing.TB, ctx context.Context, s *seller, root cid.Cid, size uint64) {
	t.Helper()
	b := newBuyer(t, t.TempDir())
	defer b.stop()
	got, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL})
	if err != nil {
		t.Errorf("honest client: %v", err)
		return
	}
	if want := shopAsk.PricePerByte.Of(voucher.Bytes(size)); uint64(got.TotalReceived) != size || got.FundsSpent != want {
		t.Errorf("honest client: %d bytes for %s, want %d for %s", got.TotalReceived, got.FundsSpent, size, want)
	}
}

// childEnv names the attack that a child process runs.
const childEnv = "TOLLGRAPH_ATTACK_CHILD"

// inChild runs the test of that name in a process of its own, where it may
// crash, and returns what became of it and what it said. arg is what isChild
// returns there.
func inChild(t *testing.T, test, arg string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t, longest), os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=50s")
	cmd.Env = append(os.Environ(), childEnv+"="+test+"/"+arg, "GOTRACEBACK=single")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

// isChild says whether this process is the one that inChild started for a test.
func isChild(t *testing.T) (arg string, is bool) {
	return strings.CutPrefix(os.Getenv(childEnv), t.Name()+"/")
}

// cidOfNobody is a root that no store has.
func cidOfNobody() cid.Cid {
	b := append([]byte{0x12, 32}, make([]byte, 32)...)
	return cid.NewCidV1(cid.Raw, b)
}

// sendTransfer sends a data-transfer message on a stream of its own.
func (r *raider) sendTransfer(ctx context.Context, m datatransfer.Message) {
	r.t.Helper()
	s, err := r.host.NewStream(ctx, r.to, datatransfer.ProtocolDataTransfer1_2)
	must(r.t, err)
	must(r.t, m.ToNet(s))
	must(r.t, s.Close())
}

// sendRaw writes bytes to a new stream. The other side may cut it off, or not
// speak the protocol.
func (r *raider) sendRaw(ctx context.Context, proto string, raw []byte) {
	r.t.Helper()
	s, err := r.host.NewStream(ctx, r.to, protocol.ID(proto))
	if err != nil {
		return
	}
	_ = s.SetDeadline(time.Now().Add(time.Second)) // it need not read all of it
	if _, err = s.Write(raw); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// took is served with less patience.
func took(ctx context.Context, t testing.TB, s *seller, chid datatransfer.ChannelID, want uint64) uint64 {
	t.Helper()
	return standing(ctx, t, s, chid, want, 20*time.Millisecond, calm)
}
