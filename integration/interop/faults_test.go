package interop

import (
	"slices"
	"testing"
	"time"

	rt "github.com/filecoin-project/go-retrieval-types"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// broken is a deal of three intervals and a bit, long enough to break in its
// middle. The amounts are worked out as those of sales.
var broken = sale{name: "broken", sizes: times(230, 16<<10), price: 2, interval: 1 << 20, increase: 1 << 16,
	payments: []uint64{2_097_152, 4_325_376, 6_684_672, 7_536_640}}

func await(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("%s did not happen", what)
	}
}

// sellFaults are what happens to our provider in the middle of a stock client's
// deal. The client then restarts its channel.
var sellFaults = map[string]func(t *testing.T, p *seller, d *lazyDeal){
	"connection cut": func(t *testing.T, p *seller, d *lazyDeal) { cut(t, d.c.host, p.host.ID()) },
	"connection cut and back": func(t *testing.T, p *seller, d *lazyDeal) {
		cut(t, d.c.host, p.host.ID())
		must(t, d.c.host.Connect(within(t, 10*time.Second), p.addr()))
		p.goods.gate.release()
		select { // a provider that went on behind what was lost would fail the channel for good
		case <-d.ended:
		case <-time.After(time.Second):
		}
	},
	"provider restarted": func(t *testing.T, p *seller, d *lazyDeal) {
		p.stop()
		p.start()
	},
}

// TestSellThroughFaults: a stock client's deal survives with no byte paid twice.
func TestSellThroughFaults(t *testing.T) {
	for name, fault := range sellFaults {
		for where, at := range map[string]uint64{"first interval": 1 << 16, "middle": 3 << 19} {
			for _, s := range []sale{broken, {name: "free", sizes: broken.sizes}, {name: "free part", sizes: broken.sizes, part: 200}} {
				t.Run(name+"/"+where+"/"+s.name, func(t *testing.T) { sellThrough(t, s, at, inMaps{}, fault) })
			}
		}
	}
}

func sellThrough(t *testing.T, s sale, at uint64, says dialect, fault func(*testing.T, *seller, *lazyDeal)) {
	dag := newChain(t, s.sizes...)
	provider := newSeller(t, s.ask(), false, dag.car(t))
	client := newLazyClient(t)
	client.dialect = says
	gate := newGate(t, at)
	provider.goods.gate = gate
	onRecord := provider.onRecord()
	deal := client.propose(within(t, time.Minute), provider.addr(), provider.payTo,
		rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(s.price, s.unseal, s.interval, s.increase, s.selector(), nil)}, s.selector())
	await(t, gate.reached, "the middle")
	await(t, deal.accepted, "acceptance") // a stock channel that breaks before it never ends in order
	await(t, onRecord, "the provider's record")
	fault(t, provider, deal)
	gate.release()
	deal.restart(within(t, time.Minute), provider.addr())
	deal.wait(within(t, time.Minute))
	if deal.err != nil || !deal.completed || deal.received != s.bytes() || !slices.Equal(deal.paid, s.payments) {
		t.Errorf("want %d bytes for %v: %s", s.bytes(), s.payments, deal)
	}
	if s.price != 0 {
		checkSold(t, s, provider)
	}
}

var buyFaults = map[string]func(t *testing.T, p *strictProvider, c *buyer){
	"connection cut":     func(t *testing.T, p *strictProvider, c *buyer) { cut(t, p.host, c.host.ID()) },
	"provider restarted": func(t *testing.T, p *strictProvider, c *buyer) { p.restart() },
}

// TestBuyThroughFaults: our client gets everything from a strict stock provider
// and pays for no byte twice. Its channel is restarted; where plain graphsync
// has failed the request for good, the rest is a deal of its own.
func TestBuyThroughFaults(t *testing.T) {
	for name, fault := range buyFaults {
		for where, at := range map[string]uint64{"first interval": 1 << 16, "middle": 3 << 19} {
			for _, s := range []sale{broken, {name: "free", sizes: broken.sizes}} {
				t.Run(name+"/"+where+"/"+s.name, func(t *testing.T) { buyThrough(t, s, at, fault) })
			}
		}
	}
}

func buyThrough(t *testing.T, s sale, at uint64, fault func(*testing.T, *strictProvider, *buyer)) {
	dag := newChain(t, s.sizes...)
	provider := newStrictProvider(t, dag, params(s.price, s.unseal, s.interval, s.increase, nil, nil))
	client := newBuyer(t)
	gate := newGate(t, at)
	provider.blocks.gate = gate
	accepted := client.accepted()
	type outcome struct {
		state market.ClientDealState
		err   error
	}
	done := make(chan outcome, 1)
	ctx := within(t, 45*time.Second)
	go func() {
		state, err := client.market.Get(ctx, s.request(provider))
		done <- outcome{state, err}
	}()
	await(t, gate.reached, "the middle")
	await(t, accepted, "acceptance") // see above
	fault(t, provider, client)
	gate.release()
	end := <-done
	must(t, end.err)
	deals, repeated := provider.all()
	if repeated != 0 || len(deals) > 2 {
		t.Errorf("%d deals, %d proposals came again", len(deals), repeated)
	}
	if len(deals) > 1 {
		provider.close() // nothing is written to the deals any more
		t.Log("the channel was failed by graphsync; the rest was another deal")
		checkSum(t, s, deals)
		return
	}
	checkPaid(t, s, end.state)
	d := provider.deal(within(t, 10*time.Second))
	// A client that waited too long pays for what it holds between boundaries.
	if d.state != rt.DealStatusCompleted || d.err != nil || !slices.IsSorted(d.sent) || d.received.Uint64() != s.total() {
		t.Errorf("provider: %s, %v, got %v, want %v", d.state, d.err, d.sent, s.payments)
	}
}

// checkSum says that several deals together did not cost more than one.
func checkSum(t *testing.T, s sale, deals []*strictDeal) {
	t.Helper()
	paid := uint64(0)
	for _, d := range deals {
		if len(d.sent) > 0 {
			paid += slices.Max(d.sent)
		}
	}
	if paid > s.total() {
		t.Errorf("paid %d in %d deals, one costs %d", paid, len(deals), s.total())
	}
}

// TestBuyAhead: a client that pays ahead of a provider which credits a surplus
// only when it next asks is never stuck and never overpays.
func TestBuyAhead(t *testing.T) {
	dag := newChain(t, times(60, 1000)...)
	provider := newStrictProvider(t, dag, params(3, 0, 10_000, 1_000, nil, nil))
	client := newBuyer(t)
	s := sale{sizes: times(60, 1000), price: 3, interval: 10_000, increase: 1_000, payments: []uint64{180_000}}
	r := s.request(provider)
	ask := s.ask()
	r.Ask, r.Expected, r.AtRisk = &ask, 60_000, risk(30_000)
	r.Provider.Address = provider.payTo
	got, err := client.market.Get(within(t, 30*time.Second), r)
	must(t, err)
	checkPaid(t, s, got)
	d := provider.deal(within(t, 10*time.Second))
	if d.state != rt.DealStatusCompleted || !slices.IsSorted(d.sent) || d.sent[len(d.sent)-1] != 180_000 {
		t.Errorf("provider: %s, %v, got %v", d.state, d.err, d.sent)
	}
	if len(d.sent) < 2 || d.sent[0] <= 30_000 {
		t.Errorf("nothing was paid ahead: %v", d.sent)
	}
}
