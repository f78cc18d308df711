package transport

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"go.uber.org/goleak"
)

// bothWays runs a test with the stock and the fast network on either side.
func bothWays(t *testing.T, test func(t *testing.T, serve, fetch networkKind)) {
	for _, serve := range []networkKind{stockKind, fastKind} {
		for _, fetch := range []networkKind{stockKind, fastKind} {
			t.Run(serve.name+" to "+fetch.name, func(t *testing.T) { test(t, serve, fetch) })
		}
	}
}

func textExtension(name, value string) graphsync.ExtensionData {
	return graphsync.ExtensionData{Name: graphsync.ExtensionName(name), Data: basicnode.NewString(value)}
}

func textOf(n datamodel.Node) string {
	s, _ := n.AsString()
	return s
}

// TestInteropFetch fetches DAGs of many small and of few large blocks, with
// extensions in both directions.
func TestInteropFetch(t *testing.T) {
	bothWays(t, func(t *testing.T, serve, fetch networkKind) {
		from := newFastStore()
		chain, star := fillChain(t, from, 300, 100), fillStar(t, from, 12<<20, 1<<20)
		p := newPair(t, from, serve, fetch)
		var asked, answered atomic.Int32
		p.gsProvider.RegisterIncomingRequestHook(func(_ peer.ID, r graphsync.RequestData, a graphsync.IncomingRequestHookActions) {
			if n, ok := r.Extension("test/ask"); ok && textOf(n) == "question" {
				asked.Add(1)
				a.SendExtensionData(textExtension("test/answer", "answer"))
			}
		})
		p.gs.RegisterIncomingResponseHook(func(_ peer.ID, r graphsync.ResponseData, _ graphsync.IncomingResponseHookActions) {
			if n, ok := r.Extension("test/answer"); ok && textOf(n) == "answer" {
				answered.Add(1)
			}
		})
		ctx := testContext(t, 30*time.Second)
		for _, root := range []cidlink.Link{{Cid: chain}, {Cid: star}} {
			if err := p.fetch(ctx, root.Cid, textExtension("test/ask", "question")); err != nil {
				t.Fatal(err)
			}
		}
		if asked.Load() != 2 || answered.Load() != 2 {
			t.Errorf("asked %d, answered %d, want 2 of each", asked.Load(), answered.Load())
		}
		if p.store.bytes != from.bytes || len(p.store.blocks) != len(from.blocks) {
			t.Errorf("received %d bytes in %d blocks of %d in %d", p.store.bytes, len(p.store.blocks), from.bytes, len(from.blocks))
		}
	})
}

// TestInteropUpdate pauses at the provider in the middle, updates from the
// client, and lets the update resume the transfer.
func TestInteropUpdate(t *testing.T) {
	bothWays(t, func(t *testing.T, serve, fetch networkKind) {
		from := newFastStore()
		root := fillChain(t, from, 50, 1000)
		p := newPair(t, from, serve, fetch)
		paused := make(chan graphsync.RequestID, 1)
		p.gsProvider.RegisterOutgoingBlockHook(func(_ peer.ID, r graphsync.RequestData, b graphsync.BlockData, a graphsync.OutgoingBlockHookActions) {
			if b.Index() == 25 {
				a.SendExtensionData(textExtension("test/pause", "here"))
				a.PauseResponse()
			}
		})
		p.gsProvider.RegisterRequestUpdatedHook(func(_ peer.ID, _, u graphsync.RequestData, a graphsync.RequestUpdatedHookActions) {
			if n, ok := u.Extension("test/go"); ok && textOf(n) == "on" {
				a.UnpauseResponse()
			}
		})
		p.gs.RegisterIncomingResponseHook(func(_ peer.ID, r graphsync.ResponseData, a graphsync.IncomingResponseHookActions) {
			if _, ok := r.Extension("test/pause"); ok {
				paused <- r.RequestID()
			}
		})
		ctx := testContext(t, 30*time.Second)
		done := make(chan error, 1)
		go func() { done <- p.fetch(ctx, root) }()
		var id graphsync.RequestID
		select {
		case id = <-paused:
		case err := <-done:
			t.Fatalf("ended before the pause: %v", err)
		}
		// The client hears of the pause before the provider has taken note of it,
		// and graphsync forgets a resume that is too early: it must be repeated.
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for running := true; running; {
			if err := p.gs.SendUpdate(ctx, id, textExtension("test/go", "on")); err != nil && len(done) == 0 {
				t.Logf("update: %v", err)
			}
			select {
			case err := <-done:
				if running = false; err != nil {
					t.Fatal(err)
				}
			case <-again.C:
			}
		}
		if len(p.store.blocks) != 50 {
			t.Errorf("%d blocks", len(p.store.blocks))
		}
	})
}

// TestInteropCancel cancels at the client and waits until the provider knows.
func TestInteropCancel(t *testing.T) {
	bothWays(t, func(t *testing.T, serve, fetch networkKind) {
		from := newFastStore()
		root := fillChain(t, from, 2000, 1000)
		p := newPair(t, from, serve, fetch)
		cancelled := make(chan struct{})
		// The response is slow and not paused: the stock library loses a cancel
		// that comes while a pause is being taken note of.
		p.gsProvider.RegisterOutgoingBlockHook(func(_ peer.ID, _ graphsync.RequestData, b graphsync.BlockData, _ graphsync.OutgoingBlockHookActions) {
			if b.Index() >= 10 {
				pace := time.NewTimer(5 * time.Millisecond)
				defer pace.Stop()
				<-pace.C
			}
		})
		p.gsProvider.RegisterRequestorCancelledListener(func(peer.ID, graphsync.RequestData) { close(cancelled) })
		ctx := testContext(t, 30*time.Second)
		reqCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		progress, errs := p.gs.Request(reqCtx, p.provider.ID(), cidlink.Link{Cid: root}, selectorparse.CommonSelector_ExploreAllRecursively)
		<-progress
		cancel()
		for range progress {
		}
		var end error
		for err := range errs {
			end = err
		}
		if !errors.As(end, &graphsync.RequestClientCancelledErr{}) {
			t.Errorf("ended with %v", end)
		}
		select {
		case <-cancelled:
		case <-ctx.Done():
			t.Error("the provider never heard of it")
		}
	})
}

// TestInteropQUIC fetches over QUIC, whose streams have deadlines and resets of their own.
func TestInteropQUIC(t *testing.T) {
	from := newFastStore()
	root := fillStar(t, from, 8<<20, 256<<10)
	p := newPair(t, from, fastKind, fastKind, libp2p.NoListenAddrs, libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"),
		libp2p.Transport(libp2pquic.NewTransport))
	if err := p.fetch(testContext(t, 30*time.Second), root); err != nil {
		t.Fatal(err)
	}
	if p.store.bytes != from.bytes {
		t.Errorf("received %d bytes of %d", p.store.bytes, from.bytes)
	}
}

// TestIdleStream leaves a transfer paused for longer than the stock network's
// read deadline of 10 s: it reports an error on both sides, ours on neither.
func TestIdleStream(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 11 s")
	}
	for _, kind := range []networkKind{stockKind, fastKind} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			from := newFastStore()
			root := fillChain(t, from, 50, 1000)
			p := newPair(t, from, kind, kind)
			var failures atomic.Int32
			p.gs.RegisterReceiverNetworkErrorListener(func(peer.ID, error) { failures.Add(1) })
			p.gsProvider.RegisterReceiverNetworkErrorListener(func(peer.ID, error) { failures.Add(1) })
			paused := make(chan graphsync.RequestID, 1)
			p.gsProvider.RegisterOutgoingBlockHook(func(_ peer.ID, r graphsync.RequestData, b graphsync.BlockData, a graphsync.OutgoingBlockHookActions) {
				if b.Index() == 25 {
					a.PauseResponse()
					paused <- r.ID()
				}
			})
			ctx := testContext(t, 40*time.Second)
			done := make(chan error, 1)
			go func() { done <- p.fetch(ctx, root) }()
			id := <-paused
			<-time.After(10*time.Second + 500*time.Millisecond) // the span is what is tested
			if err := p.gsProvider.Unpause(ctx, id); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if n := failures.Load(); (n > 0) != (kind.name == "stock") {
				t.Errorf("%d network errors", n)
			}
		})
	}
}

// TestNoGoroutines checks that nothing is left of a transfer after its hosts are closed.
func TestNoGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("transfer", func(t *testing.T) {
		from := newFastStore()
		root := fillStar(t, from, 4<<20, 256<<10)
		p := newPair(t, from, fastKind, fastKind)
		if err := p.fetch(testContext(t, 30*time.Second), root); err != nil {
			t.Fatal(err)
		}
	})
	goleak.VerifyNone(t, before)
}
