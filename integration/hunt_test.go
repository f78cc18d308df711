package integration

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// envInt reads a number from the environment.
func envInt(t testing.TB, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// hunt is one seller, some buyers behind proxies, and what they deal in.
type hunt struct {
	t      *testing.T
	seed   uint64
	s      *seller
	goods  *randomGoods
	dags   []randomDAG
	buyers []*hunted

	mu   sync.Mutex
	busy map[askKey]bool // guarded by mu; what a buyer is buying
	done []outcome       // guarded by mu
}

// hunted is a buyer of a hunt.
type hunted struct {
	*buyer
	name   string
	proxy  *netproxy
	addr   peer.AddrInfo
	faulty bool
}

// outcome is how one deal of a hunt went.
type outcome struct {
	index  int
	buyer  *hunted
	dag    randomDAG
	ask    voucher.Ask
	fault  string
	ids    []market.DealID
	spent  voucher.Amount
	got    voucher.Bytes
	stalls int
	took   time.Duration
	err    error
}

func (o outcome) String() string {
	return fmt.Sprintf("deal %d by %s: %d bytes in %d blocks sealed %v, price %d unseal %s interval %d+%d, fault %q: %s, deals %d, %d bytes for %s, %v",
		o.index, o.buyer.name, o.dag.size, o.dag.blocks, o.dag.sealed, o.ask.PricePerByte, o.ask.UnsealPrice, o.ask.PaymentInterval,
		o.ask.PaymentIntervalIncrease, o.fault, o.took.Round(time.Millisecond), o.ids, o.got, o.spent, o.err)
}

// TestStallHunt: paid deals of every shape, over connections that are slow and
// break, all complete, and both sides' books hold exactly the price.
// TOLLGRAPH_HUNT is how many, TOLLGRAPH_SEED which.
func TestStallHunt(t *testing.T) {
	t.Parallel()
	deals := envInt(t, "TOLLGRAPH_HUNT", 120)
	seed := uint64(envInt(t, "TOLLGRAPH_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("TOLLGRAPH_SEED=%d", seed)
	h := newHunt(t, seed, min(200, 24+deals/8))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := int(next.Add(1)); i <= deals && !t.Failed(); i = int(next.Add(1)) {
				h.deal(i)
			}
		})
	}
	workers.Wait()
	untilEnded(t, h.s.Provider)
	h.settled()
	if n := h.s.node.Dropped()[transport.ReasonBound]; n != 0 {
		t.Errorf("%d requests went beyond what their deals may have: no client asked for that", n)
	}
	h.report()
}

func newHunt(t *testing.T, seed uint64, dags int) *hunt {
	t.Helper()
	h := &hunt{t: t, seed: seed, goods: newGoods(), busy: make(map[askKey]bool)}
	r := mrand.New(mrand.NewPCG(seed, 0))
	for i := range dags {
		h.dags = append(h.dags, h.goods.random(t, seed<<16+uint64(i), r))
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	h.s = newSeller(t, t.TempDir(), hiddenHost(t, key), nil, defaultAsk, voucher.OneFIL, h.goods.sell)
	h.buyer("near", false, false, 0)
	h.buyer("near, vouchers", true, false, time.Millisecond)
	h.buyer("far and bad", false, true, 12*time.Millisecond)
	h.buyer("far, vouchers", true, false, 4*time.Millisecond)
	h.buyer("bad", false, true, 0)
	return h
}

// buyer adds a buyer, delayed each way by up to delay, half of it always.
func (h *hunt) buyer(name string, vouchersOnly, faulty bool, delay time.Duration) {
	b := &hunted{name: name, faulty: faulty}
	b.buyer = newBuyer(h.t, h.t.TempDir(), func(c *market.ClientConfig) { c.VouchersOnly = vouchersOnly })
	b.proxy, b.addr = proxyTo(h.t, h.s.host)
	if delay > 0 {
		r := mrand.New(mrand.NewPCG(h.seed, uint64(len(h.buyers))))
		b.proxy.jitter(func() time.Duration { return delay/2 + time.Duration(r.Int64N(int64(delay/2))) })
	}
	h.buyers = append(h.buyers, b)
}

// deal runs one deal, drawn from the seed and i.
func (h *hunt) deal(i int) {
	r := mrand.New(mrand.NewPCG(h.seed, uint64(i)))
	b := h.buyers[r.IntN(len(h.buyers))]
	dag, free := h.take(b, r.IntN(len(h.dags)))
	defer free()
	o := outcome{index: i, buyer: b, dag: dag, ask: randomAsk(r, dag)}
	h.goods.charge(b.host.ID(), dag.root, o.ask)
	req := market.Request{Provider: market.RetrievalPeer{AddrInfo: b.addr}, Root: dag.root, Budget: voucher.OneFIL}
	switch r.IntN(3) {
	case 0:
		req.AtRisk = risk(0)
	case 1:
		req.AtRisk = risk(voucher.Bytes(logUniform(r, 1, 256<<10)))
	}
	if b.faulty && r.IntN(3) == 0 {
		var stop func()
		o.fault, stop = b.harm(r)
		defer stop()
	}
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

// take reserves a DAG that b is not buying, from the n-th on, and gives it back
// with b's copy gone.
func (h *hunt) take(b *hunted, n int) (randomDAG, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; ; n = (n + 1) % len(h.dags) {
		dag := h.dags[n]
		key := askKey{b.host.ID(), dag.root}
		if h.busy[key] {
			continue
		}
		h.busy[key] = true
		return dag, func() {
			b.discard(h.t, dag.root)
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.busy, key)
		}
	}
}

// discard removes what a buyer has of a root.
func (b *buyer) discard(t testing.TB, root cid.Cid) {
	t.Helper()
	files, err := filepath.Glob(b.stores.path(root) + "*")
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
}

func randomAsk(r *mrand.Rand, dag randomDAG) voucher.Ask {
	ask := voucher.Ask{
		PricePerByte:    voucher.Price(logUniform(r, 1, 1000)),
		PaymentInterval: voucher.Bytes(logUniform(r, max(1, int(dag.size)/16), 4<<20)),
	}
	if r.IntN(2) == 0 {
		ask.PaymentIntervalIncrease = voucher.Bytes(logUniform(r, 1, 1<<20))
	}
	if dag.sealed && r.IntN(3) != 0 {
		ask.UnsealPrice = voucher.Atto(uint64(logUniform(r, 1, 1_000_000)))
		if r.IntN(4) == 0 {
			ask.PricePerByte = 0
		}
	}
	return ask
}

// due is what the deal must have cost. A root of no bytes is not bought.
func (o outcome) due() voucher.Amount {
	if o.dag.size == 0 {
		return voucher.Amount{}
	}
	terms := o.ask.Terms()
	if !o.dag.sealed {
		terms.Unseal = voucher.Amount{}
	}
	return terms.Cost(voucher.Bytes(o.dag.size))
}

// harm does something to the network of b in a moment.
func (b *hunted) harm(r *mrand.Rand) (string, func()) {
	at := time.Duration(logUniform(r, 1, 300)) * time.Millisecond
	var kind string
	var timers []*time.Timer
	after := func(d time.Duration, f func()) { timers = append(timers, time.AfterFunc(d, f)) }
	switch r.IntN(4) {
	case 0, 1:
		kind = "cut"
		after(at, b.proxy.cut)
	case 2:
		kind = "away"
		after(at, func() { b.proxy.refuse(true); b.proxy.cut() })
		after(at+300*time.Millisecond, func() { b.proxy.refuse(false) })
	default:
		kind = "silent"
		after(at, func() { b.proxy.silence(true) })
		after(at+200*time.Millisecond, func() { b.proxy.cut(); b.proxy.silence(false) })
	}
	return fmt.Sprintf("%s at %s", kind, at), func() {
		for _, t := range timers {
			t.Stop()
		}
		b.proxy.refuse(false)
		b.proxy.silence(false)
	}
}

// run retrieves. One that a fault kept from beginning is begun again; nothing else
// is tried twice.
func (o *outcome) run(ctx context.Context, req market.Request) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		id, err := o.buyer.Retrieve(ctx, req)
		if o.err = err; err != nil {
			if o.buyer.faulty && len(o.ids) == 0 && waited(ctx, 50*time.Millisecond) {
				continue
			}
			return
		}
		s, err := o.buyer.Wait(ctx, id)
		if o.ids = append(o.ids, id); s.ID != id { // a new deal took its place
			o.ids = append(o.ids, s.ID)
		}
		o.spent, o.got, o.stalls = o.spent.Add(s.FundsSpent), o.got+s.TotalReceived, o.stalls+s.Stalls
		o.err = err
		return
	}
}

// waited waits and returns true, or false if ctx ended before.
func waited(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// settled compares the books of both sides, deal by deal.
func (h *hunt) settled() {
	h.t.Helper()
	sold, err := h.s.Deals(h.t.Context(), 1<<30)
	must(h.t, err)
	book := make(map[market.ProviderDealID]market.ProviderDealState)
	for _, d := range sold {
		book[market.ProviderDealID{From: d.Receiver, ID: d.ID}] = d
	}
	for _, o := range h.done {
		var earned voucher.Amount
		for _, id := range o.ids {
			d := book[market.ProviderDealID{From: o.buyer.host.ID(), ID: id}]
			earned = earned.Add(d.FundsReceived)
			if d.Status != voucher.DealStatusCompleted && o.dag.size != 0 {
				h.t.Errorf("seed %d, %s: the provider's book says %d (%s), %d bytes for %s", h.seed, o, d.Status, d.Message, d.TotalSent, d.FundsReceived)
			}
		}
		if earned != o.spent {
			h.t.Errorf("seed %d, %s: the provider has %s", h.seed, o, earned)
		}
	}
}

// report tells how long deals took.
func (h *hunt) report() {
	slices.SortFunc(h.done, func(a, b outcome) int { return cmp.Compare(a.took, b.took) })
	if len(h.done) == 0 {
		return
	}
	var bytes voucher.Bytes
	stalls := 0
	for _, o := range h.done {
		bytes += o.got
		stalls += o.stalls
	}
	at := func(part int) time.Duration {
		return h.done[(len(h.done)-1)*part/100].took.Round(time.Millisecond)
	}
	h.t.Logf("%d deals, %d MiB, %d stalls; half within %s, 90 %% within %s, 99 %% within %s, all within %s",
		len(h.done), bytes>>20, stalls, at(50), at(90), at(99), at(100))
	for _, o := range h.done[max(0, len(h.done)-5):] {
		h.t.Logf("slow: %s", o)
	}
}
