package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
)

// TestPull moves 32 MiB between two nodes over loopback TCP and checks every
// figure.
func TestPull(t *testing.T) {
	ctx := within(t, 60*time.Second)
	p := newNodePair(t, &validator{}, nil)
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
	want := Progress{Sent: d.size, Written: d.size, Links: 129, Started: true, Requests: 1}
	if !ok || got != want {
		t.Errorf("progress %+v, want %+v", got, want)
	}
}
