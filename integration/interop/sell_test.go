package interop

import (
	"slices"
	"testing"
	"time"

	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"

	"github.com/tollgraph/tollgraph/voucher"
)

var wholeDAG = selectorparse.CommonSelector_ExploreAllRecursively

// firstBlocks selects the first n blocks of a chain.
func firstBlocks(n int) datamodel.Node {
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return ssb.ExploreRecursive(selector.RecursionLimitDepth(int64(n)), ssb.ExploreAll(ssb.ExploreRecursiveEdge())).Node()
}

func (s sale) ask() voucher.Ask {
	return voucher.Ask{PricePerByte: voucher.Price(s.price), UnsealPrice: voucher.Atto(s.unseal),
		PaymentInterval: voucher.Bytes(s.interval), PaymentIntervalIncrease: voucher.Bytes(s.increase)}
}

// TestSellToLazyClient: a client that pays only after it was asked, and only
// for what it received, pays exactly what the table says and completes.
func TestSellToLazyClient(t *testing.T) {
	for _, s := range sales {
		t.Run(s.name, func(t *testing.T) {
			dag := newChain(t, s.sizes...)
			provider := newSeller(t, s.ask(), s.unseal != 0, dag.car(t))
			client := newLazyClient(t)
			deal := client.propose(within(t, 30*time.Second), provider.addr(), provider.payTo,
				rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(s.price, s.unseal, s.interval, s.increase, s.selector(), nil)}, s.selector())
			deal.wait(within(t, 30*time.Second))
			checkBought(t, s, deal)
			checkSold(t, s, provider)
		})
	}
}

// checkBought holds a stock client's deal to the table.
func checkBought(t testing.TB, s sale, d *lazyDeal) {
	t.Helper()
	switch {
	case d.err != nil || !d.completed || !d.all:
		t.Errorf("not completed: %s", d)
	case d.received != s.bytes() || d.c.blocks.size() != s.bytes():
		t.Errorf("received %d, stored %d, want %d bytes", d.received, d.c.blocks.size(), s.bytes())
	case !slices.Equal(d.paid, s.payments):
		t.Errorf("paid %v, want %v", d.paid, s.payments)
	}
	first := rt.DealStatusAccepted
	if s.unseal != 0 {
		first = rt.DealStatusFundsNeededUnseal
	}
	// What is asked for may overtake the acceptance, which travels with the blocks.
	accepted, completed := slices.Index(d.statuses, first), slices.Index(d.statuses, rt.DealStatusCompleted)
	if accepted < 0 || completed <= accepted || completed != len(d.statuses)-1 {
		t.Errorf("the provider said %v, want %s, and Completed last", d.statuses, first)
	}
	asked := 0
	for _, status := range d.statuses {
		if status == rt.DealStatusFundsNeeded || status == rt.DealStatusFundsNeededLastPayment || status == rt.DealStatusFundsNeededUnseal {
			asked++
		}
	}
	if asked != len(s.payments) {
		t.Errorf("asked %d times for %d payments: %v", asked, len(s.payments), d.statuses)
	}
	if d.lastIsBelow() && !slices.Contains(d.statuses, rt.DealStatusFundsNeededLastPayment) {
		t.Errorf("the last payment is for no boundary, and was not asked for as that: %v", d.statuses)
	}
}

// lastIsBelow reports whether the last payment of a deal is for bytes that reach no
// end of an interval.
func (d *lazyDeal) lastIsBelow() bool {
	if d.proposal.PricePerByte.IsZero() {
		return false
	}
	before := uint64(0)
	if n := len(d.paid); n > 1 {
		before = (d.paid[n-2] - d.proposal.UnsealPrice.Uint64()) / d.proposal.PricePerByte.Uint64()
	}
	return d.received < d.next(before)
}

// checkSold holds our provider's book to the table.
func checkSold(t testing.TB, s sale, provider *seller) {
	t.Helper()
	if s.total() == 0 {
		return // free deals are not kept
	}
	sold := provider.sold()
	if sold.Status != voucher.DealStatusCompleted || sold.FundsReceived != voucher.Atto(s.total()) || uint64(sold.TotalSent) != s.bytes() {
		t.Errorf("provider's book: %s, %s for %d bytes, want %d for %d", sold.Status, sold.FundsReceived, sold.TotalSent, s.total(), s.bytes())
	}
}
