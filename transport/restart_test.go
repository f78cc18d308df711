package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// skipFirst is the extension that leaves out the first n links.
func skipFirst(n int64) graphsync.ExtensionData {
	return graphsync.ExtensionData{Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: basicnode.NewInt(n)}
}

// dedup is the key that data-transfer uses for all requests of a channel.
func dedup(n *Node, a *attacker, id datatransfer.TransferID) graphsync.ExtensionData {
	chid := datatransfer.ChannelID{Initiator: a.host.ID(), Responder: n.cfg.Host.ID(), ID: id}
	return graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewString(storePrefix + chid.String())}
}

// limitedProvider stops after 25,000 of the 100,000 bytes of leaves that a DAG has. An
// attacker knows it.
func limitedProvider(t *testing.T) (*Node, dag, *attacker) {
	t.Helper()
	n, store := guardedProvider(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 25_000}, nil
	}})
	return n, buildDAG(t, store, 30, 10, 10_000, nil), newAttacker(t, n.cfg.Host)
}

// TestRestartWhilePaused restarts a channel whose old request is paused at the
// provider and was never cancelled, as after the client was killed. The old one
// has queued blocks that the client lost, and is ended first: the new one would be
// refused, and on the plain stack graphsync takes them for sent and leaves them out.
func TestRestartWhilePaused(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, d, a := limitedProvider(t)
	all := wholeDAG()
	w := watch(t, n.Transfers())
	old := newRequest(d.root, all, pull(t, 1, false, d.root, all), dedup(n, a, 1))
	a.send(t, ctx, old)
	chid := w.until(t, ctx, "no pause", func(e seen) bool { return e.code == datatransfer.DataLimitExceeded }).chid

	// It comes again, with only the root: leaves 0 to 2 are lost.
	again := newRequest(d.root, all, pull(t, 1, true, d.root, all), dedup(n, a, 1), skipFirst(1))
	a.send(t, ctx, again)
	if s, got := a.outcome(ctx, again.ID()); s != graphsync.RequestCompletedFull || got != 100_000 {
		t.Errorf("restarted: status %v, %d of 100000 bytes", s, got)
	}
	p := mustProgress(t, n, chid)
	if p.Requests != 2 || p.SkipLinks != 1 || p.Skipped != d.rootSz || p.Resent != 30_000 || p.Sent != d.size+30_000 {
		t.Errorf("progress %+v", p)
	}
}

// TestRestartWhileRunning restarts a channel whose old request is at work, with
// a cancel of the old one in the same message and without.
func TestRestartWhileRunning(t *testing.T) {
	for name, cancels := range map[string]bool{"cancelled": true, "not cancelled": false} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 30*time.Second)
			n, store := guardedProvider(t, &validator{})
			d := buildDAG(t, store, 31, 400, 10_000, nil)
			all := wholeDAG()
			a := newAttacker(t, n.cfg.Host)
			old := newRequest(d.root, all, pull(t, 1, false, d.root, all), dedup(n, a, 1))
			again := newRequest(d.root, all, pull(t, 1, true, d.root, all), dedup(n, a, 1), skipFirst(0))
			a.send(t, ctx, old)
			msg := []gsmsg.GraphSyncRequest{again}
			if cancels {
				msg = append(msg, gsmsg.NewCancelRequest(old.ID()))
			}
			w := watch(t, n.Transfers())
			w.until(t, ctx, "not started", func(e seen) bool { return e.state.Queued() > 0 })
			a.send(t, ctx, msg...)
			s, got := a.outcome(ctx, again.ID())
			// If the old one was through before the new one came, the channel is closed.
			if s != graphsync.RequestCompletedFull && !s.IsFailure() || s == graphsync.RequestCompletedFull && got < d.size {
				t.Errorf("status %v, %d of %d bytes", s, got, d.size)
			}
		})
	}
}

// TestSkippedAgain checks that a client which claimed to hold the first links of
// a DAG cannot ask for them later: data-transfer would not count them.
func TestSkippedAgain(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n, store := guardedProvider(t, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 15_000}, nil
	}})
	d := buildDAG(t, store, 32, 10, 10_000, nil)
	all := wholeDAG()
	a := newAttacker(t, n.cfg.Host)
	w := watch(t, n.Transfers())
	a.send(t, ctx, newRequest(d.root, all, pull(t, 1, false, d.root, all), dedup(n, a, 1), skipFirst(8)))
	w.until(t, ctx, "no pause", func(e seen) bool { return e.code == datatransfer.DataLimitExceeded })
	again := newRequest(d.root, all, pull(t, 1, true, d.root, all), dedup(n, a, 1), skipFirst(0))
	a.send(t, ctx, again)
	if s, got := a.outcome(ctx, again.ID()); !s.IsFailure() || got != 0 || n.Dropped()[ReasonSkip] != 1 {
		t.Errorf("status %v, %d bytes, %v", s, got, n.Dropped())
	}
}

// TestResentLimit lets a client have the same blocks again until it has had
// enough.
func TestResentLimit(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.MaxResent = 50_000 })
	store := newMemStore()
	serveFrom(t, n.Transfers(), &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 45_000}, nil
	}, restart: func(datatransfer.ChannelID, datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: 45_000}, nil
	}}, store)
	d := buildDAG(t, store, 33, 10, 10_000, nil)
	all := wholeDAG()
	a := newAttacker(t, n.cfg.Host)
	w := watch(t, n.Transfers())
	a.send(t, ctx, newRequest(d.root, all, pull(t, 1, false, d.root, all), dedup(n, a, 1)))
	chid := w.until(t, ctx, "no pause", func(e seen) bool { return e.code == datatransfer.DataLimitExceeded }).chid
	for n.Dropped()[ReasonResent] == 0 {
		r := newRequest(d.root, all, pull(t, 1, true, d.root, all), dedup(n, a, 1), skipFirst(0))
		before := mustProgress(t, n, chid)
		a.send(t, ctx, r)
		if s, _ := a.outcomeOrPause(ctx, r.ID()); s.IsFailure() && n.Dropped()[ReasonResent] == 0 {
			t.Fatalf("refused after %+v: %v", before, n.Dropped())
		}
		if ctx.Err() != nil {
			t.Fatalf("never refused: %+v", mustProgress(t, n, chid))
		}
	}
	if p := mustProgress(t, n, chid); p.Resent <= 50_000 || p.Resent > 60_000+d.rootSz {
		t.Errorf("progress %+v", p)
	}
}

// TestGone checks that the requests of a client that vanished are ended.
func TestGone(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.GoneAfter = 20 * time.Millisecond })
	store := newMemStore()
	admitted := make(chan datatransfer.ChannelID, 1)
	serveFrom(t, n.Transfers(), &validator{pull: func(chid datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		admitted <- chid
		return datatransfer.ValidationResult{Accepted: true, ForcePause: true}, nil
	}}, store)
	d := buildDAG(t, store, 34, 2, 1000, nil)
	a := newAttacker(t, n.cfg.Host)
	r := newRequest(d.root, wholeDAG(), pull(t, 1, false, d.root, wholeDAG()))
	a.send(t, ctx, r)
	<-admitted
	s := n.Meter.table.get(r.ID())
	if s == nil {
		t.Fatal("not live")
	}
	if err := a.host.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		t.Fatal("still live long after the peer went away")
	}
}

// TestSlowReader checks that a peer which does not read is not queued for beyond
// the window, and that others are served meanwhile.
func TestSlowReader(t *testing.T) {
	ctx := within(t, 30*time.Second)
	const window = 300_000
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.Window = window })
	store := newMemStore()
	serveFrom(t, n.Transfers(), &validator{}, store)
	big, small := buildDAG(t, store, 35, 400, 100_000, nil), buildDAG(t, store, 36, 10, 10_000, nil)
	slow := newAttacker(t, n.cfg.Host)
	gateway := make(chan struct{})
	slow.hold = gateway
	r := newRequest(big.root, wholeDAG(), pull(t, 1, false, big.root, wholeDAG()))
	slow.send(t, ctx, r)
	<-slow.holding // the first message has come; the rest stays in the connection
	chid := datatransfer.ChannelID{Initiator: slow.host.ID(), Responder: n.cfg.Host.ID(), ID: 1}
	for range 5 {
		p := newAttacker(t, n.cfg.Host)
		q := newRequest(small.root, wholeDAG(), pull(t, 1, false, small.root, wholeDAG()))
		p.send(t, ctx, q)
		if s, got := p.outcome(ctx, q.ID()); s != graphsync.RequestCompletedFull || got != small.size {
			t.Fatalf("other peer: status %v, %d of %d bytes", s, got, small.size)
		}
		if p := mustProgress(t, n, chid); p.Sent-p.Written > window+100_000 {
			t.Fatalf("queued %d bytes beyond a window of %d", p.Sent-p.Written, window)
		}
	}
	close(gateway)
	if s, got := slow.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull || got != big.size {
		t.Errorf("slow peer: status %v, %d of %d bytes", s, got, big.size)
	}
}

// TestRestartAtTheEnd restarts channels just as they complete. In the plain
// stack the hook of the restart holds the channel's lock and waits for its state
// machine, which waits for the lock to clean up: that ends all serving.
func TestRestartAtTheEnd(t *testing.T) {
	ctx := within(t, 60*time.Second)
	n, store := guardedProvider(t, &validator{})
	d := buildDAG(t, store, 37, 1, 100, nil)
	all := wholeDAG()
	a := newAttacker(t, n.cfg.Host)
	for id := range datatransfer.TransferID(100) {
		r := newRequest(d.root, all, pull(t, id, false, d.root, all), dedup(n, a, id))
		a.send(t, ctx, r)
		if s, _ := a.outcome(ctx, r.ID()); s != graphsync.RequestCompletedFull {
			t.Fatalf("channel %d: status %v", id, s)
		}
		// Now the provider completes the channel.
		again := newRequest(d.root, all, pull(t, id, true, d.root, all), dedup(n, a, id))
		a.send(t, ctx, again)
		if s, _ := a.outcome(ctx, again.ID()); !s.IsTerminal() {
			t.Fatalf("channel %d: serving has stopped", id)
		}
	}
}
