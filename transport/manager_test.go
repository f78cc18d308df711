package transport

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestUpdateDoesNotPanic updates channels that are unknown or over, where the
// manager panics.
func TestUpdateDoesNotPanic(t *testing.T) {
	ctx := within(t, 20*time.Second)
	p := newNodePair(t, &validator{}, nil)
	m := p.provider.Transfers()
	accept := datatransfer.ValidationResult{Accepted: true, DataLimit: 5}
	unknown := datatransfer.ChannelID{Initiator: p.client.cfg.Host.ID(), Responder: p.provider.cfg.Host.ID(), ID: 99}
	if err := m.UpdateValidationStatus(ctx, unknown, accept); !errors.Is(err, datatransfer.ErrChannelNotFound) {
		t.Errorf("unknown channel: %v", err)
	}
	d := buildDAG(t, p.source, 50, 2, 1000, nil)
	chid := p.open(t, ctx, d.root)
	p.getting.finished(t, ctx, chid)
	p.providing.finished(t, ctx, chid)
	if err := m.UpdateValidationStatus(ctx, chid, accept); !errors.Is(err, ErrChannelTerminal) {
		t.Errorf("completed channel: %v", err)
	}
	if err := p.client.Transfers().RestartDataTransferChannel(ctx, chid); !errors.Is(err, ErrChannelTerminal) {
		t.Errorf("restart of a completed channel: %v", err)
	}
	// The plain one, for the record.
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the plain manager has become better")
			}
		}()
		_ = p.provider.raw.UpdateValidationStatus(ctx, unknown, accept)
	}()
}

// TestUpdateOutOfTime: the manager panics on the state of a channel that its context left
// it no time to get, as when a node is closed. That is no news.
func TestUpdateOutOfTime(t *testing.T) {
	ctx := within(t, 20*time.Second)
	p := newNodePair(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, ForcePause: true}, nil
	}}, nil)
	chid := p.open(t, ctx, buildDAG(t, p.source, 52, 2, 1000, nil).root)
	p.getting.until(t, ctx, "not accepted", func(e seen) bool { return e.code == datatransfer.Accept })
	over, cancel := context.WithCancel(ctx)
	cancel()
	err := p.provider.Transfers().UpdateValidationStatus(over, chid, datatransfer.ValidationResult{Accepted: true})
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "panic") {
		t.Errorf("an update without time: %v", err)
	}
}

// TestCloseIsBounded closes a channel that has no request, for which the plain
// manager waits until its context ends.
func TestCloseIsBounded(t *testing.T) {
	ctx := within(t, 20*time.Second)
	p := newNodePair(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, ForcePause: true}, nil
	}}, nil)
	d := buildDAG(t, p.source, 51, 2, 1000, nil)
	chid := p.open(t, ctx, d.root)
	p.getting.until(t, ctx, "not accepted", func(e seen) bool { return e.code == datatransfer.Accept })
	if err := p.client.Transfers().CloseDataTransferChannel(ctx, chid); err != nil {
		t.Fatal(err)
	}
	if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Cancelled {
		t.Errorf("client: %s", e.status)
	}
	if e := p.providing.finished(t, ctx, chid); e.status != datatransfer.Cancelled {
		t.Errorf("provider: %s", e.status)
	}
}

// TestBadArguments checks what is refused at once instead of hanging or
// panicking later.
func TestBadArguments(t *testing.T) {
	ctx := within(t, 10*time.Second)
	n := newTestNode(t, nodeHost(t), nil)
	m := n.Transfers()
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	var none *validator
	for _, v := range []datatransfer.RequestValidator{nil, none} {
		if err := m.RegisterVoucherType("x", v); err == nil {
			t.Error("registered a nil validator")
		}
	}
	if err := m.RegisterTransportConfigurer("x", nil); err == nil {
		t.Error("registered a nil configurer")
	}
	for name, c := range map[string]struct {
		root cid.Cid
		sel  datamodel.Node
	}{
		"no root":      {cid.Undef, wholeDAG()},
		"no selector":  {root, nil},
		"null":         {root, datamodel.Null},
		"bad selector": {root, basicnode.NewString("everything")},
	} {
		if _, err := m.OpenPullDataChannel(ctx, "peer", testVoucher(), c.root, c.sel); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := m.OpenPushDataChannel(ctx, "peer", testVoucher(), root, wholeDAG()); !errors.Is(err, datatransfer.ErrUnsupported) {
		t.Errorf("push: %v", err)
	}
	if _, err := New(ctx, Config{}); err == nil {
		t.Error("a node without a host")
	}
	if _, err := NewHost(HostConfig{}); err == nil {
		t.Error("a host without a key")
	}
}

// TestPanics checks that a panic in anything that the node is given fails what it
// was called for, and that the node serves on.
func TestPanics(t *testing.T) {
	ctx := within(t, 30*time.Second)
	v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) { panic("validator") }}
	p := newNodePair(t, v, func(c *Config) {
		c.Guard.Admit = func(in Incoming) error {
			if in.SkipLinks == 7 {
				panic("admit")
			}
			return nil
		}
	})
	t.Cleanup(p.provider.Transfers().SubscribeToEvents(func(datatransfer.Event, datatransfer.ChannelState) { panic("subscriber") }))
	d := buildDAG(t, p.source, 52, 2, 1000, nil)
	if e := p.getting.finished(t, ctx, p.open(t, ctx, d.root)); e.status != datatransfer.Failed {
		t.Errorf("with a validator that panics: %s", e.status)
	}
	a := newAttacker(t, p.provider.cfg.Host)
	r := newRequest(d.root, wholeDAG(), pull(t, 1, false, d.root, wholeDAG()), skipFirst(7))
	a.send(t, ctx, r)
	if s, _ := a.outcome(ctx, r.ID()); !s.IsFailure() {
		t.Errorf("with an admission that panics: %v", s)
	}
	v.pull = nil
	chid := p.open(t, ctx, d.root)
	if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed {
		t.Errorf("afterwards: %s: %s", e.status, e.msg)
	}
	if n := p.provider.Dropped()[ReasonPanic]; n != 1 {
		t.Errorf("%d panics counted: %v", n, p.provider.Dropped())
	}
}

// TestPanickingConfigurer checks that a store which cannot be had fails its channel
// only, rather than leaving it to another store.
func TestPanickingConfigurer(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, client := newTestNode(t, nodeHost(t), nil), newTestNode(t, nodeHost(t), nil)
	if err := n.Transfers().RegisterVoucherType(testType, &validator{}); err != nil {
		t.Fatal(err)
	}
	if err := n.Transfers().RegisterTransportConfigurer(testType, func(datatransfer.ChannelID, datatransfer.TypedVoucher) []datatransfer.TransportOption {
		panic("configurer")
	}); err != nil {
		t.Fatal(err)
	}
	connect(t, client.cfg.Host, n.cfg.Host)
	w := watch(t, client.Transfers())
	d := buildDAG(t, newMemStore(), 53, 1, 10, nil)
	chid, err := client.Transfers().OpenPullDataChannel(ctx, n.cfg.Host.ID(), testVoucher(), d.root, wholeDAG(),
		datatransfer.WithTransportOptions(UseStore(newMemStore().links())))
	if err != nil {
		t.Fatal(err)
	}
	if e := w.finished(t, ctx, chid); e.status != datatransfer.Failed {
		t.Errorf("%s", e.status)
	}
}

// TestUseStore checks that the store of a channel can be replaced, and what is
// refused.
func TestUseStore(t *testing.T) {
	n := newTestNode(t, nodeHost(t), nil)
	chid := datatransfer.ChannelID{Initiator: n.cfg.Host.ID(), Responder: "b", ID: 1}
	for range 3 {
		if err := UseStore(newMemStore().links())(chid, n.transport); err != nil {
			t.Fatal(err)
		}
		if err := dtgs.UseStore(newMemStore().links())(chid, n.transport.Transport); err != nil {
			t.Fatal(err)
		}
	}
	if err := UseStore(ipld.LinkSystem{})(chid, n.transport); err == nil {
		t.Error("took a store that cannot be read")
	}
	if err := UseStore(newMemStore().links())(chid, nil); !errors.Is(err, datatransfer.ErrUnsupported) {
		t.Errorf("other transport: %v", err)
	}
	if err := MaxLinks(3)(chid, nil); !errors.Is(err, datatransfer.ErrUnsupported) {
		t.Errorf("other transport: %v", err)
	}
	if err := n.Meter.RegisterPersistenceOption("mine", newMemStore().links()); err != nil {
		t.Error(err)
	}
	if err := n.Meter.RegisterPersistenceOption("mine", newMemStore().links()); err == nil {
		t.Error("replaced a store that is not a channel's")
	}
}

// TestNoStore fetches without a store: the node's own takes nothing.
func TestNoStore(t *testing.T) {
	ctx := within(t, 20*time.Second)
	p := newNodePair(t, &validator{}, nil)
	d := buildDAG(t, p.source, 54, 2, 1000, nil)
	chid, err := p.client.Transfers().OpenPullDataChannel(ctx, p.provider.cfg.Host.ID(), testVoucher(), d.root, wholeDAG())
	if err != nil {
		t.Fatal(err)
	}
	if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Failed || !strings.Contains(e.msg, ErrNoStore.Error()) {
		t.Errorf("%s: %s", e.status, e.msg)
	}
}

// TestMaxLinks bounds a traversal at the provider.
func TestMaxLinks(t *testing.T) {
	ctx := within(t, 20*time.Second)
	p := newNodePair(t, &validator{}, func(c *Config) { c.MaxLinks = 5 })
	for n, want := range map[int]datatransfer.Status{4: datatransfer.Completed, 5: datatransfer.Failed} {
		d := buildDAG(t, p.source, uint64(60+n), n, 1000, nil)
		if e := p.getting.finished(t, ctx, p.open(t, ctx, d.root)); e.status != want {
			t.Errorf("%d links: %s: %s", n+1, e.status, e.msg)
		}
	}
}

// TestTransferMessages checks what passes on data-transfer's own streams.
func TestTransferMessages(t *testing.T) {
	r := &transferStub{}
	n := newTransferNet(r, TransferGuard{Rate: 0.001, Burst: 3, Logger: quiet()})
	n.SetDelegate(r)
	v := testVoucher()
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	for _, pull := range []bool{true, false} {
		for _, restart := range []bool{true, false} {
			m, err := message.NewRequest(1, restart, pull, &v, root, wholeDAG())
			if err != nil {
				t.Fatal(err)
			}
			r.to.ReceiveRequest(t.Context(), "p", m)
		}
	}
	if r.got != 0 || n.counts.all()[ReasonTransfer] != 4 {
		t.Errorf("%d passed, %v", r.got, n.counts.all())
	}
	m, err := message.VoucherRequest(1, &v)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.to.ReceiveRequest(t.Context(), "p", m)
	}
	if r.got != 3 || n.counts.all()[ReasonRate] != 2 {
		t.Errorf("%d passed, %v", r.got, n.counts.all())
	}
	r.panics = true
	r.to.ReceiveRequest(t.Context(), "q", m)
	if n.counts.all()[ReasonPanic] != 1 {
		t.Errorf("%v", n.counts.all())
	}
	n.gate.close(time.Second)
	r.panics, r.got = false, 0
	r.to.ReceiveRequest(t.Context(), "s", m)
	if r.got != 0 {
		t.Error("passed a closed gate")
	}
}

// transferStub is a data-transfer network and the manager on it.
type transferStub struct {
	dtnet.DataTransferNetwork
	dtnet.Receiver
	to     dtnet.Receiver
	got    int
	panics bool
}

func (s *transferStub) SetDelegate(r dtnet.Receiver) { s.to = r }
func (s *transferStub) ReceiveRequest(context.Context, peer.ID, datatransfer.Request) {
	if s.panics {
		panic("manager")
	}
	s.got++
}
