//go:build unix

package integration

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// smallAsk asks for money at every KiB, the least that is allowed.
var smallAsk = voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 10}

// paces notes what this process, which is both sides, had spent when the
// payments of a deal were made.
type paces struct {
	mu    sync.Mutex
	spent []time.Duration // guarded by mu; of the processors, by number of payments
}

func (p *paces) see(_ market.ClientEvent, d market.ClientDealState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.spent) <= d.Payments {
		p.spent = append(p.spent, processorTime())
	}
}

// processorTime does not depend on what else the machine does.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost is what each of n payments took on average, after the first skip.
func (p *paces) cost(skip, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return (p.spent[skip+n] - p.spent[skip]) / time.Duration(n)
}

// TestManyPayments: thousands of payments in one deal, each of which costs the
// same. TOLLGRAPH_PAYMENTS says how many; from 10,000 on the cost is checked. With
// 100,000 it is long enough to show what graphsync takes for each and never gives
// back, see transport's assemble: at the 97,084th there was nothing left.
func TestManyPayments(t *testing.T) {
	t.Parallel()
	n := envInt(t, "TOLLGRAPH_PAYMENTS", 500)
	car, root, size := makeCAR(t, t.TempDir(), int64(n)<<10, 1<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, smallAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	var p paces
	unsubscribe := b.SubscribeToEvents(p.see)
	kept := mostKept(t, s.stack, b.stack)
	got, err := b.Get(within(t, longest+time.Duration(n)*50*time.Millisecond), market.Request{
		Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0),
	})
	if err != nil {
		t.Fatalf("%v after %d payments, %d bytes of %d; the provider has %+v", err, got.Payments, got.TotalReceived, size, s.ListDeals())
	}
	unsubscribe()
	settledExactly(t, s, b, size, smallAsk)
	if most := kept(); most > 4 { // the proposal, its answer, and the last word; not the payments
		t.Errorf("data-transfer keeps %d vouchers and answers in its record of the channel after %d payments", most, got.Payments)
	}
	few := min(1000, got.Payments/4)
	first, last := p.cost(0, few), p.cost(got.Payments-few-1, few)
	t.Logf("%d payments: %s of a processor for each of the first %d, %s for each of the last", got.Payments, first, few, last)
	if got.Payments < n*9/10 {
		t.Fatalf("%d payments for %d KiB", got.Payments, n)
	}
	if n >= 10_000 && float64(last) > 1.2*float64(first) {
		t.Errorf("the last payments cost %.2f times the first", float64(last)/float64(first))
	}
}

// mostKept tells how many vouchers and answers data-transfer kept at most in one
// record of a channel. A record is rewritten for every block.
func mostKept(t *testing.T, nodes ...*stack) func() int64 {
	t.Helper()
	var most atomic.Int64
	for _, n := range nodes {
		t.Cleanup(n.node.Transfers().SubscribeToEvents(func(_ datatransfer.Event, st datatransfer.ChannelState) {
			if n := int64(len(st.Vouchers()) + len(st.VoucherResults())); n > most.Load() {
				most.Store(n) // events of one node come one after the other
			}
		}))
	}
	return most.Load
}

// TestManyVouchers: where payments travel as data-transfer vouchers, a deal that
// needs more of them than fit is refused at the start, and one that may pay
// several intervals at once completes; be it that the client uses no payment
// stream, or that the provider's host has none.
func TestManyVouchers(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 4_500<<10, 1<<10) // 4,000 vouchers fit
	t.Run("the client uses none", func(t *testing.T) {
		s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, smallAsk, voucher.OneFIL)
		b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.VouchersOnly = true })
		manyVouchers(t, s, b, root, size)
	})
	t.Run("the provider has none", func(t *testing.T) {
		s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, smallAsk, voucher.OneFIL)
		s.host.RemoveStreamHandler(market.PaymentProtocol)
		b := newBuyer(t, t.TempDir())
		manyVouchers(t, s, b, root, size)
		if _, err := b.host.NewStream(t.Context(), s.host.ID(), market.PaymentProtocol); err == nil {
			t.Error("the provider has a payment stream after all")
		}
	})
}

func manyVouchers(t *testing.T, s *seller, b *buyer, root cid.Cid, size uint64) {
	t.Helper()
	request := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}
	_, err := b.Get(within(t, longest), request)
	if !errors.Is(err, market.ErrTooManyPayments) {
		t.Fatalf("4,500 vouchers: %v", err)
	}
	if sold := s.ListDeals(); len(sold) != 0 {
		t.Errorf("a deal was begun all the same: %+v", sold)
	}
	request.AtRisk = risk(1 << 20)
	got, err := b.Get(within(t, longest), request)
	must(t, err)
	t.Logf("%d payments, %d stalls", got.Payments, got.Stalls)
	settledExactly(t, s, b, size, smallAsk)
}
