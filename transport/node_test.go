package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
)

// networks are the graphsync networks that a node may sit on.
var networks = map[string]func(*Config){
	"stock": nil,
	"fast":  func(c *Config) { c.Network = NewNetwork(c.Host, NetworkConfig{}) },
}

// TestPull moves 32 MiB between two nodes over loopback TCP and checks every
// figure.
func TestPull(t *testing.T) {
	for name, network := range networks {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 60*time.Second)
			p := newNodePair(t, &validator{}, network)
			d := buildDAG(t, p.source, 1, 128, 256<<10, nil)
			chid := p.open(t, ctx, d.root)
			if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Received() != d.size {
				t.Fatalf("client: %s, %d bytes of %d: %s", e.status, e.state.Received(), d.size, e.msg)
			}
			if e := p.providing.finished(t, ctx, chid); e.status != datatransfer.Completed || e.state.Queued() != d.size {
				t.Fatalf("provider: %s, %d bytes of %d: %s", e.status, e.state.Queued(), d.size, e.msg)
			}
			if p.sink.len() != 129 {
				t.Errorf("client holds %d blocks, want 129", p.sink.len())
			}
			got, ok := p.provider.Meter.Progress(chid)
			want := Progress{Sent: d.size, Written: d.size, Latest: d.size, Links: 129, High: 129, Begun: true, Reached: d.size, Started: true, Requests: 1}
			if !ok || got != want {
				t.Errorf("progress %+v, want %+v", got, want)
			}
		})
	}
}

// TestManyAtOnce fetches 24 DAGs at once by three clients, from a provider that
// may queue no more than 1 MiB for all of them.
func TestManyAtOnce(t *testing.T) {
	ctx := within(t, 60*time.Second)
	provider, source := newTestNode(t, nodeHost(t), func(c *Config) { c.Memory = 1 << 20 }), newMemStore()
	providing := watch(t, provider.Transfers())
	serveFrom(t, provider.Transfers(), &validator{}, source)
	type fetch struct {
		by   *watcher
		chid datatransfer.ChannelID
		dag  dag
	}
	var all []fetch
	for range 3 {
		client, sink := newTestNode(t, nodeHost(t), nil), newMemStore()
		connect(t, client.cfg.Host, provider.cfg.Host)
		w := watch(t, client.Transfers())
		for i := range 8 {
			d := buildDAG(t, source, uint64(200+i), 20, 50_000, nil)
			chid, err := client.Transfers().OpenPullDataChannel(ctx, provider.cfg.Host.ID(), testVoucher(), d.root, wholeDAG(),
				datatransfer.WithTransportOptions(UseStore(sink.links())))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fetch{w, chid, d})
		}
	}
	for _, f := range all {
		if e := f.by.finished(t, ctx, f.chid); e.status != datatransfer.Completed || e.state.Received() != f.dag.size {
			t.Errorf("%s, %d of %d bytes: %s", e.status, e.state.Received(), f.dag.size, e.msg)
		}
		providing.finished(t, ctx, f.chid)
	}
	f := provider.Meter.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total != 0 || len(f.peers) != 0 || len(f.queued) != 0 {
		t.Errorf("%d bytes count as queued when nothing is: %v %v", f.total, f.peers, f.queued)
	}
}
