package payment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

func TestSignRefused(t *testing.T) {
	db := fresh(t)
	w, other := newWallet(t, db, keyOf(t, 1), Policy{}), newWallet(t, db, keyOf(t, 3), Policy{})
	payee := keyOf(t, 2).Address()
	ch, foreign := channelTo(t, w, payee), channelTo(t, other, payee)
	lane, theirs := laneIn(t, w, ch), laneIn(t, other, foreign)
	closed, err := w.AllocateLane(t.Context(), ch, voucher.Amount{})
	must(t, err)
	one := voucher.Atto(1)
	for name, c := range map[string]struct {
		channel address.Address
		lane    uint64
		amount  voucher.Amount
		want    error
	}{
		"no such lane":         {ch, lane + 1, one, ErrUnknownLane},
		"lane too large":       {ch, 1 << 63, one, ErrUnknownLane},
		"no such channel":      {payee, lane, one, ErrUnknownLane},
		"no channel":           {address.Undef, lane, one, ErrUnknownLane},
		"another key's":        {foreign, theirs, one, ErrUnknownLane},
		"lane of another":      {ch, theirs, one, ErrUnknownLane},
		"budget of zero":       {ch, closed, one, ErrBudget},
		"nothing for nothing":  {ch, lane, voucher.Amount{}, errNothing},
		"nothing, budget zero": {ch, closed, voucher.Amount{}, errNothing},
	} {
		v, err := w.CreatePaymentVoucher(t.Context(), c.channel, c.amount, c.lane)
		if v != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	if err := w.SetLaneBudget(t.Context(), foreign, theirs, one); !errors.Is(err, ErrUnknownLane) {
		t.Errorf("budget of another key's lane: %v", err)
	}
	if err := w.SetLaneBudget(t.Context(), ch, lane+1, one); !errors.Is(err, ErrUnknownLane) {
		t.Errorf("budget of no lane: %v", err)
	}
	if _, err := w.AllocateLane(t.Context(), foreign, one); !errors.Is(err, ErrUnknownLane) {
		t.Errorf("lane in another key's channel: %v", err)
	}
	if _, err := w.GetOrCreatePaymentChannel(t.Context(), other.Address(), payee, one); err == nil {
		t.Error("channel from another key's address")
	}
	if _, err := w.GetOrCreatePaymentChannel(t.Context(), w.Address(), address.Undef, one); err == nil {
		t.Error("channel to nobody")
	}
	if lanes, err := w.Lanes(t.Context(), foreign); !errors.Is(err, ErrUnknownLane) {
		t.Errorf("another key's lanes: %v, %v", lanes, err)
	}
	wantSpent(t, w, payee, 0)
}

// wantSpent fails unless exactly spent is counted, in all counters.
func wantSpent(t *testing.T, w *Wallet, payee address.Address, spent uint64) {
	t.Helper()
	var got [3]voucher.Amount
	must(t, w.ledger.read(t.Context(), func(x *tx) error {
		s := x.spent(dayOf(noon), payee)
		got = [3]voucher.Amount{s.provider, s.today, s.ever}
		return nil
	}))
	want := voucher.Atto(spent)
	if got != [3]voucher.Amount{want, want, want} {
		t.Errorf("counted %v, want %s in each", got, want)
	}
}

func TestNewWalletRefused(t *testing.T) {
	if _, err := NewWallet(fresh(t), voucher.Key{}, WalletConfig{}); !errors.Is(err, voucher.ErrKey) {
		t.Errorf("zero key: %v", err)
	}
}

func TestWalletLists(t *testing.T) {
	w := newWallet(t, fresh(t), keyOf(t, 1), Policy{})
	if list, err := w.Channels(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	payee := keyOf(t, 2).Address()
	for _, funds := range []uint64{5, 9, 3} {
		_, err := w.GetOrCreatePaymentChannel(t.Context(), w.Address(), payee, voucher.Atto(funds))
		must(t, err)
	}
	ch := channelTo(t, w, payee)
	lane, err := w.AllocateLane(t.Context(), ch, voucher.Atto(50))
	must(t, err)
	for _, amount := range []uint64{10, 25} {
		_, err = w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(amount), lane)
		must(t, err)
	}
	second := uint64(noon.UnixMilli()) + 1
	list, err := w.Channels(t.Context())
	want := Channel{Address: ch, Payer: w.Address(), Payee: payee, Funds: voucher.Atto(9), Total: voucher.Atto(25)}
	if err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("%+v, %v", list, err)
	}
	lanes, err := w.Lanes(t.Context(), ch)
	if err != nil || len(lanes) != 1 || lanes[0] != (Lane{Lane: lane, Nonce: second, Amount: voucher.Atto(25), Budget: voucher.Atto(50)}) {
		t.Errorf("%+v, %v", lanes, err)
	}
	must(t, w.SetLaneBudget(t.Context(), ch, lane, voucher.Atto(20))) // below what is signed
	if v, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(25), lane); err != nil || v.Nonce != second {
		t.Errorf("the last voucher again: %v, %v", v, err)
	}
	if _, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(26), lane); !errors.Is(err, ErrBudget) {
		t.Errorf("more: %v", err)
	}
}

func TestLanesAreFresh(t *testing.T) {
	w := newWallet(t, fresh(t), keyOf(t, 1), Policy{})
	ch := channelTo(t, w, keyOf(t, 2).Address())
	seen := map[uint64]bool{}
	for range 100 {
		lane := laneIn(t, w, ch)
		if seen[lane] || lane == 0 || lane >= 1<<52 {
			t.Fatalf("lane %d", lane)
		}
		seen[lane] = true
	}
}

// Many deals pay at once against one policy: what is signed is exactly what the
// policy allows, no nonce is used twice, and no voucher is lost.
func TestConcurrentSigners(t *testing.T) {
	const workers, steps, limit = 16, 20, 200 // of 16×20 wanted
	db := fresh(t)
	payee := keyOf(t, 2).Address()
	wallets := []*Wallet{ // two of one key, as two processes
		newWallet(t, db, keyOf(t, 1), Policy{PerDay: voucher.Atto(limit)}),
		newWallet(t, db, keyOf(t, 1), Policy{PerDay: voucher.Atto(limit)}),
	}
	ch := channelTo(t, wallets[0], payee)
	var mu sync.Mutex
	nonces := map[string]uint64{} // "lane/nonce" to amount
	var wg sync.WaitGroup
	for worker := range workers {
		w := wallets[worker%2]
		lane := laneIn(t, w, ch)
		for range 2 { // two goroutines for each lane want the same amounts
			wg.Go(func() {
				for amount := uint64(1); amount <= steps; amount++ {
					v, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(amount), lane)
					if errors.Is(err, ErrBudget) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					key := fmt.Sprintf("%d/%d", v.Lane, v.Nonce)
					mu.Lock()
					if was, ok := nonces[key]; ok && was != v.Amount.Uint64() {
						t.Errorf("%s for %d and %d", key, was, v.Amount.Uint64())
					}
					nonces[key] = v.Amount.Uint64()
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	wantSpent(t, wallets[0], payee, limit)
	list, err := wallets[0].Channels(t.Context())
	if err != nil || list[0].Total != voucher.Atto(limit) || len(nonces) != limit {
		t.Errorf("%v, %v, %d vouchers", list, err, len(nonces))
	}
}

func TestCancelledSignerSignsNothing(t *testing.T) {
	w := newWallet(t, fresh(t), keyOf(t, 1), Policy{})
	payee := keyOf(t, 2).Address()
	ch := channelTo(t, w, payee)
	lane := laneIn(t, w, ch)
	ctx, cancel := context.WithCancel(t.Context())
	w.ledger.turn <- struct{}{} // somebody writes
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := w.CreatePaymentVoucher(ctx, ch, voucher.Atto(1), lane); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	cancel()
	wg.Wait()
	<-w.ledger.turn
	if len(w.ledger.queue) != 0 {
		t.Errorf("%d left in the queue", len(w.ledger.queue))
	}
	wantSpent(t, w, payee, 0)
}
