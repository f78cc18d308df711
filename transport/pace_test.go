package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
)

// TestSkipPace: what a peer that was never sent anything leaves out is read at a
// bounded rate, and what it was sent before at full speed.
func TestSkipPace(t *testing.T) {
	const rate = 1 << 20
	p := newPace(rate)
	s := &served{peer: "stranger", done: make(chan struct{})}
	quit := make(chan struct{})
	close(quit)
	skip := func(n int) {
		for range n {
			p.skip(s, 1<<20, quit)
		}
	}
	own := p.skips.of(s.peer)
	if skip(skipBurst + 4); own.Tokens() > -3*rate {
		t.Errorf("%.0f tokens are left", own.Tokens())
	}
	before := own.Tokens()
	p.send(s.peer, 4<<20)
	if skip(4 * skipEarned); own.Tokens() < before {
		t.Errorf("what was sent before is paced: %.0f tokens, then %.0f", before, own.Tokens())
	}
	if skip(1); own.Tokens() > before {
		t.Error("more than was sent is not paced")
	}
}

// TestRepeatPace: the same for links to blocks that were passed.
func TestRepeatPace(t *testing.T) {
	p := newPace(1 << 20)
	s := &served{peer: "stranger", done: make(chan struct{})}
	quit := make(chan struct{})
	close(quit)
	p.send(s.peer, 3*repeatEarned)
	for range 3 {
		p.repeat(s, quit)
	}
	if got := p.total.Tokens(); got < totalBurst {
		t.Errorf("what is earned takes %.0f tokens", totalBurst-got)
	}
	for range repeatBurst + totalRepeats {
		p.repeat(s, quit)
	}
	if got := p.peers.of(s.peer).Tokens(); got > 0 {
		t.Errorf("%.0f tokens are left", got)
	}
}

// TestSkipHook: the block hook paces what is left out.
func TestSkipHook(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.SkipRate = 1 << 10 })
	store := newMemStore()
	serveFrom(t, n.Transfers(), &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}}, store)
	d := buildDAG(t, store, 34, 40, 10_000, nil)
	all := wholeDAG()
	a := newAttacker(t, n.cfg.Host)
	r := newRequest(d.root, all, pull(t, 1, false, d.root, all), dedup(n, a, 1), skipFirst(1000))
	a.send(t, ctx, r)
	for n.Meter.pace.skips.of(a.host.ID()).Tokens() > -1 {
		if ctx.Err() != nil {
			t.Fatal("the links that are left out are not paced")
		}
		pause(ctx, nil, time.Millisecond)
	}
	if s, _ := a.outcome(within(t, 200*time.Millisecond), r.ID()); s == graphsync.RequestCompletedFull {
		t.Error("it is through already")
	}
}
