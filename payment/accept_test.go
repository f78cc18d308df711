package payment

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/filecoin-project/go-address"
	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"

	"github.com/tollgraph/tollgraph/voucher"
)

func TestVoucherRefused(t *testing.T) {
	payer, other, payee := keyOf(t, 1), keyOf(t, 3), keyOf(t, 2).Address()
	ch, err := ChannelAddress(payer.Address(), payee)
	must(t, err)
	good := func(change ...func(*voucher.SignedVoucher)) *voucher.SignedVoucher {
		return signed(t, payer, payee, 5, 1, 100, change...)
	}
	after := func(change func(*voucher.SignedVoucher)) *voucher.SignedVoucher { // it was signed
		v := good()
		change(v)
		return v
	}
	elsewhere, err := ChannelAddress(payer.Address(), keyOf(t, 4).Address())
	must(t, err)
	reverse, err := ChannelAddress(payee, payer.Address())
	must(t, err)
	till := newTill(t, fresh(t), payee, voucher.MaxAmount)
	for name, v := range map[string]*voucher.SignedVoucher{
		"none":              nil,
		"empty":             {},
		"unsigned":          after(func(v *voucher.SignedVoucher) { v.Signature = nil }),
		"short signature":   after(func(v *voucher.SignedVoucher) { v.Signature.Data = v.Signature.Data[:64] }),
		"broken signature":  after(func(v *voucher.SignedVoucher) { v.Signature.Data = make([]byte, 65) }),
		"BLS signature":     after(func(v *voucher.SignedVoucher) { v.Signature.Type = crypto.SigTypeBLS }),
		"amount raised":     after(func(v *voucher.SignedVoucher) { v.Amount = fbig.NewInt(101) }),
		"lane changed":      after(func(v *voucher.SignedVoucher) { v.Lane = 6 }),
		"nonce changed":     after(func(v *voucher.SignedVoucher) { v.Nonce = 2 }),
		"signed by another": signed(t, other, payee, 5, 1, 100, func(v *voucher.SignedVoucher) { v.ChannelAddr = ch }),
		"another payer's":   signed(t, other, payee, 5, 1, 100),
		"another payee's":   good(func(v *voucher.SignedVoucher) { v.ChannelAddr = elsewhere }),
		"other direction":   good(func(v *voucher.SignedVoucher) { v.ChannelAddr = reverse }),
		"extra":             good(func(v *voucher.SignedVoucher) { v.Extra = &paych.ModVerifyParams{Actor: payee} }),
		"time lock min":     good(func(v *voucher.SignedVoucher) { v.TimeLockMin = 1 }),
		"time lock max":     good(func(v *voucher.SignedVoucher) { v.TimeLockMax = 1 }),
		"negative lock":     good(func(v *voucher.SignedVoucher) { v.TimeLockMax = -1 }),
		"secret":            good(func(v *voucher.SignedVoucher) { v.SecretHash = []byte{1} }),
		"merges":            good(func(v *voucher.SignedVoucher) { v.Merges = []paych.Merge{{Lane: 1, Nonce: 1}} }),
		"settle height":     good(func(v *voucher.SignedVoucher) { v.MinSettleHeight = 1 }),
		"lane too large":    good(func(v *voucher.SignedVoucher) { v.Lane = math.MaxInt64 + 1 }),
		"nonce zero":        good(func(v *voucher.SignedVoucher) { v.Nonce = 0 }),
		"no money":          good(func(v *voucher.SignedVoucher) { v.Amount = fbig.Zero() }),
		"nil money":         good(func(v *voucher.SignedVoucher) { v.Amount = fbig.Int{} }),
		"negative money":    good(func(v *voucher.SignedVoucher) { v.Amount = fbig.NewInt(-1) }),
		"too much money":    good(func(v *voucher.SignedVoucher) { v.Amount = fbig.NewFromGo(new(big.Int).Lsh(big.NewInt(1), 128)) }),
	} {
		t.Run(name, func(t *testing.T) {
			worth, err := till.SavePaymentVoucher(t.Context(), ch, v, nil, voucher.Amount{})
			if !errors.Is(err, ErrVoucher) || !worth.IsZero() {
				t.Errorf("worth %s, error %v", worth, err)
			}
			if list, err := till.Channels(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("on record: %v, %v", list, err)
			}
		})
	}
	if _, err := till.SavePaymentVoucher(t.Context(), ch, good(), []byte{1}, voucher.Amount{}); !errors.Is(err, ErrVoucher) {
		t.Errorf("with a proof: %v", err)
	}
	if _, err := till.SavePaymentVoucher(t.Context(), address.Undef, good(), nil, voucher.Amount{}); !errors.Is(err, ErrVoucher) {
		t.Errorf("for no channel: %v", err)
	}
	if worth, err := till.SavePaymentVoucher(t.Context(), ch, good(), nil, voucher.Amount{}); err != nil || worth != voucher.Atto(100) {
		t.Errorf("the good one: %s, %v", worth, err)
	}
}

func TestNews(t *testing.T) {
	on := Lane{Lane: 1, Nonce: 5, Amount: voucher.Atto(50)}
	for _, c := range []struct {
		name          string
		on            Lane
		nonce, amount uint64
		news, clash   bool
	}{
		{"first", Lane{}, 1, 1, true, false},
		{"first, high nonce", Lane{}, math.MaxUint64, 1, true, false},
		{"next", on, 6, 51, true, false},
		{"nonces left out", on, 60, 51, true, false},
		{"doubled", on, 5, 50, false, false},
		{"older", on, 4, 49, false, false},
		{"older, same amount", on, 4, 50, false, false},
		{"same nonce, more", on, 5, 51, false, true},
		{"same nonce, less", on, 5, 49, false, false},
		{"older, more", on, 4, 51, false, true},
		{"newer, same amount", on, 6, 50, false, false},
		{"newer, less", on, 6, 49, false, false},
	} {
		news, err := c.on.news(claim{nonce: c.nonce, amount: voucher.Atto(c.amount)})
		if news != c.news || errors.Is(err, ErrVoucherConflict) != c.clash || (err != nil) != c.clash {
			t.Errorf("%s: %v, %v", c.name, news, err)
		}
	}
}

func TestChannelAddress(t *testing.T) {
	a, b := keyOf(t, 1).Address(), keyOf(t, 2).Address()
	ab, err := ChannelAddress(a, b)
	must(t, err)
	if got, err := ChannelAddress(a, b); got != ab || err != nil {
		t.Error("not the same twice")
	}
	// Both sides compute it, of whatever version: it must never change.
	if got := ab.String()[1:]; got != "22s5rmesxsm5f3wt5bc63wsnjtbikvzb3rc24wui" {
		t.Errorf("address is now %s", got)
	}
	if ba, _ := ChannelAddress(b, a); ba == ab || ab.Protocol() != address.Actor {
		t.Errorf("%s and %s", ab, ba)
	}
	id, err := address.NewIDAddress(1000)
	must(t, err)
	if with, err := ChannelAddress(a, id); err != nil || with == ab {
		t.Errorf("to an f0 address: %s, %v", with, err)
	}
	for _, pair := range [][2]address.Address{{a, address.Undef}, {address.Undef, a}} {
		if _, err := ChannelAddress(pair[0], pair[1]); err == nil {
			t.Errorf("a channel between %v", pair)
		}
	}
}
