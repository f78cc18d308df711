package integration

import (
	"sync"
	"testing"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// TestDialBoth: two nodes that dial each other at the same instant, from the
// ports at which they listen, may find one TCP connection that both took for
// their own: then both speak first, and neither gets a channel. They try again.
func TestDialBoth(t *testing.T) {
	const rounds = 60
	one, two := newTrader(t, newSite(t), 100), newTrader(t, newSite(t), 100)
	ctx := within(t, longest)
	for round := range rounds {
		var both sync.WaitGroup
		start := make(chan struct{})
		for _, pair := range [][2]*trader{{one, two}, {two, one}} {
			both.Go(func() {
				<-start
				if _, err := pair[0].client.Query(ctx, market.RetrievalPeer{AddrInfo: pair[1].addr()}, pair[1].root, market.QueryParams{}); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		close(start)
		both.Wait()
		must(t, one.host.Network().ClosePeer(two.host.ID()))
		must(t, two.host.Network().ClosePeer(one.host.ID()))
	}
}
