package transport

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestBusyWords: what is over a limit is said to be, for every request and in few
// messages, and a peer that does not read is told nothing for ever.
func TestBusyWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &netStub{said: make(chan gsmsg.GraphSyncMessage, 1000)}
		b := newBusyWords(s.SendMessage)
		var ids []graphsync.RequestID
		for range 10 * busyAtOnce {
			ids = append(ids, graphsync.NewRequestID())
			b.say("p", ids[len(ids)-1])
		}
		time.Sleep(time.Second)
		b.close()
		told := 0
		for range len(s.said) {
			for _, r := range (<-s.said).Responses() {
				if r.Status() != graphsync.RequestFailedBusy {
					t.Errorf("status %v", r.Status())
				}
				told++
			}
		}
		if told < busyAtOnce || told > 2*busyAtOnce {
			t.Errorf("told of %d requests, at most %d at once", told, busyAtOnce)
		}
		b.say("p", ids[0]) // after the end: no harm
	})
}

// TestBusyUnread: those that do not read delay nobody, and take no more than so
// many goroutines.
func TestBusyUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan peer.ID, 1)
		b := newBusyWords(func(ctx context.Context, p peer.ID, _ gsmsg.GraphSyncMessage) error {
			if p == "reads" {
				told <- p
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		for i := range busyPeers - 1 {
			b.say(peer.ID(rune(i)), graphsync.NewRequestID())
		}
		b.say("reads", graphsync.NewRequestID())
		b.say("one too many", graphsync.NewRequestID())
		<-told
		time.Sleep(2 * busyTimeout)
		synctest.Wait()
		if len(b.waiting) != 0 {
			t.Errorf("%d peers are still being told", len(b.waiting))
		}
		b.close()
	})
}

// TestBusyOnTheWire: requests over the two limits of a peer are answered, a
// restart of what is live is not over it, and an end makes room.
func TestBusyOnTheWire(t *testing.T) {
	ctx := within(t, 30*time.Second)
	n := newTestNode(t, nodeHost(t), func(c *Config) { c.Guard.MaxLivePerPeer, c.NetworkGuard.MaxRequests = 3, 8 })
	store := newMemStore()
	serveFrom(t, n.Transfers(), &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, ForcePause: true}, nil
	}, restart: func(datatransfer.ChannelID, datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true}, nil
	}}, store)
	d := buildDAG(t, store, 50, 1, 100, nil)
	a := newAttacker(t, n.cfg.Host)
	var all []gsmsg.GraphSyncRequest
	for id := range datatransfer.TransferID(10) {
		all = append(all, newRequest(d.root, wholeDAG(), pull(t, id, false, d.root, wholeDAG()), dedup(n, a, id)))
	}
	a.send(t, ctx, all...)
	busy, paused := 0, -1
	for i, r := range all {
		switch s, _ := a.outcomeOrPause(ctx, r.ID()); s {
		case graphsync.RequestFailedBusy:
			busy++
		case graphsync.RequestPaused:
			paused = i
		default:
			t.Errorf("request %d: %v", i, s)
		}
	}
	if busy != 7 || paused < 0 {
		t.Fatalf("%d of 10 requests are busy, 3 may be live", busy)
	}
	id := datatransfer.TransferID(paused)
	again := newRequest(d.root, wholeDAG(), pull(t, id, true, d.root, wholeDAG()), dedup(n, a, id))
	a.send(t, ctx, again)
	if s, _ := a.outcomeOrPause(ctx, again.ID()); s != graphsync.RequestPaused {
		t.Errorf("restart of what is live: %v", s)
	}
	a.send(t, ctx, gsmsg.NewCancelRequest(again.ID()))
	for id := datatransfer.TransferID(20); ; id++ { // it ends in a moment
		late := newRequest(d.root, wholeDAG(), pull(t, id, false, d.root, wholeDAG()), dedup(n, a, id))
		a.send(t, ctx, late)
		if s, _ := a.outcomeOrPause(ctx, late.ID()); s == graphsync.RequestPaused {
			return
		} else if s != graphsync.RequestFailedBusy {
			t.Fatalf("after one has ended: %v", s)
		}
	}
}
