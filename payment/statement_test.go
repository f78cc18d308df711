package payment

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/builtin/v8/paych"

	"github.com/tollgraph/tollgraph/voucher"
)

// exchange pays amounts on lanes of their own and returns what both sides say.
func exchange(t testing.TB, amounts ...uint64) (atWallet, atTill Statement) {
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	w, till := newWallet(t, fresh(t), payer, Policy{}), newTill(t, fresh(t), payee, voucher.OneFIL)
	ch := channelTo(t, w, payee)
	laneIn(t, w, ch) // never paid on
	for _, amount := range amounts {
		lane := laneIn(t, w, ch)
		for _, a := range []uint64{1, amount} {
			v, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(a), lane)
			must(t, err)
			_, err = save(t.Context(), till, v)
			must(t, err)
		}
	}
	must(t, till.Settle(t.Context(), payer.Address(), voucher.Atto(4), "cash"))
	must(t, till.Settle(t.Context(), payer.Address(), voucher.Atto(5), "more"))
	atWallet, err := w.Statement(t.Context(), payee)
	must(t, err)
	atTill, err = till.Statement(t.Context(), payer.Address())
	must(t, err)
	return atWallet, atTill
}

func TestStatement(t *testing.T) {
	atWallet, atTill := exchange(t, 10, 20, 30)
	for _, s := range []Statement{atWallet, atTill} {
		text, err := json.Marshal(s)
		must(t, err)
		var back Statement
		must(t, json.Unmarshal(text, &back))
		must(t, VerifyStatement(back))
		again, err := json.Marshal(back)
		must(t, err)
		if !bytes.Equal(text, again) {
			t.Errorf("%s\nreads back as\n%s", text, again)
		}
		if s.Total != voucher.Atto(60) || len(s.Lanes) != 3 {
			t.Errorf("%s", text)
		}
	}
	for i, l := range atWallet.Lanes {
		if r := atTill.Lanes[i]; l.Lane != r.Lane || !bytes.Equal(l.Voucher, r.Voucher) {
			t.Errorf("the sides differ on lane %d", l.Lane)
		}
	}
	if atTill.Settled != voucher.Atto(9) || atTill.Owed != voucher.Atto(51) || atWallet.Owed != voucher.Atto(60) {
		t.Errorf("settled %s, owed %s and %s", atTill.Settled, atTill.Owed, atWallet.Owed)
	}
	want := []Settlement{{noon, voucher.Atto(4), "cash"}, {noon, voucher.Atto(5), "more"}}
	if !slices.EqualFunc(atTill.Settlements, want, func(a, b Settlement) bool {
		return a.At.Equal(b.At) && a.At.Location() == time.UTC && a.Amount == b.Amount && a.Note == b.Note
	}) {
		t.Errorf("%v", atTill.Settlements)
	}
}

func TestStatementOfStrangers(t *testing.T) {
	w, till := newWallet(t, fresh(t), keyOf(t, 1), Policy{}), newTill(t, fresh(t), keyOf(t, 2).Address(), voucher.OneFIL)
	if _, err := w.Statement(t.Context(), till.Address()); !errors.Is(err, ErrUnknownLane) {
		t.Error(err)
	}
	if _, err := till.Statement(t.Context(), w.Address()); !errors.Is(err, ErrUnknownLane) {
		t.Error(err)
	}
	channelTo(t, w, till.Address())
	s, err := w.Statement(t.Context(), till.Address())
	must(t, err)
	must(t, VerifyStatement(s)) // nothing is owed, and that is so
}

func TestStatementRefused(t *testing.T) {
	_, good := exchange(t, 10, 20, 30)
	must(t, VerifyStatement(good))
	foreign := func(change ...func(*voucher.SignedVoucher)) []byte {
		var raw bytes.Buffer
		v := signed(t, keyOf(t, 1), good.Payee, good.Lanes[0].Lane, good.Lanes[0].Nonce, good.Lanes[0].Amount.Big().Uint64(), change...)
		must(t, v.MarshalCBOR(&raw))
		return raw.Bytes()
	}
	for name, change := range map[string]func(*Statement){
		"rail":          func(s *Statement) { s.Rail = "on-account/2" },
		"zero":          func(s *Statement) { *s = Statement{} },
		"other payer":   func(s *Statement) { s.Payer = keyOf(t, 9).Address() },
		"other payee":   func(s *Statement) { s.Payee = keyOf(t, 9).Address() },
		"other pair":    func(s *Statement) { s.Payer = keyOf(t, 9).Address(); s.Channel, _ = ChannelAddress(s.Payer, s.Payee) },
		"other channel": func(s *Statement) { s.Channel = s.Payee },
		"total raised":  func(s *Statement) { s.Total = s.Total.Add(voucher.Atto(1)) },
		"owed raised":   func(s *Statement) { s.Owed = s.Owed.Add(voucher.Atto(1)) },
		"owed lowered":  func(s *Statement) { s.Owed = s.Owed.Sub(voucher.Atto(1)) },
		"settled":       func(s *Statement) { s.Settled = voucher.Atto(60) },
		"settlement":    func(s *Statement) { s.Settlements[0].Amount = voucher.Atto(5) },
		"settled a lot": func(s *Statement) { s.Settlements[0].Amount = voucher.MaxAmount },
		"lane raised": func(s *Statement) {
			one := voucher.Atto(1)
			s.Lanes[0].Amount, s.Total, s.Owed = s.Lanes[0].Amount.Add(one), s.Total.Add(one), s.Owed.Add(one)
		},
		"nonce":          func(s *Statement) { s.Lanes[0].Nonce++ },
		"lane number":    func(s *Statement) { s.Lanes[0].Lane-- },
		"lane twice":     func(s *Statement) { s.Lanes[1] = s.Lanes[0] },
		"out of order":   func(s *Statement) { s.Lanes[0], s.Lanes[1] = s.Lanes[1], s.Lanes[0] },
		"lane left out":  func(s *Statement) { s.Lanes = s.Lanes[1:] },
		"no voucher":     func(s *Statement) { s.Lanes[0].Voucher = nil },
		"cut voucher":    func(s *Statement) { s.Lanes[0].Voucher = s.Lanes[0].Voucher[:40] },
		"more behind":    func(s *Statement) { s.Lanes[0].Voucher = append(s.Lanes[0].Voucher, 0) },
		"long voucher":   func(s *Statement) { s.Lanes[0].Voucher = make([]byte, maxVoucher+1) },
		"flipped bit":    func(s *Statement) { s.Lanes[0].Voucher[len(s.Lanes[0].Voucher)-9] ^= 1 },
		"other's":        func(s *Statement) { s.Lanes[0].Voucher = s.Lanes[1].Voucher },
		"with condition": func(s *Statement) { s.Lanes[0].Voucher = foreign(func(v *voucher.SignedVoucher) { v.TimeLockMin = 5 }) },
		"with merge": func(s *Statement) {
			s.Lanes[0].Voucher = foreign(func(v *voucher.SignedVoucher) { v.Merges = []paych.Merge{{}} })
		},
	} {
		s := good
		s.Settlements = slices.Clone(good.Settlements)
		s.Lanes = slices.Clone(good.Lanes)
		for i := range s.Lanes {
			s.Lanes[i].Voucher = bytes.Clone(s.Lanes[i].Voucher)
		}
		change(&s)
		if err := VerifyStatement(s); !errors.Is(err, ErrStatement) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := good
	s.Lanes = slices.Clone(good.Lanes)
	s.Lanes[0].Voucher = foreign() // another signature over the same words is as good
	if err := VerifyStatement(s); err != nil {
		t.Errorf("signed again: %v", err)
	}
}

// FuzzStatement: whatever a statement says, verifying it ends with an answer, and
// what is verified says what its vouchers say.
func FuzzStatement(f *testing.F) {
	atWallet, atTill := exchange(f, 10, 20)
	for _, s := range []Statement{atWallet, atTill, {}} {
		text, err := json.Marshal(s)
		if err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte(`{"Lanes":[{"Voucher":"gg=="}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Statement
		if json.Unmarshal(text, &s) != nil {
			return
		}
		if err := VerifyStatement(s); err != nil {
			if !errors.Is(err, ErrStatement) {
				t.Error(err)
			}
			return
		}
		var total voucher.Amount
		for _, l := range s.Lanes {
			total = total.Add(l.Amount)
		}
		if total != s.Total || s.Owed != s.Total.Sub(s.Settled) {
			t.Errorf("verified %s", text)
		}
	})
}
