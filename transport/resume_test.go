package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// TestNodeRestart stops a client in the middle of a paused transfer and takes it
// up with a new node on the same records: the rest comes, and only the rest.
func TestNodeRestart(t *testing.T) {
	ctx := within(t, 40*time.Second)
	dir := t.TempDir()
	v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 500_000}, nil
	}}
	ph, ch := nodeHost(t), nodeHost(t)
	provider, source, sink := newTestNode(t, ph, nil), newMemStore(), newMemStore()
	serveFrom(t, provider.Transfers(), v, source)
	d := buildDAG(t, source, 40, 20, 100_000, nil)
	connect(t, ch, ph)

	client := newTestNode(t, ch, func(c *Config) { c.StateDir = dir })
	w, pw := watch(t, client.Transfers()), watch(t, provider.Transfers())
	chid, err := client.Transfers().OpenPullDataChannel(ctx, ph.ID(), testVoucher(), d.root, wholeDAG(), datatransfer.WithTransportOptions(UseStore(sink.links())))
	if err != nil {
		t.Fatal(err)
	}
	paused := w.until(t, ctx, "no pause", func(e seen) bool {
		return e.code == datatransfer.DataReceived && e.state.Received() >= 500_000
	})
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}

	client = newTestNode(t, ch, func(c *Config) { c.StateDir = dir })
	w = watch(t, client.Transfers())
	if err := client.Transfers().RegisterTransportConfigurer(testType, func(datatransfer.ChannelID, datatransfer.TypedVoucher) []datatransfer.TransportOption {
		return []datatransfer.TransportOption{UseStore(sink.links())}
	}); err != nil {
		t.Fatal(err)
	}
	s, err := client.Transfers().ChannelState(ctx, chid)
	if err != nil || s.Received() != paused.state.Received() || terminal(s.Status()) {
		t.Fatalf("record after the stop: %v, received %d of %d, %s: %s", err, s.Received(), paused.state.Received(), s.Status(), s.Message())
	}
	if err := client.Transfers().RestartDataTransferChannel(ctx, chid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			p, _ := provider.Meter.Progress(chid)
			t.Logf("provider %+v %v\n%s", p, provider.Dropped(), pw.dump())
		}
	})
	if e := w.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Received() != d.size {
		t.Fatalf("client: %s, %d of %d bytes: %s", e.status, e.state.Received(), d.size, e.msg)
	}
	if e := pw.finished(t, ctx, chid); e.status != datatransfer.Completed {
		t.Errorf("provider: %s: %s", e.status, e.msg)
	}
	if p := mustProgress(t, provider, chid); p.Sent != d.size || p.Requests != 2 || p.Skipped+p.Sent < d.size {
		t.Errorf("progress %+v of %d bytes", p, d.size)
	}
}

// TestProviderRestart stops a provider in the middle of a transfer. The client's
// channel does not fail, and goes on with the next node.
func TestProviderRestart(t *testing.T) {
	ctx := within(t, 40*time.Second)
	dir := t.TempDir()
	v := &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}}
	ph, ch := nodeHost(t), nodeHost(t)
	client, source, sink := newTestNode(t, ch, func(c *Config) { c.Quiet.Bytes = 1 << 20 }), newMemStore(), newMemStore()
	provider := newTestNode(t, ph, func(c *Config) { c.StateDir = dir; c.Guard.Window = 1 << 20 })
	serveFrom(t, provider.Transfers(), v, source)
	d := buildDAG(t, source, 41, 400, 100_000, nil)
	connect(t, ch, ph)
	w := watch(t, client.Transfers())
	chid, err := client.Transfers().OpenPullDataChannel(ctx, ph.ID(), testVoucher(), d.root, wholeDAG(), datatransfer.WithTransportOptions(UseStore(sink.links())))
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, ctx, "nothing comes", func(e seen) bool { return e.state.Received() > 1_000_000 })
	if err := provider.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := client.Transfers().ChannelState(ctx, chid)
	if err != nil || terminal(s.Status()) || s.Status() == datatransfer.Failing {
		t.Fatalf("client when the provider stopped: %v %v: %s", err, s.Status(), s.Message())
	}

	provider = newTestNode(t, ph, func(c *Config) { c.StateDir = dir })
	serveFrom(t, provider.Transfers(), v, source)
	// What the client writes to a stream whose reset is still on the way is lost, and
	// nobody here would ask again. The answer to a ping comes behind the reset.
	if r := <-ping.Ping(ctx, ch, ph.ID()); r.Error != nil {
		t.Fatal(r.Error)
	}
	if err := client.Transfers().RestartDataTransferChannel(ctx, chid); err != nil {
		t.Fatal(err)
	}
	if e := w.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Received() != d.size {
		t.Fatalf("client: %s, %d of %d bytes: %s", e.status, e.state.Received(), d.size, e.msg)
	}
}
