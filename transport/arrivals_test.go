package transport

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-graphsync"
)

// blockWaits returns how long a block waits now.
func blockWaits(a *arrivals) time.Duration {
	start := time.Now()
	a.first(context.Background())
	return time.Since(start)
}

// TestArrivals: a block waits until the requests that came before it are decided on.
func TestArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArrivals()
		if got := blockWaits(a); got != 0 {
			t.Errorf("a block waits %v for nobody", got)
		}
		one, two := graphsync.NewRequestID(), graphsync.NewRequestID()
		a.come(one)
		a.come(two)
		time.AfterFunc(100*time.Millisecond, func() { a.decided(one) })
		time.AfterFunc(300*time.Millisecond, func() { a.decided(two); a.decided(two); a.decided(one) })
		if got := blockWaits(a); got != 300*time.Millisecond {
			t.Errorf("a block waits %v for two, want 300ms", got)
		}
		if got := blockWaits(a); got != 0 {
			t.Errorf("a block waits %v when both are decided on", got)
		}
		a.come(one)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		start := time.Now()
		if a.first(ctx); time.Since(start) != time.Second/2 {
			t.Errorf("a block waits %v after its node has stopped", time.Since(start)-time.Second/2)
		}
	})
}

// TestArrivalsShare: however many come, blocks wait for two seconds and then for a
// twentieth of the time; a request that graphsync lost holds up nobody.
func TestArrivalsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArrivals()
		var waited time.Duration
		start := time.Now()
		for time.Since(start) < 100*time.Second { // each takes as long as the next one needs to come
			id := graphsync.NewRequestID()
			a.come(id)
			waited += blockWaits(a)
			<-time.After(50 * time.Millisecond)
			a.decided(id)
		}
		if waited < 2*time.Second || waited > 7*time.Second {
			t.Errorf("blocks waited %v of 100s", waited)
		}
		a.come(graphsync.NewRequestID()) // and is never heard of again
		<-time.After(time.Hour)
		id := graphsync.NewRequestID()
		a.come(id)
		a.decided(id)
		if got := blockWaits(a); got != 0 {
			t.Errorf("a block waits %v for a request that is lost", got)
		}
	})
}
