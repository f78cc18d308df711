package retrievalmarket

import (
	"sync"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"go.uber.org/goleak"
)

func TestInboxMergesProgressOnly(t *testing.T) {
	b := newInbox()
	one := datatransfer.ChannelID{ID: 1}
	for i := range 3 * inboxSize {
		if !b.post(channelNote{kind: noteProgress, chid: one, queued: Bytes(i)}) {
			t.Fatal("progress filled the inbox")
		}
	}
	b.post(channelNote{kind: noteStopped, chid: one})
	b.post(channelNote{kind: noteProgress, chid: one, queued: 1})
	b.post(channelNote{kind: noteProgress, chid: datatransfer.ChannelID{ID: 2}})
	got := b.take()
	if len(got) != 4 || got[0].(channelNote).queued != Bytes(3*inboxSize-1) || got[1].(channelNote).kind != noteStopped {
		t.Errorf("%d notes: %+v", len(got), got)
	}
	if len(b.take()) != 0 {
		t.Error("taken twice")
	}
	for range inboxSize {
		b.post(payNote{})
	}
	if b.post(payNote{}) {
		t.Error("a flood of payments is not bounded")
	}
}

// TestHub: a subscriber that is slow misses steps, never a change of another
// kind and never the last state, and delays nobody.
func TestHub(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h := newHub[DealID, ClientEvent, int](ClientEventProgress)
	var mu sync.Mutex
	var slow, fast []int
	gate := make(chan struct{})
	h.subscribe(func(_ ClientEvent, s int) {
		<-gate
		mu.Lock()
		defer mu.Unlock()
		slow = append(slow, s)
	})
	done := make(chan struct{})
	h.subscribe(func(e ClientEvent, s int) {
		fast = append(fast, s)
		if e == ClientEventComplete {
			close(done)
		}
	})
	h.publish(1, ClientEventOpen, 0)
	for i := 1; i <= 1000; i++ {
		h.publish(1, ClientEventProgress, i)
	}
	h.publish(1, ClientEventComplete, 1001)
	<-done // although the slow one stands still
	close(gate)
	h.close()
	if last := slow[len(slow)-1]; last != 1001 || slow[0] != 0 {
		t.Errorf("the slow subscriber saw %d to %d", slow[0], last)
	}
	if len(slow) > 5 {
		t.Errorf("%d steps were kept for the slow subscriber", len(slow))
	}
	unsubscribe := h.subscribe(func(ClientEvent, int) {})
	unsubscribe()
	unsubscribe()
	h.close()
}
