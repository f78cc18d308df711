package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// attacker speaks graphsync without a library above it.
type attacker struct {
	host   host.Host
	net    gsnet.GraphSyncNetwork
	to     peer.ID
	sender gsnet.MessageSender // one stream: in order

	hold    chan struct{} // if not nil, nothing is read after the first message until it is closed
	holding chan struct{} // closed at the first message
	once    sync.Once

	mu     sync.Mutex
	bytes  map[graphsync.RequestID]uint64 // all block bytes of messages that name the request
	total  uint64
	status map[graphsync.RequestID]graphsync.ResponseStatusCode
	more   chan struct{}
}

func newAttacker(t testing.TB, victim host.Host) *attacker {
	t.Helper()
	h := nodeHost(t)
	a := &attacker{
		host: h, net: gsnet.NewFromLibp2pHost(h), to: victim.ID(),
		bytes:   make(map[graphsync.RequestID]uint64),
		status:  make(map[graphsync.RequestID]graphsync.ResponseStatusCode),
		more:    make(chan struct{}),
		holding: make(chan struct{}),
	}
	a.net.SetDelegate(a)
	h.SetStreamHandler(datatransfer.ProtocolDataTransfer1_2, func(s network.Stream) {
		_, _ = io.Copy(io.Discard, s) // or the provider tries for seconds to say that it is done
		_ = s.Close()
	})
	connect(t, h, victim)
	return a
}

func (a *attacker) ReceiveMessage(_ context.Context, _ peer.ID, m gsmsg.GraphSyncMessage) {
	if a.hold != nil {
		a.once.Do(func() { close(a.holding) })
		<-a.hold
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var n uint64
	for _, b := range m.Blocks() {
		n += uint64(len(b.RawData()))
	}
	a.total += n
	for _, r := range m.Responses() {
		a.bytes[r.RequestID()] += n
		a.status[r.RequestID()] = r.Status()
	}
	close(a.more)
	a.more = make(chan struct{})
}

func (a *attacker) ReceiveError(peer.ID, error) {}
func (a *attacker) Connected(peer.ID)           {}
func (a *attacker) Disconnected(peer.ID)        {}

func (a *attacker) send(t testing.TB, ctx context.Context, reqs ...gsmsg.GraphSyncRequest) {
	t.Helper()
	if a.sender == nil {
		s, err := a.net.NewMessageSender(ctx, a.to, gsnet.MessageSenderOpts{})
		if err != nil {
			t.Fatal(err)
		}
		a.sender = s
	}
	if err := a.sender.SendMsg(ctx, requestsMessage(reqs...)); err != nil {
		t.Fatal(err)
	}
}

// outcome waits until a request has a final status, or until ctx is done, and
// returns the status and the bytes that came with it.
func (a *attacker) outcome(ctx context.Context, id graphsync.RequestID) (graphsync.ResponseStatusCode, uint64) {
	for {
		a.mu.Lock()
		s, has := a.status[id]
		n, more := a.bytes[id], a.more
		a.mu.Unlock()
		if has && s.IsTerminal() {
			return s, n
		}
		select {
		case <-more:
		case <-ctx.Done():
			return s, n
		}
	}
}

// outcomeOrPause is like outcome but takes a pause for one.
func (a *attacker) outcomeOrPause(ctx context.Context, id graphsync.RequestID) (graphsync.ResponseStatusCode, uint64) {
	for {
		a.mu.Lock()
		s, has := a.status[id]
		n, more := a.bytes[id], a.more
		a.mu.Unlock()
		if has && (s.IsTerminal() || s == graphsync.RequestPaused) {
			return s, n
		}
		select {
		case <-more:
		case <-ctx.Done():
			return s, n
		}
	}
}

// dtExt returns an extension with a data-transfer message.
func dtExt(t testing.TB, m datatransfer.Message) graphsync.ExtensionData {
	t.Helper()
	es, err := extension.ToExtensionData(m, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
	if err != nil {
		t.Fatal(err)
	}
	return es[0]
}

// pull is a message that opens or restarts a pull.
func pull(t testing.TB, id datatransfer.TransferID, restart bool, root cid.Cid, sel datamodel.Node) graphsync.ExtensionData {
	t.Helper()
	v := testVoucher()
	m, err := message.NewRequest(id, restart, true, &v, root, sel)
	if err != nil {
		t.Fatal(err)
	}
	return dtExt(t, m)
}

func newRequest(root cid.Cid, sel datamodel.Node, ext ...graphsync.ExtensionData) gsmsg.GraphSyncRequest {
	return gsmsg.NewRequest(graphsync.NewRequestID(), root, sel, 0, ext...)
}

// plainProvider is the stack as the two libraries give it, with store as its
// default store: the state of the art that the guard is measured against.
func plainProvider(t testing.TB, h host.Host, store *memStore, v datatransfer.RequestValidator) datatransfer.Manager {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	gs := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), store.links())
	m, err := dtimpl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), dtnet.NewFromLibp2pHost(h), dtgs.NewTransport(h.ID(), gs))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.RegisterVoucherType(testType, v); err != nil {
		t.Fatal(err)
	}
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		stopped := make(chan struct{})
		go func() {
			_ = m.Stop(context.Background()) // after an attack it may wait for itself, and is given up
			close(stopped)
		}()
		select {
		case <-stopped:
		case <-time.After(time.Second):
		}
	})
	return m
}

// attackByCancel sends a request with a cancel message in it, then an honest one
// by another peer, and returns the status of that.
func attackByCancel(t *testing.T, ctx context.Context, victim host.Host, d dag) graphsync.ResponseStatusCode {
	a := newAttacker(t, victim)
	a.send(t, ctx, newRequest(d.root, wholeDAG(), dtExt(t, message.CancelRequest(7))))
	honest := newAttacker(t, victim)
	r := newRequest(d.root, wholeDAG(), pull(t, 8, false, d.root, wholeDAG()))
	honest.send(t, ctx, r)
	status, _ := honest.outcome(ctx, r.ID())
	return status
}

// TestCancelExtension shows that one request with a cancel message in it ends
// all serving of the plain stack, and that the guarded one serves on.
func TestCancelExtension(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		// In a process of its own: what hangs can not be stopped.
		cmd := exec.CommandContext(within(t, 30*time.Second), os.Args[0], "-test.run=^TestPlainCancelExtension$", "-test.v")
		cmd.Env = append(os.Environ(), plainEnv+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(plainDead)) {
			t.Errorf("the plain stack has become better: %v\n%s", err, out)
		}
	})
	t.Run("guarded", func(t *testing.T) {
		t.Parallel()
		n, store := guardedProvider(t, &validator{})
		d := buildDAG(t, store, 5, 4, 1000, nil)
		if s := attackByCancel(t, within(t, 10*time.Second), n.cfg.Host, d); s != graphsync.RequestCompletedFull {
			t.Errorf("status %v", s)
		}
	})
}

const (
	plainEnv  = "TRANSPORT_TEST_PLAIN"
	plainDead = "the plain stack serves nobody"
)

// TestPlainCancelExtension is the other half of TestCancelExtension.
func TestPlainCancelExtension(t *testing.T) {
	if os.Getenv(plainEnv) == "" {
		t.Skip("run by TestCancelExtension")
	}
	h, store := nodeHost(t), newMemStore()
	d := buildDAG(t, store, 5, 4, 1000, nil)
	plainProvider(t, h, store, &validator{})
	// Served, it takes some milliseconds.
	if s := attackByCancel(t, within(t, 2*time.Second), h, d); !s.IsTerminal() {
		fmt.Println(plainDead)
	}
	os.Exit(0)
}

func guardedProvider(t testing.TB, v *validator) (*Node, *memStore) {
	t.Helper()
	n, store := newTestNode(t, nodeHost(t), nil), newMemStore()
	serveFrom(t, n.Transfers(), v, store)
	return n, store
}

// TestRefused sends requests that must not get a byte, each by a peer of its own
// that has an accepted channel which is paused, and checks that serving goes on.
func TestRefused(t *testing.T) {
	ctx := within(t, 60*time.Second)
	held := datatransfer.ValidationResult{Accepted: true, ForcePause: true}
	n, store := guardedProvider(t, &validator{pull: func(chid datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		if chid.ID == 1 {
			return held, nil
		}
		return datatransfer.ValidationResult{Accepted: true}, nil
	}})
	d, other := buildDAG(t, store, 6, 4, 1000, nil), buildDAG(t, store, 7, 4, 1000, nil)
	all, one := wholeDAG(), selectorparse.CommonSelector_MatchPoint
	voucher := testVoucher()
	more, err := message.VoucherRequest(1, &voucher)
	if err != nil {
		t.Fatal(err)
	}
	push, err := message.NewRequest(2, false, false, &voucher, d.root, all)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := message.NewResponse(2, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	skip := func(n datamodel.Node) graphsync.ExtensionData {
		return graphsync.ExtensionData{Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: n}
	}
	cases := []struct {
		name string
		req  gsmsg.GraphSyncRequest
		why  Reason
	}{
		{"no message", newRequest(d.root, all), ReasonNoTransfer},
		{"shallow selector, no message", newRequest(d.root, one), ReasonNoTransfer},
		{"other root", newRequest(other.root, all, pull(t, 2, false, d.root, all)), ReasonMismatch},
		{"other selector", newRequest(d.root, all, pull(t, 2, false, d.root, one)), ReasonMismatch},
		{"second request on a live channel", newRequest(d.root, all, pull(t, 1, false, d.root, all)), ReasonLive},
		{"voucher for a live channel", newRequest(d.root, all, dtExt(t, more)), ReasonNoTransfer},
		{"voucher, other root", newRequest(other.root, all, dtExt(t, more)), ReasonNoTransfer},
		{"resume of a live channel", newRequest(d.root, all, dtExt(t, message.UpdateRequest(1, false))), ReasonNoTransfer},
		{"cancel", newRequest(d.root, all, dtExt(t, message.CancelRequest(1))), ReasonNoTransfer},
		{"push", newRequest(d.root, all, dtExt(t, push)), ReasonNoTransfer},
		{"response", newRequest(d.root, all, dtExt(t, reply)), ReasonNoTransfer},
		{"not a message", newRequest(d.root, all, graphsync.ExtensionData{Name: extension.ExtensionDataTransfer1_1, Data: basicnode.NewInt(1)}), ReasonMalformed},
		{"blocks it holds", newRequest(d.root, all, pull(t, 2, false, d.root, all), graphsync.ExtensionData{Name: graphsync.ExtensionDoNotSendCIDs, Data: basicnode.NewBytes([]byte{0x80})}), ReasonExtension},
		{"unknown extension", newRequest(d.root, all, pull(t, 2, false, d.root, all), graphsync.ExtensionData{Name: "x", Data: basicnode.NewInt(1)}), ReasonExtension},
		{"negative skip", newRequest(d.root, all, pull(t, 2, false, d.root, all), skip(basicnode.NewInt(-1))), ReasonMalformed},
		{"skip that is no number", newRequest(d.root, all, pull(t, 2, false, d.root, all), skip(basicnode.NewString("1"))), ReasonMalformed},
		{"key that is no string", newRequest(d.root, all, pull(t, 2, false, d.root, all), graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewInt(1)}), ReasonMalformed},
		{"restart of an unknown channel", newRequest(d.root, all, pull(t, 99, true, d.root, all)), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := newAttacker(t, n.cfg.Host)
			first := newRequest(d.root, all, pull(t, 1, false, d.root, all))
			before := n.Dropped()[c.why]
			a.send(t, ctx, first)
			a.send(t, ctx, c.req)
			status, bytes := a.outcome(ctx, c.req.ID())
			if !status.IsFailure() || bytes != 0 {
				t.Errorf("status %v with %d bytes", status, bytes)
			}
			if c.why != "" && n.Dropped()[c.why] == before {
				t.Errorf("not counted as %q: %v", c.why, n.Dropped())
			}
		})
	}
	honest := newAttacker(t, n.cfg.Host)
	r := newRequest(d.root, all, pull(t, 2, false, d.root, all))
	honest.send(t, ctx, r)
	if s, got := honest.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull || got != d.size {
		t.Errorf("honest request after the attacks: status %v, %d of %d bytes", s, got, d.size)
	}
}

// nullRequests are what would crash graphsync: null where a value is read, and
// no selector or root.
func nullRequests(t testing.TB, root cid.Cid) []gsmsg.GraphSyncRequest {
	all := wholeDAG()
	null := func(name graphsync.ExtensionName) graphsync.ExtensionData {
		return graphsync.ExtensionData{Name: name, Data: datamodel.Null}
	}
	return []gsmsg.GraphSyncRequest{
		newRequest(root, all, pull(t, 1, false, root, all), null(graphsync.ExtensionDeDupByKey)),
		newRequest(root, all, pull(t, 2, false, root, all), null(graphsync.ExtensionsDoNotSendFirstBlocks)),
		newRequest(root, all, pull(t, 3, false, root, all), null(graphsync.ExtensionDoNotSendCIDs)),
		newRequest(root, all, pull(t, 3, false, root, all), graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey}),
		newRequest(root, all, null(extension.ExtensionDataTransfer1_1)),
		newRequest(root, nil, pull(t, 4, false, root, all)),
		newRequest(root, datamodel.Null, pull(t, 5, false, root, datamodel.Null)),
		newRequest(cid.Undef, all, pull(t, 5, false, root, all)),
		gsmsg.NewUpdateRequest(graphsync.NewRequestID(), null(extension.ExtensionDataTransfer1_1)),
	}
}

// TestNull sends them, some of which the codec refuses, and then an honest
// request, which is served.
func TestNull(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, store := guardedProvider(t, &validator{})
	d := buildDAG(t, store, 8, 4, 1000, nil)
	a := newAttacker(t, n.cfg.Host)
	for _, r := range nullRequests(t, d.root) {
		_ = a.net.SendMessage(ctx, a.to, requestsMessage(r)) // fails if the codec refuses it
	}
	r := newRequest(d.root, wholeDAG(), pull(t, 9, false, d.root, wholeDAG()))
	a.send(t, ctx, r)
	if s, got := a.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull || got != d.size {
		t.Errorf("honest request: status %v, %d of %d bytes", s, got, d.size)
	}
}

// TestForeignRequests checks that a peer cannot cancel or update what another
// one asked for, even if it knows the id.
func TestForeignRequests(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, store := guardedProvider(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, ForcePause: true}, nil
	}})
	d := buildDAG(t, store, 9, 4, 1000, nil)
	w := watch(t, n.Transfers())
	victim, thief := newAttacker(t, n.cfg.Host), newAttacker(t, n.cfg.Host)
	r := newRequest(d.root, wholeDAG(), pull(t, 1, false, d.root, wholeDAG()))
	victim.send(t, ctx, r)
	chid := w.until(t, ctx, "not accepted", func(e seen) bool { return e.code == datatransfer.PauseResponder }).chid
	v := testVoucher()
	m, err := message.VoucherRequest(1, &v)
	if err != nil {
		t.Fatal(err)
	}
	thief.send(t, ctx, gsmsg.NewCancelRequest(r.ID()))
	thief.send(t, ctx, gsmsg.NewUpdateRequest(r.ID(), dtExt(t, m)))
	thief.send(t, ctx, gsmsg.NewRequest(r.ID(), d.root, wholeDAG(), 0, pull(t, 1, false, d.root, wholeDAG())))
	for n.Dropped()[ReasonNotOwner] < 3 {
		if ctx.Err() != nil {
			t.Fatalf("dropped %v", n.Dropped())
		}
		pause(ctx, nil, time.Millisecond)
	}
	if err := n.Transfers().UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true}); err != nil {
		t.Fatal(err)
	}
	if s, got := victim.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull || got != d.size {
		t.Errorf("status %v, %d of %d bytes", s, got, d.size)
	}
}
