package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	golog "github.com/ipfs/go-log/v2"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	golog.SetAllLoggers(golog.LevelDPanic)
	goleak.VerifyTestMain(m,
		// Started when it is imported, for the life of the process.
		goleak.IgnoreTopFunction("github.com/ipfs/go-log/writer.(*MirrorWriter).logRoutine"),
	)
}

// quiet is a logger for tests; set TRANSPORT_LOG to see what it is told.
func quiet() *slog.Logger {
	if os.Getenv("TRANSPORT_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// within ends a test that hangs.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func nodeHost(t testing.TB) host.Host {
	t.Helper()
	h, err := NewHost(HostConfig{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func connect(t testing.TB, from, to host.Host) {
	t.Helper()
	if err := from.Connect(context.Background(), peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

func newTestNode(t testing.TB, h host.Host, change func(*Config)) *Node {
	t.Helper()
	cfg := Config{Host: h, Logger: quiet()}
	if change != nil {
		change(&cfg)
	}
	n, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// memStore is a block store in memory.
type memStore struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
	reads  int
}

func newMemStore() *memStore { return &memStore{blocks: make(map[cid.Cid][]byte)} }

func (m *memStore) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.reads++
		b, has := m.blocks[l.(cidlink.Link).Cid]
		if !has {
			return nil, fmt.Errorf("no block %s", l)
		}
		return bytes.NewBuffer(b), nil
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l ipld.Link) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.blocks[l.(cidlink.Link).Cid] = buf.Bytes()
			return nil
		}, nil
	}
	return ls
}

func (m *memStore) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.blocks)
}

func (m *memStore) get(c cid.Cid) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.blocks[c]
}

func (m *memStore) put(c cid.Cid, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[c] = b
}

// dag is a list of links to raw leaves.
type dag struct {
	root   cid.Cid
	size   uint64    // of all different blocks
	leaves []cid.Cid // in the order of the traversal
	rootSz uint64
}

// buildDAG stores n leaves of the given size, each different, and a root that
// links to them in the order given by order, or one after the other if it is nil.
func buildDAG(t testing.TB, m *memStore, seed uint64, n, size int, order []int) dag {
	t.Helper()
	ls := m.links()
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rng := mrand.NewChaCha8(key)
	lp := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}}
	leaves := make([]ipld.Link, n)
	for i := range leaves {
		b := make([]byte, size)
		_, _ = rng.Read(b)
		l, err := ls.Store(ipld.LinkContext{}, lp, basicnode.NewBytes(b))
		if err != nil {
			t.Fatal(err)
		}
		leaves[i] = l
	}
	if order == nil {
		for i := range n {
			order = append(order, i)
		}
	}
	d := dag{size: uint64(n * size)}
	root, err := qp.BuildList(basicnode.Prototype.Any, int64(len(order)), func(la datamodel.ListAssembler) {
		for _, i := range order {
			qp.ListEntry(la, qp.Link(leaves[i]))
			d.leaves = append(d.leaves, leaves[i].(cidlink.Link).Cid)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	lp.Prefix.Codec = cid.DagCBOR
	l, err := ls.Store(ipld.LinkContext{}, lp, root)
	if err != nil {
		t.Fatal(err)
	}
	d.root = l.(cidlink.Link).Cid
	d.rootSz = uint64(len(m.get(d.root)))
	d.size += d.rootSz
	return d
}

// wholeDAG selects everything.
func wholeDAG() datamodel.Node { return selectorparse.CommonSelector_ExploreAllRecursively }

const testType = datatransfer.TypeIdentifier("test")

func testVoucher() datatransfer.TypedVoucher {
	return datatransfer.TypedVoucher{Voucher: basicnode.NewString("please"), Type: testType}
}

// validator answers with what its functions say; nil accepts.
type validator struct {
	pull    func(datatransfer.ChannelID) (datatransfer.ValidationResult, error)
	restart func(datatransfer.ChannelID, datatransfer.ChannelState) (datatransfer.ValidationResult, error)
}

func (v *validator) ValidatePush(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{}, nil
}

func (v *validator) ValidatePull(chid datatransfer.ChannelID, _ peer.ID, _ datamodel.Node, _ cid.Cid, _ datamodel.Node) (datatransfer.ValidationResult, error) {
	if v.pull == nil {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}
	return v.pull(chid)
}

func (v *validator) ValidateRestart(chid datatransfer.ChannelID, s datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
	if v.restart == nil {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}
	return v.restart(chid, s)
}

// serveFrom makes m serve test vouchers from a store.
func serveFrom(t testing.TB, m datatransfer.Manager, v *validator, store *memStore) {
	t.Helper()
	if err := m.RegisterVoucherType(testType, v); err != nil {
		t.Fatal(err)
	}
	err := m.RegisterTransportConfigurer(testType, func(datatransfer.ChannelID, datatransfer.TypedVoucher) []datatransfer.TransportOption {
		return []datatransfer.TransportOption{UseStore(store.links())}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// watcher waits for events of a manager.
type watcher struct {
	mu     sync.Mutex
	events []seen
	more   chan struct{}
}

type seen struct {
	code   datatransfer.EventCode
	chid   datatransfer.ChannelID
	status datatransfer.Status
	state  datatransfer.ChannelState
	msg    string
}

func watch(t testing.TB, m datatransfer.Manager) *watcher {
	w := &watcher{more: make(chan struct{})}
	unsub := m.SubscribeToEvents(func(e datatransfer.Event, s datatransfer.ChannelState) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, seen{e.Code, s.ChannelID(), s.Status(), s, e.Message})
		close(w.more)
		w.more = make(chan struct{})
	})
	t.Cleanup(unsub)
	return w
}

// until waits for an event that f accepts, past ones included.
func (w *watcher) until(t testing.TB, ctx context.Context, what string, f func(seen) bool) seen {
	t.Helper()
	for next := 0; ; {
		w.mu.Lock()
		for ; next < len(w.events); next++ {
			if f(w.events[next]) {
				e := w.events[next]
				w.mu.Unlock()
				return e
			}
		}
		more := w.more
		w.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("%s: %v\n%s", what, ctx.Err(), w.dump())
		}
	}
}

func (w *watcher) dump() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b bytes.Buffer
	for i, e := range w.events {
		if i > len(w.events)-40 {
			fmt.Fprintf(&b, "%s/%s q=%d s=%d r=%d %s\n", datatransfer.Events[e.code], e.status, e.state.Queued(), e.state.Sent(), e.state.Received(), e.msg)
		}
	}
	return b.String()
}

// finished waits until a channel is terminal.
func (w *watcher) finished(t testing.TB, ctx context.Context, chid datatransfer.ChannelID) seen {
	t.Helper()
	return w.until(t, ctx, "channel does not finish", func(e seen) bool { return e.chid == chid && terminal(e.status) })
}

// pair is a provider and a client that know each other.
type pair struct {
	provider, client   *Node
	source, sink       *memStore
	providing, getting *watcher
}

func newNodePair(t testing.TB, v *validator, change func(*Config)) *pair {
	t.Helper()
	ph, ch := nodeHost(t), nodeHost(t)
	p := &pair{source: newMemStore(), sink: newMemStore()}
	p.provider, p.client = newTestNode(t, ph, change), newTestNode(t, ch, nil)
	serveFrom(t, p.provider.Transfers(), v, p.source)
	p.providing, p.getting = watch(t, p.provider.Transfers()), watch(t, p.client.Transfers())
	connect(t, ch, ph)
	return p
}

// open starts a pull of d by the client.
func (p *pair) open(t testing.TB, ctx context.Context, root cid.Cid) datatransfer.ChannelID {
	t.Helper()
	chid, err := p.client.Transfers().OpenPullDataChannel(ctx, p.provider.cfg.Host.ID(), testVoucher(), root, wholeDAG(),
		datatransfer.WithTransportOptions(UseStore(p.sink.links())))
	if err != nil {
		t.Fatal(err)
	}
	return chid
}
