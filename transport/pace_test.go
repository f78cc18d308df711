package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestSkipPace: what a peer that was never sent anything leaves out is read at a
// bounded rate, and what it was sent before at full speed.
func TestSkipPace(t *testing.T) {
	const rate = 1 << 20
	p := newPace(rate)
	skip := func(n int) (wait time.Duration) {
		for range n {
			wait = p.skip("stranger", 1<<20)
		}
		return wait
	}
	own := p.skips.of("stranger")
	if wait := skip(skipBurst); wait != 0 {
		t.Errorf("stands still for %s at once", wait)
	}
	if wait := skip(4); own.Tokens() > -3*rate || wait < 3*time.Second || wait > 4*time.Second+leastRest {
		t.Errorf("stands still for %s, %.0f tokens are left", wait, own.Tokens())
	}
	before := own.Tokens()
	p.send("stranger", 4<<20)
	if wait := skip(4 * skipEarned); own.Tokens() < before || wait != 0 {
		t.Errorf("what was sent before is paced: %.0f tokens, then %.0f", before, own.Tokens())
	}
	if wait := skip(1); own.Tokens() > before || wait == 0 {
		t.Error("more than was sent is not paced")
	}
}

// TestRepeatPace: the same for links to blocks that were passed.
func TestRepeatPace(t *testing.T) {
	p := newPace(1 << 20)
	p.send("stranger", 3*repeatEarned)
	for range 3 {
		p.repeat("stranger")
	}
	if got := p.total.Tokens(); got < totalBurst {
		t.Errorf("what is earned takes %.0f tokens", totalBurst-got)
	}
	var wait time.Duration
	for range repeatBurst + totalRepeats {
		wait = p.repeat("stranger")
	}
	if got := p.peers.of("stranger").Tokens(); got > 0 || wait < time.Second {
		t.Errorf("%.0f tokens are left, and it stands still for %s", got, wait)
	}
}

// TestRequestsEarned: what was sent to a peer allows for requests above its rate, but
// not for a flood long after.
func TestRequestsEarned(t *testing.T) {
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	for _, c := range []struct{ sent, want int }{{0, 0}, {requestEarned - 1, 0}, {requestEarned, 1}, {7*requestEarned + 1, 7}, {1 << 30, 40}} {
		s := &netStub{}
		n := WrapNetwork(s, NetworkGuard{Rate: 0.001, Burst: 40, ReadRate: 1e6, Logger: quiet()})
		n.SetDelegate(s)
		n.bind(&Exchange{pace: newPace(1 << 20), table: newTable(10), arrivals: newArrivals(), lobby: newLobby(func(peer.ID) int { return 0 })})
		n.exchange.cfg.MaxLivePerPeer = 1000
		n.exchange.pace.send("p", uint64(c.sent))
		for _, p := range []peer.ID{"p", "q"} {
			n.exchange.lobby.guest(p).proven = true // so that none waits
		}
		for range 300 {
			for _, p := range []peer.ID{"p", "q"} {
				s.delegate.ReceiveMessage(t.Context(), p, requestsMessage(newRequest(root, wholeDAG())))
			}
		}
		if got := len(s.got); got != 2*40+c.want {
			t.Errorf("%d bytes sent: %d requests of two peers passed, want %d", c.sent, got, 2*40+c.want)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// skipper is a node that reads what is left out slowly, a DAG on it, and a client
// that leaves all of it out.
func skipper(t *testing.T, skipRate uint64) (*Node, dag, *attacker) {
	t.Helper()
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.SkipRate, c.MaxInProgress, c.Guard.MaxWaiting = skipRate, 2, 2 })
	store := newMemStore()
	serveFrom(t, n.Transfers(), &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}}, store)
	return n, buildDAG(t, store, 34, 40, 10_000, nil), newAttacker(t, n.cfg.Host)
}

func (a *attacker) skipAll(t *testing.T, n *Node, d dag, id datatransfer.TransferID) gsmsg.GraphSyncRequest {
	t.Helper()
	return newRequest(d.root, wholeDAG(), pull(t, id, false, d.root, wholeDAG()), dedup(n, a, id), skipFirst(1000))
}

// TestSkipHook: the block hook paces what is left out.
func TestSkipHook(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, d, a := skipper(t, 1<<10)
	r := a.skipAll(t, n, d, 1)
	a.send(t, ctx, r)
	if s, _ := a.outcomeOrPause(ctx, r.ID()); s != graphsync.RequestPaused || n.Meter.pace.skips.of(a.host.ID()).Tokens() > -1 {
		t.Errorf("the links that are left out are not paced: status %v", s)
	}
}

// TestSkipWaitsAside: requests that wait for what is left out hold nobody else up,
// and go on when it is their turn.
func TestSkipWaitsAside(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, d, a := skipper(t, 16<<10) // 256 KiB at once
	var asked []gsmsg.GraphSyncRequest
	for id := range datatransfer.TransferID(3) { // more than there are workers
		asked = append(asked, a.skipAll(t, n, d, id+1))
	}
	a.send(t, ctx, asked...)
	for n.Meter.pace.skips.of(a.host.ID()).Tokens() > -1 {
		if ctx.Err() != nil {
			t.Fatal("the links that are left out are not paced")
		}
		pause(ctx, nil, time.Millisecond)
	}
	b := newAttacker(t, n.cfg.Host)
	other := newRequest(d.root, wholeDAG(), pull(t, 1, false, d.root, wholeDAG()))
	b.send(t, ctx, other)
	if s, got := b.outcome(within(t, 5*time.Second), other.ID()); s != graphsync.RequestCompletedFull || got != d.size {
		t.Errorf("another peer: status %v, %d of %d bytes", s, got, d.size)
	}
	n.Meter.pace.send(a.host.ID(), 1<<30) // it has paid
	for _, r := range asked {
		if s, _ := a.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull {
			t.Errorf("in the end its status is %v", s)
		}
	}
}
