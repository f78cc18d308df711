package integration

import (
	"context"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	routed "github.com/libp2p/go-libp2p/p2p/host/routed"
	"github.com/multiformats/go-multiaddr"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
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

// finder is a routing system that knows where one peer is.
type finder struct{ peer.AddrInfo }

func (f finder) FindPeer(context.Context, peer.ID) (peer.AddrInfo, error) { return f.AddrInfo, nil }

// TestDialRouted: a provider of which no address is known, or one at which it no longer
// is, is found by the client's host if that can look for it.
func TestDialRouted(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 1000, 1000)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	for name, at := range map[string][]multiaddr.Multiaddr{"no address": nil, "an old one": {multiaddr.StringCast(freeAddress(t))}} {
		b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.Host = routed.Wrap(c.Host, finder{s.addr()}) })
		to := market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: s.host.ID(), Addrs: at}}
		if _, err := b.Query(within(t, longest), to, root, market.QueryParams{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
