//go:build unix

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// crowd is several clients that each buy several DAGs from one provider, which
// is a process, at the same time.
type crowd struct {
	*bench
	sizes    map[cid.Cid]uint64
	clients  []*buyer
	received atomic.Uint64 // bytes, over all deals
	ended    atomic.Int64  // deals
	moved    chan struct{} // capacity 1: received or ended has grown
}

func newCrowd(t *testing.T, clients, dags int) *crowd {
	t.Helper()
	c := &crowd{bench: newBench(t, 1<<20, 16<<10, 64<<10), sizes: make(map[cid.Cid]uint64), moved: make(chan struct{}, 1)}
	c.car = filepath.Join(c.dir, "goods")
	for i := range dags {
		dir := filepath.Join(c.car, fmt.Sprint(i))
		must(t, os.MkdirAll(dir, 0o700))
		_, root, size := makeCAR(t, dir, 1<<20+int64(i), 16<<10)
		c.sizes[root] = size
	}
	for range clients {
		b := newBuyer(t, t.TempDir())
		var mu sync.Mutex
		seen := make(map[market.DealID]voucher.Bytes)
		t.Cleanup(b.SubscribeToEvents(func(e market.ClientEvent, d market.ClientDealState) {
			if e == market.ClientEventComplete {
				c.ended.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			c.received.Add(uint64(d.TotalReceived - seen[d.ID]))
			seen[d.ID] = d.TotalReceived
			select {
			case c.moved <- struct{}{}:
			default:
			}
		}))
		c.clients = append(c.clients, b)
	}
	return c
}

// buyAll begins every deal and returns a channel that tells when all have
// ended.
func (c *crowd) buyAll() <-chan struct{} {
	c.t.Helper()
	addr, err := os.ReadFile(c.path("address"))
	must(c.t, err)
	from, err := peer.AddrInfoFromString(string(addr))
	must(c.t, err)
	ctx := within(c.t, longest)
	var deals sync.WaitGroup
	for _, b := range c.clients {
		for root, size := range c.sizes {
			deals.Go(func() {
				got, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: *from}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)})
				if want := c.ask.Terms().Cost(voucher.Bytes(size)); err != nil || uint64(got.TotalReceived) != size || got.FundsSpent != want {
					c.t.Errorf("%d bytes for %s, %v; want %d for %s", got.TotalReceived, got.FundsSpent, err, size, want)
				}
			})
		}
	}
	all := make(chan struct{})
	go func() {
		deals.Wait()
		close(all)
	}()
	return all
}

// TestCrowd: 32 deals of 8 clients at once, and the provider is killed twice.
// All complete and are settled to the byte in both books.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const clients, dags = 8, 4
	c := newCrowd(t, clients, dags)
	seller := c.startSeller(0)
	defer func() { seller.kill() }()
	all := c.buyAll()
	var total uint64
	for _, size := range c.sizes {
		total += clients * size
	}
	for kills := uint64(0); kills < 2; {
		select {
		case <-c.moved:
			if c.received.Load() > total*(kills+1)/3 {
				kills++
				seller.kill()
				seller = c.startSeller(0)
			}
		case <-all:
			t.Fatalf("over before the provider was killed twice")
		}
	}
	<-all
	for ctx := within(t, longest); c.ended.Load() < clients*dags; { // until the last words are said
		wait(ctx, t, c.moved)
	}
	c.stop(seller)
	c.settled()
}

// settled compares the books: the same deals, all completed, for the same money.
func (c *crowd) settled() {
	c.t.Helper()
	sold := c.books("provider")
	for _, b := range c.clients {
		bought, err := b.Deals(c.t.Context(), 100)
		must(c.t, err)
		for _, d := range bought {
			other := sold[fmt.Sprint(uint64(d.ID))]
			if d.Status != voucher.DealStatusCompleted || other.Status != "Completed" || d.FundsSpent.String() != other.Paid || uint64(d.TotalReceived) != other.Bytes {
				c.t.Errorf("the books differ, or a deal is open:\n client   %+v\n provider %+v", d, other)
			}
		}
	}
	if want := len(c.clients) * len(c.sizes); len(sold) != want {
		c.t.Errorf("%d deals sold, want %d", len(sold), want)
	}
}
