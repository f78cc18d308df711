package integration

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// freeloader is a client that speaks data-transfer by itself and pays as it
// pleases.
type freeloader struct {
	*stack
	t      *testing.T
	wallet *payment.Wallet
	store  *piece.Partial
}

func newFreeloader(t *testing.T, root cid.Cid) *freeloader {
	t.Helper()
	dir := t.TempDir()
	f := &freeloader{t: t, stack: newStack(t, newHost(t, false), dir)}
	db, err := market.OpenDatabase(filepath.Join(dir, "tollgraph.db"))
	must(t, err)
	must(t, payment.Migrate(t.Context(), db))
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	must(t, err)
	f.wallet, err = payment.NewWallet(db, key, payment.WalletConfig{})
	must(t, err)
	f.store, err = piece.OpenPartial(filepath.Join(dir, "loot.car"), root)
	must(t, err)
	t.Cleanup(func() {
		f.close()
		must(t, f.store.Close())
		must(t, db.Close())
	})
	return f
}

// open proposes a deal on the provider's own terms.
func (f *freeloader) open(s *seller, root cid.Cid, id voucher.DealID, ask voucher.Ask) datatransfer.ChannelID {
	f.t.Helper()
	must(f.t, f.host.Connect(f.t.Context(), s.addr()))
	p := voucher.DealProposal{PayloadCID: root, ID: id, Params: voucher.Params{
		Selector: selectors.All(), PricePerByte: ask.PricePerByte, PaymentInterval: ask.PaymentInterval, PaymentIntervalIncrease: ask.PaymentIntervalIncrease}}
	node, err := p.Encode()
	must(f.t, err)
	chid, err := f.node.Transfers().OpenPullDataChannel(f.t.Context(), s.host.ID(), datatransfer.TypedVoucher{Voucher: node, Type: voucher.ProposalType},
		root, selectors.All(), datatransfer.WithTransportOptions(transport.UseStore(f.store.LinkSystem())))
	must(f.t, err)
	return chid
}

// pay signs for an amount and sends it as a voucher.
func (f *freeloader) pay(s *seller, chid datatransfer.ChannelID, id voucher.DealID, amount voucher.Amount) {
	f.t.Helper()
	ctx := f.t.Context()
	ch, err := f.wallet.GetOrCreatePaymentChannel(ctx, f.wallet.Address(), s.till.Address(), voucher.OneFIL)
	must(f.t, err)
	lane, err := f.wallet.AllocateLane(ctx, ch, voucher.OneFIL)
	must(f.t, err)
	v, err := f.wallet.CreatePaymentVoucher(ctx, ch, amount, lane)
	must(f.t, err)
	node, err := voucher.DealPayment{ID: id, PaymentChannel: ch, PaymentVoucher: v}.Encode()
	must(f.t, err)
	must(f.t, f.node.Transfers().SendVoucher(ctx, chid, datatransfer.TypedVoucher{Voucher: node, Type: voucher.PaymentType}))
}

// served waits until the provider has sent at least want and then stood still
// for a second, and returns what it sent.
func served(ctx context.Context, t *testing.T, s *seller, chid datatransfer.ChannelID, want uint64) uint64 {
	t.Helper()
	return standing(ctx, t, s, chid, want, 50*time.Millisecond, time.Second)
}

// standing looks every so often what a seller sent on a channel, until that is
// at least want and has not changed for the time given.
func standing(ctx context.Context, t testing.TB, s *seller, chid datatransfer.ChannelID, want uint64, every, still time.Duration) uint64 {
	t.Helper()
	tick := time.NewTicker(every) // the provider tells nobody when it does nothing
	defer tick.Stop()
	last, since := uint64(0), time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d bytes served, want at least %d", last, want)
		}
		p, _ := s.meter(chid)
		if p.Sent != last {
			last, since = p.Sent, time.Now()
		}
		if last >= want && time.Since(since) > still {
			return last
		}
	}
}

// TestExposure: a client that never pays gets at most the interval and one
// block, one that stops paying at most the next boundary and one block.
func TestExposure(t *testing.T) {
	t.Parallel()
	const block = 100_000 // does not divide the interval
	for name, ask := range map[string]voucher.Ask{
		"level":   {PricePerByte: 3, PaymentInterval: 1 << 20},
		"growing": {PricePerByte: 3, PaymentInterval: 1 << 20, PaymentIntervalIncrease: 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			car, root, _ := makeCAR(t, t.TempDir(), 12<<20, block)
			s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, ask, voucher.OneFIL)
			f := newFreeloader(t, root)
			ctx := within(t, longest)
			chid := f.open(s, root, 7, ask)
			first := uint64(ask.PaymentInterval)
			if got := served(ctx, t, s, chid, first); got >= first+block {
				t.Errorf("unpaid: %d bytes served, interval %d and one block of %d allowed", got, first, block)
			}
			// Pay for the first boundary: the second, and no more, may follow.
			f.pay(s, chid, 7, ask.PricePerByte.Of(ask.PaymentInterval))
			second := 2*first + uint64(ask.PaymentIntervalIncrease)
			if got := served(ctx, t, s, chid, second); got >= second+block {
				t.Errorf("paid once: %d bytes served, %d and one block of %d allowed", got, second, block)
			}
		})
	}
}

// TestFreeBlockPerReturn: a client that comes back again and again without
// paying gets nothing new by it.
func TestFreeBlockPerReturn(t *testing.T) {
	t.Parallel()
	const block = 100_000
	car, root, _ := makeCAR(t, t.TempDir(), 12<<20, block)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	f := newFreeloader(t, root)
	ctx := within(t, longest)
	limit := uint64(defaultAsk.PaymentInterval) + block
	chid := f.open(s, root, 7, defaultAsk)
	served(ctx, t, s, chid, uint64(defaultAsk.PaymentInterval))
	for range 5 {
		must(t, f.node.Transfers().CloseDataTransferChannel(ctx, chid))
		chid = f.open(s, root, 7, defaultAsk)
		served(ctx, t, s, chid, 0)
	}
	if got := f.store.Written(); got >= limit {
		t.Errorf("%d bytes taken without paying, %d allowed", got, limit)
	}
}
