package integration

import (
	"cmp"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// shortKind is what a short deal is about, besides its size.
type shortKind struct {
	name string
	ask  voucher.Ask
}

var shortKinds = []shortKind{
	{"paid", voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 20}},
	{"free", voucher.Ask{}},
	{"sealed", voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 20, UnsealPrice: voucher.Atto(1000)}},
}

// TestShortDeals: deals of one block, and of four, complete and settle, however
// they are paid and however far the provider is. TOLLGRAPH_SHORT is how many of
// each size, TOLLGRAPH_WORKERS how many at once.
func TestShortDeals(t *testing.T) {
	t.Parallel()
	deals := envInt(t, "TOLLGRAPH_SHORT", 60)
	seed := uint64(envInt(t, "TOLLGRAPH_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("TOLLGRAPH_SEED=%d", seed)
	h := newShort(t, seed)
	ends := h.watchEnds()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range envInt(t, "TOLLGRAPH_WORKERS", 2) {
		workers.Go(func() {
			for i := int(next.Add(1)); i <= 2*deals && !t.Failed(); i = int(next.Add(1)) {
				h.short(i)
			}
		})
	}
	workers.Wait()
	ends()
	h.settled()
	h.reportShort()
}

// newShort makes a hunt of short deals: half the DAGs are one block, half are
// 1 MiB in four.
func newShort(t *testing.T, seed uint64) *hunt {
	t.Helper()
	h := &hunt{t: t, seed: seed, goods: newGoods(), busy: make(map[askKey]bool)}
	r := mrand.New(mrand.NewPCG(seed, 0))
	for i := range 72 {
		mark := seed<<16 + uint64(i)
		sealed := i/2%3 == 2
		if i%2 == 0 {
			h.dags = append(h.dags, h.goods.add(t, mark, sealed, []int{logUniform(r, 1, 64<<10)}))
		} else {
			h.dags = append(h.dags, h.goods.add(t, mark, sealed, []int{349_525, 349_525, 349_400}))
		}
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	h.s = newSeller(t, t.TempDir(), hiddenHost(t, key), nil, voucher.Ask{}, voucher.OneFIL, h.goods.sell)
	for _, each := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond} {
		h.buyer(each.String(), false, false, 0)
		h.buyers[len(h.buyers)-1].proxy.latency(each)
	}
	return h
}

// short runs the i-th deal. It goes through sizes, kinds and delays in turn.
func (h *hunt) short(i int) {
	b := h.buyers[i/6%len(h.buyers)]
	kind := shortKinds[i/2%3]
	dag, free := h.take(b, i%len(h.dags))
	for dag.sealed != (kind.name == "sealed") || (dag.blocks == 1) != (i%2 == 0) {
		free()
		dag, free = h.take(b, mrand.IntN(len(h.dags)))
	}
	defer free()
	o := outcome{index: i, buyer: b, dag: dag, ask: kind.ask, fault: kind.name}
	h.goods.charge(b.host.ID(), dag.root, kind.ask)
	req := market.Request{Provider: market.RetrievalPeer{AddrInfo: b.addr}, Root: dag.root, Budget: voucher.OneFIL}
	start := time.Now()
	o.run(h.t.Context(), req)
	o.took = time.Since(start)
	if o.err == nil && (uint64(o.got) != dag.size || o.spent != o.due()) {
		o.err = fmt.Errorf("want %d bytes for %s", dag.size, o.due())
	}
	if o.err != nil {
		h.t.Errorf("seed %d, %s", h.seed, o)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, o)
}

// watchEnds follows the seller's deals. What it returns waits until every deal
// that was done has ended there too.
func (h *hunt) watchEnds() func() {
	var mu sync.Mutex
	over := make(map[market.ProviderDealID]bool)
	turn := make(chan struct{}, 1)
	unsubscribe := h.s.SubscribeToEvents(func(ev market.ProviderEvent, d market.ProviderDealState) {
		if ev != market.ProviderEventComplete && ev != market.ProviderEventError {
			return
		}
		mu.Lock()
		over[market.ProviderDealID{From: d.Receiver, ID: d.ID}] = true
		mu.Unlock()
		select {
		case turn <- struct{}{}:
		default:
		}
	})
	left := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range h.done {
			for _, id := range o.ids {
				if !over[market.ProviderDealID{From: o.buyer.host.ID(), ID: id}] {
					n++
				}
			}
		}
		return n
	}
	return func() {
		defer unsubscribe()
		ctx := within(h.t, 10*time.Second)
		for left() > 0 {
			select {
			case <-turn:
			case <-ctx.Done():
				h.t.Errorf("seed %d: %d deals have not ended at the provider", h.seed, left())
				return
			}
		}
	}
}

// reportShort tells how long deals took, by size, kind and delay.
func (h *hunt) reportShort() {
	groups := make(map[string][]time.Duration)
	for _, o := range h.done {
		name := fmt.Sprintf("%d blocks, %s, %s each way", o.dag.blocks, o.fault, o.buyer.name)
		groups[name] = append(groups[name], o.took)
	}
	names := make([]string, 0, len(groups))
	for name := range groups {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare)
	for _, name := range names {
		all := groups[name]
		slices.Sort(all)
		h.t.Logf("%s: %d deals, median %s, worst %s", name, len(all), all[len(all)/2].Round(time.Millisecond/10), all[len(all)-1].Round(time.Millisecond/10))
	}
}
