package payment

import (
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	fbig "github.com/filecoin-project/go-state-types/big"

	"github.com/tollgraph/tollgraph/voucher"
)

// wantCredit fails unless payer has this line and owes that much.
func wantCredit(t *testing.T, till *Till, payer address.Address, line, owed uint64) {
	t.Helper()
	l, o, err := till.Credit(t.Context(), payer)
	if err != nil || l != voucher.Atto(line) || o != voucher.Atto(owed) {
		t.Errorf("line %s, owed %s, %v; want %d, %d", l, o, err, line, owed)
	}
}

func TestCredit(t *testing.T) {
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	path := t.TempDir() + "/db"
	till := newTill(t, open(t, path), payee, voucher.Amount{})
	give := func(lane, nonce, amount uint64) error {
		_, err := save(t.Context(), till, signed(t, payer, payee, lane, nonce, amount))
		return err
	}
	err := give(1, 1, 10)
	var over *CreditError
	if !errors.As(err, &over) || *over != (CreditError{Payer: payer.Address(), Would: voucher.Atto(10)}) ||
		!errors.Is(err, ErrNoCredit) || !errors.Is(err, ErrCreditExceeded) {
		t.Fatalf("without a line: %v", err)
	}
	till.SetDefaultCredit(voucher.Atto(10))
	must(t, give(1, 1, 10))
	wantCredit(t, till, payer.Address(), 10, 10)
	err = give(2, 1, 1)
	if !errors.As(err, &over) || *over != (CreditError{payer.Address(), voucher.Atto(10), voucher.Atto(10), voucher.Atto(11)}) ||
		errors.Is(err, ErrNoCredit) || !errors.Is(err, ErrCreditExceeded) {
		t.Fatalf("above the line: %v", err)
	}
	must(t, till.SetCredit(t.Context(), payer.Address(), voucher.Atto(15)))
	must(t, give(2, 1, 5))
	if err := give(2, 2, 6); !errors.Is(err, ErrCreditExceeded) {
		t.Fatalf("above the own line: %v", err)
	}
	till = newTill(t, open(t, path), payee, voucher.Atto(100)) // a restart: the own line stays
	wantCredit(t, till, payer.Address(), 15, 15)
	must(t, till.Settle(t.Context(), payer.Address(), voucher.Atto(12), "invoice 1"))
	wantCredit(t, till, payer.Address(), 15, 3)
	must(t, give(2, 2, 17))
	wantCredit(t, till, payer.Address(), 15, 15)
	must(t, till.SetCredit(t.Context(), payer.Address(), voucher.Amount{}))
	if err := give(2, 3, 18); !errors.Is(err, ErrNoCredit) {
		t.Fatalf("after the line was closed: %v", err)
	}
	must(t, give(2, 1, 5)) // old news is no credit
	must(t, till.Settle(t.Context(), payer.Address(), voucher.Atto(20), "in advance"))
	wantCredit(t, till, payer.Address(), 0, 0)
	must(t, give(2, 3, 22))
	if err := give(2, 4, 23); !errors.Is(err, ErrNoCredit) {
		t.Fatalf("after the advance was used up: %v", err)
	}
	if till.DefaultCredit() != voucher.Atto(100) {
		t.Error("default line")
	}
	wantCredit(t, till, keyOf(t, 9).Address(), 100, 0)
}

func TestTotalsWithErrors(t *testing.T) {
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	till := newTill(t, fresh(t), payee, voucher.Atto(100))
	first := signed(t, payer, payee, 1, 1, 40)
	worth, err := till.SavePaymentVoucher(t.Context(), first.ChannelAddr, first, nil, voucher.Atto(41))
	if worth != voucher.Atto(40) || !errors.Is(err, ErrTooLittle) {
		t.Errorf("less than expected: %s, %v", worth, err)
	}
	for name, c := range map[string]struct {
		v    *voucher.SignedVoucher
		want error
	}{
		"conflict":    {signed(t, payer, payee, 1, 1, 41), ErrVoucherConflict},
		"over credit": {signed(t, payer, payee, 1, 2, 101), ErrCreditExceeded},
		"doubled":     {first, nil},
	} {
		worth, err := save(t.Context(), till, c.v)
		if worth != voucher.Atto(40) || !errors.Is(err, c.want) {
			t.Errorf("%s: %s, %v", name, worth, err)
		}
	}
}

func TestLaneOfADeal(t *testing.T) {
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	path := t.TempDir() + "/db"
	till := newTill(t, open(t, path), payee, voucher.Atto(100))
	ch, err := ChannelAddress(payer.Address(), payee)
	must(t, err)
	give := func(deal string, lane, nonce, amount uint64) (voucher.Amount, error) {
		return till.SaveDealVoucher(t.Context(), deal, ch, signed(t, payer, payee, lane, nonce, amount), voucher.Amount{})
	}
	if _, err := give("a", 1, 1, 101); !errors.Is(err, ErrCreditExceeded) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		deal                       string
		lane, nonce, amount, worth uint64
		err                        error
	}{
		{"b", 1, 1, 10, 10, nil}, // a had no credit, so the lane was free
		{"b", 1, 1, 10, 10, nil},
		{"a", 1, 1, 10, 0, ErrLaneTaken},
		{"a", 1, 2, 20, 0, ErrLaneTaken},
		{"b", 1, 2, 20, 20, nil},
		{"b", 2, 1, 5, 5, nil}, // a deal may have several
	} {
		worth, err := give(c.deal, c.lane, c.nonce, c.amount)
		if worth != voucher.Atto(c.worth) || !errors.Is(err, c.err) {
			t.Errorf("%+v: %s, %v", c, worth, err)
		}
		till = newTill(t, open(t, path), payee, voucher.Atto(100))
	}
	_, err = save(t.Context(), till, signed(t, payer, payee, 1, 3, 30)) // does not take it from b
	must(t, err)
	if worth, err := give("b", 1, 4, 40); err != nil || worth != voucher.Atto(40) {
		t.Errorf("after a voucher without a name: %s, %v", worth, err)
	}
	_, err = save(t.Context(), till, signed(t, payer, payee, 3, 1, 1)) // for no deal in particular
	must(t, err)
	if _, err := give("a", 3, 2, 2); !errors.Is(err, ErrLaneTaken) {
		t.Errorf("a lane that was used without a name: %v", err)
	}
	if _, err := give("", 4, 1, 1); err == nil {
		t.Error("a deal without a name")
	}
}

func TestAmountsThatDoNotFit(t *testing.T) {
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	till := newTill(t, fresh(t), payee, voucher.MaxAmount)
	huge := func(v *voucher.SignedVoucher) { v.Amount = fbig.NewFromGo(voucher.MaxAmount.Big()) }
	if worth, err := save(t.Context(), till, signed(t, payer, payee, 1, 1, 0, huge)); err != nil || worth != voucher.MaxAmount {
		t.Fatalf("%s, %v", worth, err)
	}
	if worth, err := save(t.Context(), till, signed(t, payer, payee, 2, 1, 1)); !errors.Is(err, ErrCreditExceeded) || !worth.IsZero() {
		t.Errorf("one atto more than an Amount holds: %s, %v", worth, err)
	}
	must(t, till.Settle(t.Context(), payer.Address(), voucher.MaxAmount, ""))
	if err := till.Settle(t.Context(), payer.Address(), voucher.Atto(1), ""); !errors.Is(err, voucher.ErrAmount) {
		t.Errorf("settled more than an Amount holds: %v", err)
	}
	w := newWallet(t, fresh(t), payer, Policy{})
	ch := channelTo(t, w, payee)
	if _, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.MaxAmount, laneIn(t, w, ch)); err != nil {
		t.Error(err)
	}
	if _, err := w.CreatePaymentVoucher(t.Context(), ch, voucher.Atto(1), laneIn(t, w, ch)); !errors.Is(err, voucher.ErrAmount) {
		t.Errorf("signed more than an Amount holds: %v", err)
	}
}

func TestTillRefusesWhatCannotPay(t *testing.T) {
	if _, err := NewTill(fresh(t), address.Undef, TillConfig{}); err == nil {
		t.Error("a till of nobody")
	}
	till := newTill(t, fresh(t), keyOf(t, 2).Address(), voucher.Amount{})
	id, err := address.NewIDAddress(1000)
	must(t, err)
	actor, err := address.NewActorAddress([]byte("actor"))
	must(t, err)
	one := voucher.Atto(1)
	for _, payer := range []address.Address{address.Undef, id, actor} {
		_, _, err := till.Credit(t.Context(), payer)
		_, serr := till.Statement(t.Context(), payer)
		for _, err := range []error{err, serr, till.SetCredit(t.Context(), payer, one), till.Settle(t.Context(), payer, one, "")} {
			if err == nil || !strings.Contains(err.Error(), "f1") {
				t.Errorf("%s: %v", payer, err)
			}
		}
	}
	payer := keyOf(t, 1).Address()
	for name, err := range map[string]error{
		"nothing":   till.Settle(t.Context(), payer, voucher.Amount{}, "x"),
		"long note": till.Settle(t.Context(), payer, one, strings.Repeat("x", maxNote+1)),
		"no text":   till.Settle(t.Context(), payer, one, "\xff"),
	} {
		if err == nil {
			t.Errorf("settled with %s", name)
		}
	}
	if list, err := till.Channels(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("on record: %v, %v", list, err)
	}
}

func TestTillLists(t *testing.T) {
	payee := keyOf(t, 2).Address()
	db := fresh(t)
	till, other := newTill(t, db, payee, voucher.Atto(100)), newTill(t, db, keyOf(t, 5).Address(), voucher.Atto(100))
	a, b := keyOf(t, 1), keyOf(t, 3)
	for _, v := range []*voucher.SignedVoucher{
		signed(t, a, payee, 1, 3, 30), signed(t, a, payee, 9, 1, 5), signed(t, b, payee, 1, 1, 7),
	} {
		_, err := save(t.Context(), till, v)
		must(t, err)
	}
	_, err := save(t.Context(), other, signed(t, a, other.Address(), 1, 1, 50))
	must(t, err)
	must(t, till.Settle(t.Context(), a.Address(), voucher.Atto(12), "cash"))
	must(t, till.SetCredit(t.Context(), b.Address(), voucher.Atto(8)))
	list, err := till.Channels(t.Context())
	must(t, err)
	ofA, err := ChannelAddress(a.Address(), payee)
	must(t, err)
	ofB, err := ChannelAddress(b.Address(), payee)
	must(t, err)
	got := map[address.Address]Channel{}
	for _, c := range list {
		got[c.Payer] = c
	}
	n := voucher.Atto
	want := map[address.Address]Channel{
		a.Address(): {Address: ofA, Payer: a.Address(), Payee: payee, Total: n(35), Line: n(100), Settled: n(12), Owed: n(23)},
		b.Address(): {Address: ofB, Payer: b.Address(), Payee: payee, Total: n(7), Line: n(8), OwnLine: true, Owed: n(7)},
	}
	if len(list) != 2 || got[a.Address()] != want[a.Address()] || got[b.Address()] != want[b.Address()] {
		t.Errorf("%+v", list)
	}
	lanes, err := till.Lanes(t.Context(), ofA)
	if err != nil || len(lanes) != 2 || lanes[0] != (Lane{Lane: 1, Nonce: 3, Amount: n(30)}) || lanes[1] != (Lane{Lane: 9, Nonce: 1, Amount: n(5)}) {
		t.Errorf("%+v, %v", lanes, err)
	}
}

// Accounts are alike as long as a look at each of them finds none with a line of its own
// that is another, or with more settled than was owed; those of another payee do not
// matter.
func TestAlike(t *testing.T) {
	payee, db := keyOf(t, 2).Address(), fresh(t)
	till, other := newTill(t, db, payee, voucher.Atto(300)), newTill(t, db, keyOf(t, 5).Address(), voucher.Atto(300))
	a, b := keyOf(t, 1), keyOf(t, 3)
	pays := func(by voucher.Key, to *Till) func() error {
		return func() error {
			_, err := save(t.Context(), to, signed(t, by, to.payee, 1, 1, 7))
			return err
		}
	}
	for _, step := range []struct {
		what string
		do   func() error
		want bool
	}{
		{"no account", func() error { return nil }, true},
		{"two payers", func() error { return errors.Join(pays(a, till)(), pays(b, till)()) }, true},
		{"another payee's payer", func() error {
			return errors.Join(pays(a, other)(), other.SetCredit(t.Context(), a.Address(), voucher.Atto(8)))
		}, true},
		{"the line of all as one's own", func() error { return till.SetCredit(t.Context(), a.Address(), voucher.Atto(300)) }, true},
		{"a longer one", func() error { return till.SetCredit(t.Context(), a.Address(), voucher.Atto(1<<40)) }, false},
		{"as before", func() error { return till.SetCredit(t.Context(), a.Address(), voucher.Atto(300)) }, true},
		{"settled", func() error { return till.Settle(t.Context(), b.Address(), voucher.Atto(7), "cash") }, true},
		{"settled in advance", func() error { return till.Settle(t.Context(), b.Address(), voucher.Atto(256), "cash") }, false},
	} {
		must(t, step.do())
		list, err := till.Channels(t.Context())
		must(t, err)
		each := !slices.ContainsFunc(list, func(c Channel) bool { return c.Line != till.DefaultCredit() || c.Total.Less(c.Settled) })
		if got, err := till.Alike(t.Context()); err != nil || got != step.want || each != step.want {
			t.Errorf("%s: %v, and account by account %v, want %v: %v", step.what, got, each, step.want, err)
		}
	}
}

// Many lanes of one payer are paid on at once, each voucher twice: what is
// credited is exactly the line.
func TestConcurrentSaves(t *testing.T) {
	const lanes, steps, line = 16, 10, 100 // of 16×10 wanted
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	till := newTill(t, fresh(t), payee, voucher.Atto(line))
	var wg sync.WaitGroup
	for lane := range uint64(lanes) {
		for range 2 {
			wg.Go(func() {
				for i := uint64(1); i <= steps; i++ {
					_, err := save(t.Context(), till, signed(t, payer, payee, lane, i, i))
					if err != nil && !errors.Is(err, ErrCreditExceeded) {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	wantCredit(t, till, payer.Address(), line, line)
	s, err := till.Statement(t.Context(), payer.Address())
	must(t, err)
	must(t, VerifyStatement(s))
	if s.Total != voucher.Atto(line) {
		t.Errorf("total %s", s.Total)
	}
}

func TestVoucherOfWholeRange(t *testing.T) {
	payer, payee := keyOf(t, 1), keyOf(t, 2).Address()
	till := newTill(t, fresh(t), payee, voucher.MaxAmount)
	for bit := range uint(128) {
		amount := new(big.Int).Lsh(big.NewInt(1), bit)
		v := signed(t, payer, payee, 1, 1<<63+uint64(bit), 0, func(v *voucher.SignedVoucher) { v.Amount = fbig.NewFromGo(amount) })
		worth, err := save(t.Context(), till, v)
		if err != nil || worth.Big().Cmp(amount) != 0 {
			t.Fatalf("2^%d: %s, %v", bit, worth, err)
		}
	}
	s, err := till.Statement(t.Context(), payer.Address())
	must(t, err)
	must(t, VerifyStatement(s))
}
