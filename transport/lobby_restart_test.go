package transport

import (
	"runtime"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
)

// TestLobbyRestart: a restart that waits behind the request that it restarts is served,
// as where none of them waits: the old one is ended before.
func TestLobbyRestart(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, store := guardedProvider(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 25_000}, nil
	}})
	d := buildDAG(t, store, 30, 10, 10_000, nil)
	all := wholeDAG()
	a := newAttacker(t, n.cfg.Host)
	l := n.Meter.lobby
	l.mu.Lock()
	var full []graphsync.RequestID
	for range lobbyInside * runtime.GOMAXPROCS(0) {
		id := graphsync.NewRequestID()
		full, l.inside[id] = append(full, id), time.Now()
	}
	l.mu.Unlock()
	a.send(t, ctx, newRequest(d.root, all, pull(t, 1, false, d.root, all), dedup(n, a, 1)))
	again := newRequest(d.root, all, pull(t, 1, true, d.root, all), dedup(n, a, 1), skipFirst(0))
	a.send(t, ctx, again)
	for l.waits(a.host.ID()) != 2 {
		if <-time.After(time.Millisecond); ctx.Err() != nil {
			t.Fatal("they do not wait")
		}
	}
	for _, id := range full {
		l.decided(id)
	}
	if s, got := a.outcome(ctx, again.ID()); s != graphsync.RequestCompletedFull || got != d.size {
		t.Errorf("restarted: status %v, %d of %d bytes, refused %v", s, got, d.size, n.Meter.Refused())
	}
}
