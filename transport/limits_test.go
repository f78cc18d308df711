package transport

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestLimitsForget checks that the limiters of peers that come and go are not
// kept for ever, that one in use is, and that there are never more than the most.
func TestLimitsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPeerLimits(1, 10)
		for i := range maxLimits {
			l.of(peer.ID(rune(i)))
		}
		busy := l.of(peer.ID(rune(7)))
		busy.AllowN(time.Now(), 10)
		l.of("one more")
		if len(l.peers) != 2 || l.of(peer.ID(rune(7))) != busy {
			t.Errorf("%d limiters are kept", len(l.peers))
		}
		for i := range 2 * maxLimits {
			l.of(peer.ID(rune(i))).Allow()
		}
		if len(l.peers) > maxLimits {
			t.Errorf("%d limiters are kept, all in use", len(l.peers))
		}
	})
}
