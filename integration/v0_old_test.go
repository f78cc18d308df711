package integration

import (
	"crypto/rand"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// v0Goods are DAGs whose blocks meet boundaries in every way.
func v0Goods(t *testing.T) map[string]struct {
	car  string
	root cid.Cid
} {
	t.Helper()
	type goods = struct {
		car  string
		root cid.Cid
	}
	all := make(map[string]goods)
	for name, n := range map[string][2]int64{"many": {3_000_000, 100_000}, "even": {1 << 20, 1 << 18}, "one": {5_000, 1 << 18}, "odd": {1_000_001, 999}} {
		car, root, _ := makeCAR(t, t.TempDir(), n[0], n[1])
		all[name] = goods{car, root}
	}
	car, root := makeRepeats(t, t.TempDir(), 21, 100_000)
	all["repeats"] = goods{car, root}
	return all
}

var v0Asks = map[string]voucher.Ask{
	"level":    {PricePerByte: 3, PaymentInterval: 1 << 18},
	"growing":  {PricePerByte: 3, PaymentInterval: 10_000, PaymentIntervalIncrease: 1_000},
	"at once":  {PricePerByte: 3, PaymentInterval: 1 << 30},
	"for free": {},
}

// TestV0OldClient: a client of July 2020 buys everything at any terms, is asked
// for each boundary that it passed and for no byte more, and both sides end
// Completed with the same sum.
func TestV0OldClient(t *testing.T) {
	t.Parallel()
	for what, g := range v0Goods(t) {
		walk := walkOf(t, []string{g.car}, g.root)
		for name, ask := range v0Asks {
			t.Run(what+" "+name, func(t *testing.T) {
				s := newSeller(t, t.TempDir(), newHost(t, true), []string{g.car}, ask, voucher.OneFIL, sellsByStream)
				c := newOldClient(t, s, g.root, walk, 7, ask)
				c.buy()
				if want := amountsAsked(walk, ask.Terms()); !slices.Equal(c.paid, want) {
					t.Errorf("paid %v, want %v", c.paid, want)
				}
				if ask.Terms().Free() {
					return // free deals are not on record
				}
				sold := s.waitFor(t, 7, voucher.DealStatusCompleted)
				if sold.TotalSent != sum(walk) || sold.FundsReceived != ask.PricePerByte.Of(sum(walk)) {
					t.Errorf("sold %d bytes for %s, the walk has %d", sold.TotalSent, sold.FundsReceived, sum(walk))
				}
			})
		}
	}
}

// amountsAsked is what a client that pays when it is asked pays, cumulatively:
// the last boundary passed whenever a block passed one and more follow, and
// everything in the end.
func amountsAsked(walk []step, terms voucher.Terms) []voucher.Amount {
	var paid []voucher.Amount
	sent, limit := voucher.Bytes(0), revalidator.Account{Terms: terms}.Limit()
	for i, s := range walk {
		if sent += voucher.Bytes(len(s.data)); sent >= limit && i < len(walk)-1 && !terms.Free() {
			last := revalidator.LastBoundary(terms, sent)
			paid, limit = append(paid, terms.Cost(last)), revalidator.NextBoundary(terms, last)
		}
	}
	if !terms.Free() {
		paid = append(paid, terms.Cost(sent))
	}
	return paid
}

// waitFor waits until the book has a deal in a state.
func (s *seller) waitFor(t testing.TB, id voucher.DealID, status voucher.DealStatus) market.ProviderDealState {
	t.Helper()
	ctx := within(t, longest)
	changed := make(chan struct{}, 1)
	defer s.SubscribeToEvents(func(market.ProviderEvent, market.ProviderDealState) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	for {
		deals, err := s.Deals(ctx, 100)
		must(t, err)
		for _, d := range deals {
			if d.ID == id && d.Status == status {
				return d
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("no deal %d is %s: %+v", id, status, deals)
		}
	}
}

// TestV0OldProvider: our client buys from a provider of July 2020, chosen because
// the provider speaks nothing else, and pays each byte that came, repeats included,
// once.
func TestV0OldProvider(t *testing.T) {
	t.Parallel()
	for what, g := range v0Goods(t) {
		walk := walkOf(t, []string{g.car}, g.root)
		for name, ask := range v0Asks {
			if ask.Terms().Free() {
				continue // they divided by the price
			}
			t.Run(what+" "+name, func(t *testing.T) {
				p := newOldProvider(t, ask, walk)
				b := newBuyer(t, t.TempDir())
				ctx := within(t, longest)
				got, err := b.Get(ctx, p.request(g.root))
				must(t, err)
				if err := p.ended(ctx, 1)[0]; err != nil {
					t.Errorf("the provider: %v", err)
				}
				if want := ask.PricePerByte.Of(sum(walk)); got.FundsSpent != want || p.paid[len(p.paid)-1] != want || got.Status != voucher.DealStatusCompleted {
					t.Errorf("spent %s, the provider has %v, want %s, %s", got.FundsSpent, p.paid, want, got.Status)
				}
			})
		}
	}
}

// TestV0OldProviderInPlace: a provider in the middle of whose deal on data-transfer
// another takes its place that knows nothing but the first protocol is not sent that deal,
// of which it would send all, and be paid for it, once more. What is missing is bought in
// others.
func TestV0OldProviderInPlace(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 12_000_000, 100_000)
	walk := walkOf(t, []string{car}, root)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	addr, ctx := freeAddress(t), within(t, longest)
	ask := voucher.Ask{PricePerByte: 3, PaymentInterval: 300_000}
	s := newSeller(t, t.TempDir(), newHostAt(t, key, addr), []string{car}, ask, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	id := b.until(ctx, t, s, root, 4_000_000)
	s.stop()
	held, err := b.RetrievalStatus(ctx, id)
	must(t, err)
	p := newOldProviderOn(t, newHostAt(t, key, addr), ask, walk)
	got, err := b.Wait(ctx, id)
	must(t, err)
	if got.Status != voucher.DealStatusCompleted || slices.Contains(p.ids, id) {
		t.Errorf("%s, deal %d and then %v", got.Status, id, p.ids)
	}
	if most := ask.PricePerByte.Of(voucher.Bytes(size) + p.roots + 100_000); most.Less(b.spent(t)) {
		t.Errorf("paid %s for %d bytes, of which %d were here, and %d that came then", b.spent(t), size, held.TotalReceived, p.sent)
	}
}
