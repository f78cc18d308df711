package integration

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestCancel: a cancelled deal is paid for what arrived, on both sides.
func TestCancel(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 32<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	id := b.until(ctx, t, s, root, 3<<20)
	must(t, b.CancelDeal(ctx, id))
	st, err := b.Wait(ctx, id)
	if err == nil || st.Status != voucher.DealStatusCancelled {
		t.Errorf("ended as %s, %v", st.Status, err)
	}
	if st.FundsSpent != defaultAsk.PricePerByte.Of(st.TotalReceived) {
		t.Errorf("%s paid for %d bytes", st.FundsSpent, st.TotalReceived)
	}
}

// slowPurse signs for what is paid at the end when something more has arrived.
type slowPurse struct {
	market.RetrievalClientNode
	more func()
}

func (p slowPurse) CreatePaymentVoucher(ctx context.Context, ch address.Address, amount voucher.Amount, lane uint64) (*voucher.SignedVoucher, error) {
	p.more()
	return p.RetrievalClientNode.CreatePaymentVoucher(ctx, ch, amount, lane)
}

// TestCancelBehind: what arrives while a cancelled deal says its last words is neither
// paid for nor counted.
func TestCancelBehind(t *testing.T) {
	t.Parallel()
	const size, first = 16 << 20, 100 // blocks that come before it is cancelled
	car, root, _ := makeCAR(t, t.TempDir(), size, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, voucher.Ask{PricePerByte: 3, PaymentInterval: 2 * size}, voucher.OneFIL) // only the end is paid
	ctx := within(t, longest)
	var kept atomic.Int64
	arrived, cancelled := make(chan struct{}, 1), make(chan struct{})
	end := once(func() { close(cancelled) })
	b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) {
		c.Stores = noticedStores{c.Stores, func() {
			n := kept.Add(1)
			select {
			case arrived <- struct{}{}:
			default:
			}
			if n == first {
				<-cancelled
			}
		}}
		c.Node = slowPurse{c.Node, func() {
			for end(); kept.Load() < first+8; {
				select {
				case <-arrived:
				case <-ctx.Done():
					return
				}
			}
		}}
	})
	t.Cleanup(end)
	id := b.until(ctx, t, s, root, 3<<20)
	must(t, b.CancelDeal(ctx, id))
	st, err := b.Wait(ctx, id)
	if err == nil || st.Status != voucher.DealStatusCancelled || st.FundsSpent != voucher.Price(3).Of(st.TotalReceived) {
		t.Errorf("%s paid for %d bytes, %s, %v", st.FundsSpent, st.TotalReceived, st.Status, err)
	}
}

// noticedStores tell of each block that is kept.
type noticedStores struct {
	market.Stores
	kept func()
}

func (s noticedStores) Open(ctx context.Context, root cid.Cid) (market.Store, error) {
	store, err := s.Stores.Open(ctx, root)
	return noticedStore{store, s.kept}, err
}

type noticedStore struct {
	market.Store
	kept func()
}

func (s noticedStore) LinkSystem() ipld.LinkSystem {
	ls := s.Store.LinkSystem()
	open := ls.StorageWriteOpener
	ls.StorageWriteOpener = func(lc ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		w, commit, err := open(lc)
		return w, func(l ipld.Link) error {
			defer s.kept()
			return commit(l)
		}, err
	}
	return ls
}

// TestCancelStored: a deal that does not run is cancelled like one that does: what
// arrived is paid for, and its provider is told, or else the deal says that it was
// not.
func TestCancelStored(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 32<<20, 64<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	cancelStored(t, s, root, "told", false)
	cancelStored(t, s, root, "provider away", true)
}

func cancelStored(t *testing.T, s *seller, root cid.Cid, name string, away bool) {
	t.Helper()
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	id := b.until(ctx, t, s, root, 3<<20)
	must(t, b.PauseDeal(ctx, id))
	if away {
		s.stop()
	}
	must(t, b.CancelDeal(ctx, id))
	got, err := b.RetrievalStatus(ctx, id)
	must(t, err)
	if got.Status != voucher.DealStatusCancelled || got.FundsSpent != defaultAsk.PricePerByte.Of(got.TotalReceived) || strings.Contains(got.Message, "could not be told") != away {
		t.Errorf("%s: %s %q, %s for %d bytes", name, got.Status, got.Message, got.FundsSpent, got.TotalReceived)
	}
	if away {
		return
	}
	sold, ok := s.ListDeals()[market.ProviderDealID{From: b.host.ID(), ID: id}]
	if !ok || sold.FundsReceived != got.FundsSpent || sold.Status != voucher.DealStatusCompleted && sold.Status != voucher.DealStatusCancelled {
		t.Errorf("%s: the provider has %s %q for %s", name, sold.Status, sold.Message, sold.FundsReceived)
	}
}
