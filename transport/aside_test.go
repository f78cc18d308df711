package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
)

// TestAside: requests of a peer that does not read leave the workers to others, and go
// on to their end when it reads.
func TestAside(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.MaxInProgress, c.Guard.MaxWaiting, c.MemoryPerPeer = 2, 1, 64<<10 })
	store := newMemStore()
	serveFrom(t, n.Transfers(), &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}}, store)
	d := buildDAG(t, store, 35, 60, 20_000, nil)

	still := newAttacker(t, n.cfg.Host)
	still.hold = make(chan struct{})
	var asked []gsmsg.GraphSyncRequest
	for id := range datatransfer.TransferID(3) { // more than there are workers
		asked = append(asked, newRequest(d.root, wholeDAG(), pull(t, id+1, false, d.root, wholeDAG()), dedup(n, still, id+1)))
	}
	still.send(t, ctx, asked...)
	for waiting, aside := 0, 0; waiting+aside < len(asked); waiting, aside = n.Meter.flow.stand() {
		if pause(ctx, nil, time.Millisecond); ctx.Err() != nil {
			t.Fatalf("%d wait, %d stand aside", waiting, aside)
		}
	}

	reads := newAttacker(t, n.cfg.Host)
	other := newRequest(d.root, wholeDAG(), pull(t, 1, false, d.root, wholeDAG()))
	reads.send(t, ctx, other)
	if s, got := reads.outcome(within(t, 5*time.Second), other.ID()); s != graphsync.RequestCompletedFull || got != d.size {
		t.Errorf("another peer: status %v, %d of %d bytes", s, got, d.size)
	}
	close(still.hold)
	for _, r := range asked {
		// A block may come once for several of them.
		if s, got := still.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull || got < d.size {
			t.Errorf("status %v after the peer has begun to read, %d of %d bytes", s, got, d.size)
		}
	}
}
