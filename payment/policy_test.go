package payment

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

func TestPolicyCheck(t *testing.T) {
	a := voucher.Atto
	before := spent{day: 20780, provider: a(5), today: a(10), ever: a(100)}
	for _, c := range []struct {
		name         string
		policy       Policy
		amount, more uint64
		rule         Rule // empty: allowed
		would        uint64
	}{
		{"no limits", Policy{}, 1 << 60, 1 << 60, "", 0},
		{"deal, at it", Policy{PerDeal: a(7)}, 7, 3, "", 0},
		{"deal, over it", Policy{PerDeal: a(7)}, 8, 1, RulePerDeal, 8},
		{"provider, at it", Policy{PerProviderPerDay: a(8)}, 9, 3, "", 0},
		{"provider, over it", Policy{PerProviderPerDay: a(8)}, 9, 4, RulePerProviderPerDay, 9},
		{"day, at it", Policy{PerDay: a(13)}, 9, 3, "", 0},
		{"day, over it", Policy{PerDay: a(13)}, 9, 4, RulePerDay, 14},
		{"total, at it", Policy{Total: a(103)}, 9, 3, "", 0},
		{"total, over it", Policy{Total: a(103)}, 9, 4, RuleTotal, 104},
		{"over before", Policy{Total: a(1)}, 9, 1, RuleTotal, 101},
		{"first rule first", Policy{a(1), a(1), a(1), a(1)}, 9, 1, RulePerDeal, 9},
	} {
		err := c.policy.check(before, a(c.amount), a(c.more))
		var over *BudgetError
		switch errors.As(err, &over); {
		case c.rule == "" && err != nil,
			c.rule != "" && (over == nil || over.Rule != c.rule || over.Would != a(c.would) || over.Amount != a(c.amount) || !errors.Is(err, ErrBudget)):
			t.Errorf("%s: %v", c.name, err)
		}
	}
	err := Policy{PerDay: a(1)}.check(spent{day: 20780, today: voucher.MaxAmount}, a(9), a(9))
	if err == nil || !strings.Contains(err.Error(), "on 2026-11-23") {
		t.Errorf("message: %v", err)
	}
}

func TestTighter(t *testing.T) {
	a := voucher.Atto
	p, q := Policy{a(1), a(5), a(0), a(0)}, Policy{a(2), a(3), a(4), a(0)}
	want := Policy{a(1), a(3), a(4), a(0)}
	if p.tighter(q) != want || q.tighter(p) != want || p.tighter(Policy{}) != p {
		t.Errorf("%+v", p.tighter(q))
	}
}

// days drives a wallet with a clock.
type days struct {
	t     *testing.T
	w     *Wallet
	now   time.Time
	payee []address.Address
	paid  map[int]uint64 // by payee
	lane  map[int]uint64
}

func newDays(t *testing.T, path string, p Policy) *days {
	d := &days{t: t, now: noon, paid: map[int]uint64{}, lane: map[int]uint64{}}
	for n := range 3 {
		d.payee = append(d.payee, keyOf(t, byte(n+10)).Address())
	}
	d.open(path, p)
	return d
}

func (d *days) open(path string, p Policy) {
	w, err := NewWallet(open(d.t, path), keyOf(d.t, 1), WalletConfig{Policy: p, Now: func() time.Time { return d.now }})
	must(d.t, err)
	d.w = w
}

// pay spends more with the n-th payee, and reports which rule forbids it.
func (d *days) pay(n int, more uint64) Rule {
	d.t.Helper()
	ch := channelTo(d.t, d.w, d.payee[n])
	if d.lane[n] == 0 {
		d.lane[n] = laneIn(d.t, d.w, ch)
	}
	dry := d.w.Check(d.t.Context(), d.payee[n], voucher.Amount{}, voucher.Atto(more))
	_, err := d.w.CreatePaymentVoucher(d.t.Context(), ch, voucher.Atto(d.paid[n]+more), d.lane[n])
	var over, would *BudgetError
	// Check is asked about a deal of its own, so not of what the lane had before.
	if errors.As(err, &over) != errors.As(dry, &would) && over != nil && over.Rule != RulePerDeal ||
		over != nil && would != nil && over.Rule != would.Rule {
		d.t.Errorf("Check says %v, signing %v", dry, err)
	}
	if over != nil {
		return over.Rule
	}
	must(d.t, err)
	d.paid[n] += more
	return ""
}

func (d *days) want(n int, more uint64, rule Rule) {
	d.t.Helper()
	if got := d.pay(n, more); got != rule {
		d.t.Errorf("pay %d to %d at %s: %q, want %q", more, n, d.now.Format(time.DateTime), got, rule)
	}
}

func TestPolicyByDay(t *testing.T) {
	path := t.TempDir() + "/db"
	p := Policy{PerProviderPerDay: voucher.Atto(10), PerDay: voucher.Atto(15)}
	d := newDays(t, path, p)
	d.want(0, 10, "")
	d.want(0, 1, RulePerProviderPerDay)
	d.want(1, 5, "")
	d.want(2, 1, RulePerDay)
	d.open(path, p) // counters are on disk
	d.want(0, 1, RulePerProviderPerDay)
	d.want(2, 1, RulePerDay)

	d.now = time.Date(2026, 11, 23, 23, 59, 59, 999, time.UTC)
	d.want(2, 1, RulePerDay)
	d.now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	d.want(0, 10, "")
	d.want(0, 1, RulePerProviderPerDay)

	// Stepping back does not open a fresh day, nor the old one again.
	for _, back := range []time.Time{noon, time.Unix(0, 0), time.Unix(-1e9, 0)} {
		d.now = back
		d.want(0, 1, RulePerProviderPerDay)
		d.want(1, 6, RulePerDay)
	}
	d.want(1, 5, "") // what is left of the 24th
	d.now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	d.want(1, 1, RulePerDay)
	d.now = d.now.Add(24 * time.Hour)
	d.want(1, 10, "")
}

// A clock that ran ahead once would hold money on that day. SetPolicy says that
// the clock is right now; what was spent on the days before still counts.
func TestPolicyAfterClockRanAhead(t *testing.T) {
	d := newDays(t, t.TempDir()+"/db", Policy{PerDay: voucher.Atto(10)})
	d.want(0, 4, "")
	d.now = noon.AddDate(5, 0, 0)
	d.want(0, 10, "")
	d.now = noon
	d.want(0, 1, RulePerDay)
	must(t, d.w.SetPolicy(t.Context(), Policy{}))
	d.want(0, 7, RulePerDay)
	d.want(0, 6, "")
	d.want(0, 1, RulePerDay)
}

func TestSetPolicy(t *testing.T) {
	path := t.TempDir() + "/db"
	d := newDays(t, path, Policy{Total: voucher.Atto(100)})
	d.want(0, 20, "")
	must(t, d.w.SetPolicy(t.Context(), Policy{PerDeal: voucher.Atto(30), Total: voucher.Atto(1000)}))
	d.want(0, 11, RulePerDeal)
	d.want(0, 10, "")
	d.open(path, Policy{PerDeal: voucher.Atto(40), Total: voucher.Atto(35)})
	if p, err := d.w.Policy(t.Context()); err != nil || p != (Policy{PerDeal: voucher.Atto(30), Total: voucher.Atto(35)}) {
		t.Errorf("%+v, %v", p, err)
	}
	d.want(0, 1, RulePerDeal)
	d.want(1, 6, RuleTotal)
	must(t, d.w.SetPolicy(t.Context(), Policy{}))
	d.want(0, 5, "")
	d.want(1, 1, RuleTotal)
}

// TestPerDealIsPerOrder: what one purchase may cost holds over all lanes that pay
// for it, at whatever provider. Amounts are in attoFIL; the limit is 100.
func TestPerDealIsPerOrder(t *testing.T) {
	path := t.TempDir() + "/db"
	d := newDays(t, path, Policy{PerDeal: voucher.Atto(100)})
	type lane struct{ channel, number uint64 }
	lanes := map[string]lane{}
	for name, of := range map[string]struct{ provider, order uint64 }{
		"a": {0, 1}, "b": {0, 1}, "c": {1, 1}, "other": {0, 2}, "alone": {0, 0}, "alone too": {1, 0},
	} {
		ch := channelTo(t, d.w, d.payee[of.provider])
		lanes[name] = lane{of.provider, laneIn(t, d.w, ch)}
		for _, order := range []uint64{of.order, of.order + 7} { // the first word counts
			if of.order != 0 {
				must(t, d.w.JoinOrder(t.Context(), ch, lanes[name].number, order))
			}
		}
	}
	for _, step := range []struct {
		lane  string
		total uint64 // to be signed
		would uint64 // what the order would come to, if that is too much
	}{
		{"a", 60, 0}, {"b", 41, 101}, {"b", 40, 0}, {"a", 60, 0}, {"a", 61, 101}, {"c", 1, 101}, {"b", 41, 101},
		{"other", 100, 0}, {"other", 101, 101}, {"alone", 100, 0}, {"alone", 102, 102}, {"alone too", 100, 0},
	} {
		d.open(path, Policy{PerDeal: voucher.Atto(100)}) // it is on disk
		l := lanes[step.lane]
		_, err := d.w.CreatePaymentVoucher(t.Context(), channelTo(t, d.w, d.payee[l.channel]), voucher.Atto(step.total), l.number)
		over := (*BudgetError)(nil)
		switch errors.As(err, &over); {
		case over == nil && (err != nil || step.would != 0):
			t.Errorf("%s %d: %v, want it to come to %d", step.lane, step.total, err, step.would)
		case over != nil && (over.Rule != RulePerDeal || over.Would != voucher.Atto(step.would)):
			t.Errorf("%s %d: %v, want it to come to %d", step.lane, step.total, over, step.would)
		}
	}
	for spent, amount := range map[uint64]uint64{0: 100, 60: 40, 100: 0} {
		if err := d.w.Check(t.Context(), d.payee[2], voucher.Atto(spent), voucher.Atto(amount)); err != nil {
			t.Errorf("%d after %d: %v", amount, spent, err)
		}
		if err := d.w.Check(t.Context(), d.payee[2], voucher.Atto(spent), voucher.Atto(amount+1)); !errors.Is(err, ErrBudget) {
			t.Errorf("%d after %d: %v", amount+1, spent, err)
		}
	}
	foreign := channelTo(t, newWallet(t, open(t, path), keyOf(t, 9), Policy{}), d.payee[0])
	if err := d.w.JoinOrder(t.Context(), foreign, 1, 1); !errors.Is(err, ErrUnknownLane) {
		t.Errorf("a lane of another wallet: %v", err)
	}
}
