package transport

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// maxLimits is how many peers' limiters are kept before those at rest are
// dropped.
const maxLimits = 4096

// peerLimits are rate limiters, one for each peer.
type peerLimits struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex // guards peers
	peers map[peer.ID]*rate.Limiter
}

func newPeerLimits(r rate.Limit, burst int) *peerLimits {
	return &peerLimits{rate: r, burst: burst, peers: make(map[peer.ID]*rate.Limiter)}
}

// of returns the limiter of p.
func (l *peerLimits) of(p peer.ID) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.peers[p]
	if own == nil {
		if len(l.peers) >= maxLimits {
			l.dropResting()
		}
		own = rate.NewLimiter(l.rate, l.burst)
		l.peers[p] = own
	}
	return own
}

// dropResting forgets the limiters that a new one would equal, and all of them if
// there is none: then each peer has its burst again. mu is held.
func (l *peerLimits) dropResting() {
	for p, own := range l.peers {
		if own.Tokens() >= float64(l.burst) {
			delete(l.peers, p)
		}
	}
	if len(l.peers) >= maxLimits {
		clear(l.peers)
	}
}
