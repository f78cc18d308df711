package retrievalmarket

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestThrottle: each peer has its own turn, and those that come and go are
// forgotten.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(10, 5)
		wait := func(p peer.ID, n int) time.Duration {
			start := time.Now()
			for range n {
				if err := th.wait(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(start)
		}
		if took := wait("p", 15); took < 990*time.Millisecond || took > 1010*time.Millisecond {
			t.Errorf("15 took %v", took)
		}
		if took := wait("q", 5); took != 0 {
			t.Errorf("another peer's 5 took %v", took)
		}
		for range 20 { // what is given back can be taken again
			if !th.take("r") {
				t.Fatal("it is not its turn")
			}
			th.giveBack("r")
		}
		for range 5 {
			th.take("r")
		}
		if th.take("r") {
			t.Error("it is its turn for ever")
		}
		for i := range 2 * throttled {
			wait(peer.ID(rune(i)), 1)
		}
		if len(th.peers) > throttled {
			t.Errorf("%d limits are kept", len(th.peers))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if th.wait(ctx, "p") == nil {
			t.Error("it does not end with its context")
		}
	})
}

// TestShared: many streams of one peer that wait do not make another peer wait with
// them.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(1000, 10)
		ctx, cancel := context.WithCancel(t.Context())
		for range 64 {
			go func() {
				for s.wait(ctx, "crowd", 1) == nil {
				}
			}()
		}
		time.Sleep(time.Second)
		begun := time.Now()
		for range 100 {
			if err := s.wait(ctx, "one", 1); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took > 300*time.Millisecond { // at 500 a second, and now and then behind one of the crowd
			t.Errorf("100 took %s", took)
		}
		cancel()
		synctest.Wait()
	})
}
