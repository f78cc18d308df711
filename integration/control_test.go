package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestNoCredit: a provider that lends nothing says so before a byte is sent.
func TestNoCredit(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 4<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.Amount{})
	b := newBuyer(t, t.TempDir())
	_, err := b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL})
	if !errors.Is(err, market.ErrNoCredit) {
		t.Errorf("got %v, want %v", err, market.ErrNoCredit)
	}
}

// TestCreditRunsOut: a line that is too short suspends the deal with the
// reason; when the operator raises it, the same retrieval goes on.
func TestCreditRunsOut(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 8<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, defaultAsk.PricePerByte.Of(3<<20))
	b := newBuyer(t, t.TempDir())
	req := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}
	ctx := within(t, longest)
	_, err := b.Get(ctx, req)
	if !errors.Is(err, market.ErrNoCredit) || !errors.Is(err, market.ErrSuspended) {
		t.Fatalf("got %v, want %v", err, market.ErrNoCredit)
	}
	s.till.SetDefaultCredit(voucher.OneFIL)
	_, err = b.Get(ctx, req)
	must(t, err)
	settledExactly(t, s, b, size, defaultAsk)
}

// TestBudget: a budget that the quote exceeds begins nothing and says how much
// is needed; a price above the maximum likewise.
func TestBudget(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 4<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	need := defaultAsk.PricePerByte.Of(voucher.Bytes(size))
	req := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: need.Sub(voucher.Atto(1))}
	ctx := within(t, longest)
	if _, err := b.Get(ctx, req); !errors.Is(err, market.ErrBudget) {
		t.Errorf("got %v, want %v", err, market.ErrBudget)
	}
	low := voucher.Price(2)
	req.Budget, req.MaxPrice = voucher.OneFIL, &low
	if _, err := b.Get(ctx, req); !errors.Is(err, market.ErrPrice) {
		t.Errorf("got %v, want %v", err, market.ErrPrice)
	}
	if deals, err := b.Deals(ctx, 10); err != nil || len(deals) != 0 {
		t.Errorf("%d deals on record, %v", len(deals), err)
	}
	req.Budget, req.MaxPrice = need, nil
	_, err := b.Get(ctx, req)
	must(t, err)
	settledExactly(t, s, b, size, defaultAsk)
}

// TestAddFunds: a deal whose size was not known parks when its budget is
// spent, and goes on when there is more.
func TestAddFunds(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 6<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	parked := make(chan struct{})
	park := once(func() { close(parked) })
	defer b.SubscribeToEvents(func(e market.ClientEvent, _ market.ClientDealState) {
		if e == market.ClientEventFundsExpended {
			park()
		}
	})()
	ctx := within(t, longest)
	id, err := b.Retrieve(ctx, market.Request{
		Provider: market.RetrievalPeer{AddrInfo: s.addr(), Address: s.till.Address()}, Root: root, Ask: &defaultAsk, Budget: defaultAsk.PricePerByte.Of(2 << 20),
	})
	must(t, err)
	select {
	case <-parked:
	case <-ctx.Done():
		t.Fatal("the deal never asked for funds")
	}
	st, err := b.RetrievalStatus(ctx, id)
	must(t, err)
	if st.Status != voucher.DealStatusInsufficientFunds || st.Message == "" {
		t.Errorf("parked as %s %q", st.Status, st.Message)
	}
	must(t, b.AddMoreFunds(ctx, id, voucher.OneFIL))
	_, err = b.Wait(ctx, id)
	must(t, err)
	settledExactly(t, s, b, size, defaultAsk)
}

// TestSealed: unsealing is paid before it starts, and everything exactly once.
func TestSealed(t *testing.T) {
	t.Parallel()
	dir, index := t.TempDir(), t.TempDir()
	car, root, size := makeCAR(t, dir, 4<<20, 64<<10)
	open := func() *piece.Store {
		store, err := piece.Open(t.Context(), piece.Config{Paths: []string{dir}, IndexDir: index, Unsealer: piece.CommandUnsealer{Command: "cp {in} {out}"}})
		must(t, err)
		return store
	}
	must(t, open().Close()) // the index is made while the piece is whole
	must(t, os.Rename(car, car+".sealed"))
	store := open()
	t.Cleanup(func() { must(t, store.Close()) })
	ask := defaultAsk
	ask.UnsealPrice = voucher.Atto(12_345)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{filepath.Dir(car)}, ask, voucher.OneFIL, func(c *market.ProviderConfig) { c.Pieces = goods{store} })
	for name, ahead := range map[string]*voucher.Bytes{"strict": risk(0), "ahead": nil} {
		b := newBuyer(t, t.TempDir())
		got, err := b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: ahead})
		must(t, err)
		want := ask.Terms().Cost(voucher.Bytes(size))
		if name == "strict" && got.FundsSpent != want && got.FundsSpent != want.Sub(ask.UnsealPrice) {
			t.Errorf("%s: %s spent, want %s", name, got.FundsSpent, want)
		}
	}
}

// TestUnknownContent: what a provider does not have is said before anything is
// made.
func TestUnknownContent(t *testing.T) {
	t.Parallel()
	car, _, _ := makeCAR(t, t.TempDir(), 1<<20, 64<<10)
	_, other, _ := makeCAR(t, t.TempDir(), 2<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	_, err := b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: other, Budget: voucher.OneFIL})
	if !errors.Is(err, market.ErrNotFound) {
		t.Errorf("got %v, want %v", err, market.ErrNotFound)
	}
	// The same past the query: the proposal itself is refused.
	_, err = b.Get(context.WithoutCancel(t.Context()), market.Request{
		Provider: market.RetrievalPeer{AddrInfo: s.addr(), Address: s.till.Address()}, Root: other, Ask: &defaultAsk, Budget: voucher.OneFIL,
	})
	if !errors.Is(err, market.ErrNotFound) {
		t.Errorf("got %v, want %v", err, market.ErrNotFound)
	}
}

// TestPauseResume: a paused deal moves nothing; resumed, it is the same deal.
func TestPauseResume(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 16<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	id := b.until(ctx, t, s, root, 3<<20)
	must(t, b.PauseDeal(ctx, id))
	if _, err := b.Wait(ctx, id); !errors.Is(err, market.ErrPaused) {
		t.Fatalf("got %v, want %v", err, market.ErrPaused)
	}
	if d, err := b.RetrievalStatus(ctx, id); err != nil || d.Status != voucher.DealStatusOngoing && d.Status != voucher.DealStatusFundsNeeded {
		t.Errorf("the paused deal's status is %d: %v", d.Status, err)
	}
	again, err := b.ResumeDeal(ctx, id)
	must(t, err)
	if again != id {
		t.Errorf("resumed as deal %d, not %d", again, id)
	}
	_, err = b.Wait(ctx, id)
	must(t, err)
	settledExactly(t, s, b, size, defaultAsk)
}

// TestIdleDealsAreReaped: a deal whose client stays away ends at the provider, with
// the reason, and at the client when it comes back; what is left is another deal. No
// byte is paid for twice, and at most an interval is left unpaid.
func TestIdleDealsAreReaped(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 16<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL, func(c *market.ProviderConfig) { c.IdleTimeout = 10 * time.Second })
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	id := b.until(ctx, t, s, root, 3<<20)
	must(t, b.PauseDeal(ctx, id))
	reaped := s.waitFor(t, id, voucher.DealStatusCancelled)
	if !strings.Contains(reaped.Message, "nothing moved and nothing was paid for") {
		t.Errorf("ended because %q", reaped.Message)
	}
	_, err := b.ResumeDeal(ctx, id)
	must(t, err)
	last, err := b.Wait(ctx, id)
	must(t, err)
	first, err := b.RetrievalStatus(ctx, id)
	must(t, err)
	if first.Message == "" || first.Open() || last.ID == id {
		t.Errorf("the deal that was reaped: %+v, the last: %d", first, last.ID)
	}
	deals, err := b.Deals(ctx, 10)
	must(t, err)
	var received voucher.Bytes
	for _, d := range deals {
		received += d.TotalReceived
	}
	whole, spent := defaultAsk.Terms().Cost(voucher.Bytes(size)), b.spent(t)
	owed := defaultAsk.Terms().Cost(defaultAsk.PaymentInterval + 64<<10)
	// What comes behind the refusal, before the client has heard it, is of no deal.
	if uint64(received) > size || received+defaultAsk.PaymentInterval+64<<10 < voucher.Bytes(size) || whole.Less(spent) || spent.Less(whole.Sub(owed)) {
		t.Errorf("%d of %d bytes for %s of %s", received, size, spent, whole)
	}
}
