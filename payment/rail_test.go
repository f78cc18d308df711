package payment

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// clientNode and providerNode are what the market asks of a rail.
type clientNode interface {
	GetOrCreatePaymentChannel(ctx context.Context, client, provider address.Address, funds voucher.Amount) (address.Address, error)
	AllocateLane(ctx context.Context, channel address.Address, budget voucher.Amount) (uint64, error)
	SetLaneBudget(ctx context.Context, channel address.Address, lane uint64, budget voucher.Amount) error
	CreatePaymentVoucher(ctx context.Context, channel address.Address, amount voucher.Amount, lane uint64) (*voucher.SignedVoucher, error)
}

type providerNode interface {
	SavePaymentVoucher(ctx context.Context, channel address.Address, v *voucher.SignedVoucher, proof []byte, expected voucher.Amount) (voucher.Amount, error)
}

// railPair is the two ends of a rail, with enough money or credit for 1 FIL.
type railPair struct {
	client         clientNode
	provider       providerNode
	payer, payee   address.Address
	restart        func() railPair // both sides killed and started again
	exceedsFunding error           // what errors.Is finds when the payer has too little
}

// testRail is the contract of a way to pay: any rail must pass it.
func testRail(t *testing.T, newPair func(t *testing.T) railPair) {
	for name, test := range map[string]func(*testing.T, railPair){
		"pay":        railPay,
		"idempotent": railIdempotent,
		"reordered":  railReordered,
		"budget":     railBudget,
		"forged":     railForged,
		"funding":    railFunding,
		"restart":    railRestart,
		"lanes":      railLanes,
	} {
		t.Run(name, func(t *testing.T) { test(t, newPair(t)) })
	}
}

// openLane returns a channel and a lane with a budget.
func (p railPair) openLane(t *testing.T, budget voucher.Amount) (address.Address, uint64) {
	t.Helper()
	ch, err := p.client.GetOrCreatePaymentChannel(t.Context(), p.payer, p.payee, budget)
	must(t, err)
	again, err := p.client.GetOrCreatePaymentChannel(t.Context(), p.payer, p.payee, budget)
	must(t, err)
	if ch != again || ch == address.Undef {
		t.Fatalf("channels %s and %s for one pair", ch, again)
	}
	lane, err := p.client.AllocateLane(t.Context(), ch, budget)
	must(t, err)
	return ch, lane
}

func (p railPair) sign(t *testing.T, ch address.Address, lane, amount uint64) *voucher.SignedVoucher {
	t.Helper()
	v, err := p.client.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(amount), lane)
	must(t, err)
	must(t, voucher.Verify(v, p.payer))
	return v
}

// take gives v to the provider and expects the lane to be worth amount then.
func (p railPair) take(t *testing.T, v *voucher.SignedVoucher, amount uint64) {
	t.Helper()
	worth, err := p.provider.SavePaymentVoucher(t.Context(), v.ChannelAddr, v, nil, voucher.Amount{})
	must(t, err)
	if worth != voucher.Atto(amount) {
		t.Fatalf("lane is worth %s, want %d", worth, amount)
	}
}

func railPay(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.Atto(1000))
	for _, amount := range []uint64{1, 2, 500, 1000} {
		v := p.sign(t, ch, lane, amount)
		if v.ChannelAddr != ch || v.Lane != lane || v.Amount.Uint64() != amount {
			t.Fatalf("voucher %+v", v)
		}
		p.take(t, v, amount)
	}
}

func railIdempotent(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.Atto(1000))
	v := p.sign(t, ch, lane, 100)
	if w := p.sign(t, ch, lane, 100); !bytes.Equal(encode(t, v), encode(t, w)) {
		t.Errorf("same amount, other voucher: %+v, %+v", v, w)
	}
	if w := p.sign(t, ch, lane, 99); !bytes.Equal(encode(t, v), encode(t, w)) {
		t.Errorf("a lower amount was signed: %+v", w)
	}
	for range 3 {
		p.take(t, v, 100)
	}
}

func railReordered(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.Atto(1000))
	first, second, third := p.sign(t, ch, lane, 10), p.sign(t, ch, lane, 20), p.sign(t, ch, lane, 30)
	p.take(t, second, 20)
	p.take(t, first, 20)
	p.take(t, third, 30)
	p.take(t, second, 30)
}

func railBudget(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.Atto(100))
	p.take(t, p.sign(t, ch, lane, 60), 60)
	v, err := p.client.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(101), lane)
	var over *BudgetError
	if !errors.As(err, &over) || v != nil || over.Rule != RuleLane || over.Limit != voucher.Atto(100) || over.Would != voucher.Atto(101) {
		t.Fatalf("over budget: %v, %v", v, err)
	}
	must(t, p.client.SetLaneBudget(t.Context(), ch, lane, voucher.Atto(101)))
	p.take(t, p.sign(t, ch, lane, 101), 101)
}

func railForged(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.Atto(100))
	v := p.sign(t, ch, lane, 60)
	forged := *v
	forged.Amount.Int = voucher.Atto(61).Big()
	if _, err := p.provider.SavePaymentVoucher(t.Context(), ch, &forged, nil, voucher.Amount{}); !errors.Is(err, ErrVoucher) {
		t.Errorf("raised amount: %v", err)
	}
	if _, err := p.provider.SavePaymentVoucher(t.Context(), ch, nil, nil, voucher.Amount{}); !errors.Is(err, ErrVoucher) {
		t.Errorf("no voucher: %v", err)
	}
	if _, err := p.provider.SavePaymentVoucher(t.Context(), p.payee, v, nil, voucher.Amount{}); !errors.Is(err, ErrVoucher) {
		t.Errorf("other channel: %v", err)
	}
	p.take(t, v, 60)
}

func railFunding(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.MaxAmount)
	p.take(t, p.sign(t, ch, lane, 5), 5)
	v, err := p.client.CreatePaymentVoucher(t.Context(), ch, voucher.OneFIL.Add(voucher.Atto(1)), lane)
	if err == nil {
		_, err = p.provider.SavePaymentVoucher(t.Context(), ch, v, nil, voucher.Amount{})
	}
	if !errors.Is(err, p.exceedsFunding) {
		t.Errorf("one atto more than there is: %v", err)
	}
}

func railRestart(t *testing.T, p railPair) {
	ch, lane := p.openLane(t, voucher.Atto(1000))
	v := p.sign(t, ch, lane, 100)
	p.take(t, v, 100)
	lost := p.sign(t, ch, lane, 200)
	p = p.restart()
	p.take(t, v, 100)
	if again := p.sign(t, ch, lane, 150); !bytes.Equal(encode(t, lost), encode(t, again)) {
		t.Errorf("after a restart %+v was signed, before it %+v", again, lost)
	}
	p.take(t, p.sign(t, ch, lane, 201), 201)
}

func railLanes(t *testing.T, p railPair) {
	ch, first := p.openLane(t, voucher.Atto(1000))
	_, second := p.openLane(t, voucher.Atto(1000))
	if first == second {
		t.Fatal("two deals got one lane")
	}
	p.take(t, p.sign(t, ch, first, 100), 100)
	p.take(t, p.sign(t, ch, second, 7), 7)
	p.take(t, p.sign(t, ch, first, 101), 101)
}

func encode(t *testing.T, v *voucher.SignedVoucher) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, v.MarshalCBOR(&b))
	return b.Bytes()
}

func TestRailOnAccount(t *testing.T) {
	testRail(t, func(t *testing.T) railPair {
		dir := t.TempDir()
		payer, payee := keyOf(t, 1), keyOf(t, 2)
		var start func() railPair
		start = func() railPair {
			client, provider := open(t, dir+"/client.db"), open(t, dir+"/provider.db")
			return railPair{
				client:   newWallet(t, client, payer, Policy{}),
				provider: newTill(t, provider, payee.Address(), voucher.OneFIL),
				payer:    payer.Address(), payee: payee.Address(),
				exceedsFunding: ErrCreditExceeded,
				restart: func() railPair {
					must(t, client.Close())
					must(t, provider.Close())
					return start()
				},
			}
		}
		return start()
	})
}
