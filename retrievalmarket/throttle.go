package retrievalmarket

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// throttled is how many peers' limits a throttle keeps.
const throttled = 4096

// A throttle makes each peer wait that does something too often. What it does
// waits with it, on the peer's own stream.
type throttle struct {
	rate  rate.Limit // per second
	burst int

	mu    sync.Mutex
	peers map[peer.ID]*rate.Limiter // guarded by mu
}

func newThrottle(r rate.Limit, burst int) *throttle {
	return &throttle{rate: r, burst: burst, peers: make(map[peer.ID]*rate.Limiter)}
}

// wait returns when it is p's turn, or with ctx.
func (t *throttle) wait(ctx context.Context, p peer.ID) error { return t.of(p).Wait(ctx) }

// take reports whether it is p's turn, and takes it.
func (t *throttle) take(p peer.ID) bool { return t.of(p).Allow() }

// giveBack undoes take.
func (t *throttle) giveBack(p peer.ID) { t.of(p).AllowN(time.Now(), -1) }

// owe takes a turn that p was given back, also if it has none left.
func (t *throttle) owe(p peer.ID) { t.of(p).Reserve() }

// of returns the limit of p. When too many are kept those at rest are dropped, and
// all if there is none.
func (t *throttle) of(p peer.ID) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.peers[p]
	if own != nil {
		return own
	}
	if len(t.peers) >= throttled {
		for other, l := range t.peers {
			if l.Tokens() >= float64(t.burst) {
				delete(t.peers, other)
			}
		}
		if len(t.peers) >= throttled {
			clear(t.peers)
		}
	}
	own = rate.NewLimiter(t.rate, t.burst)
	t.peers[p] = own
	return own
}
