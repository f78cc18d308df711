package transport

import (
	"runtime"
	"testing"
	"time"

	"github.com/ipfs/go-graphsync"
)

// TestLobbyRestart: a restart that waits behind the request that it restarts is served,
// as where none of them waits: the old one is ended before.
func TestLobbyRestart(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, d, a := limitedProvider(t)
	all := wholeDAG()
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
	for l.waits(a.host.ID()) != 2 { // the lobby tells nobody when one comes to wait
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
