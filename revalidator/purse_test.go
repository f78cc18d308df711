package revalidator

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/voucher"
)

// TestNextTable pins what a client signs at 1 attoFIL a byte, interval 100.
func TestNextTable(t *testing.T) {
	rich := voucher.OneFIL
	for name, tc := range map[string]struct {
		a     Account
		p     Purse
		want  uint64
		signs bool
	}{
		"strict, before the boundary":    {Account{Moved: 99}, Purse{Budget: rich}, 0, false},
		"strict, at the boundary":        {Account{Moved: 100}, Purse{Budget: rich}, 100, true},
		"strict, overshoot is paid too":  {Account{Moved: 130}, Purse{Budget: rich}, 130, true},
		"strict, end":                    {Account{Moved: 42, Ended: true}, Purse{Budget: rich}, 42, true},
		"strict, end and nothing moved":  {Account{Ended: true}, Purse{Budget: rich}, 0, false},
		"window without at-risk":         {Account{Moved: 60}, Purse{Budget: rich, Window: 80, Expected: 1000}, 0, false},
		"unknown size pays nothing":      {Account{Moved: 60}, Purse{Budget: rich, Window: 80, AtRisk: 200}, 0, false},
		"ahead, twice the window":        {Account{Moved: 60}, Purse{Budget: rich, Window: 80, AtRisk: 200, Expected: 1000}, 220, true},
		"ahead, within at-risk":          {Account{Moved: 60}, Purse{Budget: rich, Window: 80, AtRisk: 90, Expected: 1000}, 150, true},
		"ahead, not past the end":        {Account{Moved: 60}, Purse{Budget: rich, Window: 80, AtRisk: 200, Expected: 130}, 130, true},
		"ahead, limit would not move":    {Account{Moved: 60}, Purse{Budget: rich, Window: 80, AtRisk: 39, Expected: 1000}, 0, false},
		"ahead, enough window left":      {Account{Moved: 60, Paid: voucher.Atto(150)}, Purse{Budget: rich, Window: 80, AtRisk: 200, Expected: 1000}, 0, false},
		"budget cuts":                    {Account{Moved: 130}, Purse{Budget: voucher.Atto(110)}, 110, true},
		"budget spent":                   {Account{Moved: 130, Paid: voucher.Atto(110)}, Purse{Budget: voucher.Atto(110)}, 0, false},
		"quote too small: pay what came": {Account{Moved: 130}, Purse{Budget: rich, AtRisk: 100, Window: 50, Expected: 10}, 130, true},
	} {
		tc.a.Terms = terms(1, 100, 0)
		got, signs := tc.p.Next(tc.a)
		if signs != tc.signs || signs && got != voucher.Atto(tc.want) {
			t.Errorf("%s: signs %v %s, want %v %d", name, signs, got, tc.signs, tc.want)
		}
	}
}

func TestUnsealIsPaidFirst(t *testing.T) {
	a := Account{Terms: voucher.Terms{Unseal: voucher.Atto(50), Price: 1, Interval: 100}}
	got, ok := Purse{Budget: voucher.OneFIL}.Next(a)
	if !ok || got != voucher.Atto(50) {
		t.Errorf("signs %v %s, want exactly the unseal price", ok, got)
	}
	if _, ok := (Purse{Budget: voucher.Atto(49)}).Next(a.Pay(voucher.Atto(49))); ok {
		t.Error("signed above the budget")
	}
	if short := (Purse{Budget: voucher.Atto(49)}).Short(a); short != voucher.Atto(1) {
		t.Errorf("short of %s, want 1", short)
	}
}

// TestPurseLaws: never above the ceiling, never backwards, and never stuck
// while there is budget.
func TestPurseLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAccount(t)
		a.Credit = 0
		p := drawPurse(t, a)
		got, ok := p.Next(a)
		if ok && (p.Ceiling(a).Less(got) || !a.Paid.Less(got) || p.Budget.Less(got)) {
			t.Fatalf("signs %s: ceiling %s budget %s paid %s", got, p.Ceiling(a), p.Budget, a.Paid)
		}
		if ok && a.Terms.Cost(a.Moved.Add(p.AtRisk)).Less(got) {
			t.Fatalf("signs %s, more than at-risk ahead: %+v %+v", got, a, p)
		}
		enough := !p.Budget.Less(a.Paid.Add(a.Due()))
		if !a.Due().IsZero() && enough && (!ok || !a.Pay(got).Due().IsZero()) {
			t.Fatalf("due %s is not cleared by %v %s: %+v %+v", a.Due(), ok, got, a, p)
		}
		if enough != p.Short(a).IsZero() {
			t.Fatalf("short of %s, enough %v", p.Short(a), enough)
		}
	})
}

func drawPurse(t *rapid.T, a Account) Purse {
	p := Purse{
		Budget:   voucher.MaxAmount,
		AtRisk:   voucher.Bytes(rapid.Uint64Range(0, 1<<22).Draw(t, "at risk")),
		Window:   voucher.Bytes(rapid.Uint64Range(0, 1<<22).Draw(t, "window")),
		Trip:     voucher.Bytes(rapid.Uint64Range(0, 1<<22).Draw(t, "trip")),
		Expected: voucher.Bytes(rapid.Uint64Range(0, 1<<25).Draw(t, "expected")),
	}
	if rapid.Bool().Draw(t, "tight") {
		p.Budget = a.Terms.Cost(a.Moved).Add(voucher.Atto(rapid.Uint64Range(0, 1<<30).Draw(t, "slack")))
	}
	return p
}

// line is what is under way between two honest sides, who take turns as r says.
type line struct {
	r      *rand.Rand
	block  voucher.Bytes    // largest block
	blocks []voucher.Bytes  // totals on their way to the client
	pays   []voucher.Amount // amounts on their way to the provider
}

// TestHonestSides: two honest sides over a line that delays, reorders and
// repeats end with exactly the cost of the bytes paid, exposure never above
// interval, credit and one block, and at-risk never exceeded.
func TestHonestSides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tm := drawTerms(t)
		tm.Price = max(tm.Price, 1)
		seed := rapid.Uint64().Draw(t, "seed")
		l := &line{r: rand.New(rand.NewPCG(seed, 1)), block: voucher.Bytes(rapid.Uint64Range(1, 1<<18).Draw(t, "block"))}
		total := voucher.Bytes(l.r.Uint64N(200 * uint64(l.block)))
		provider := Account{Terms: tm, Credit: voucher.Bytes(rapid.Uint64Range(0, 1<<16).Draw(t, "credit"))}
		client := Account{Terms: tm}
		p := Purse{Budget: voucher.MaxAmount, Expected: total,
			AtRisk: voucher.Bytes(rapid.Uint64Range(0, 1<<21).Draw(t, "at risk")), Window: voucher.Bytes(rapid.Uint64Range(0, 1<<20).Draw(t, "window"))}
		for step := 0; !provider.Ended || !client.Ended || !provider.Due().IsZero() || len(l.pays) > 0; step++ {
			if step > 100_000 {
				t.Fatalf("stuck: client %+v provider %+v of %d", client, provider, total)
			}
			exposureHolds(t, provider, l.block)
			switch l.r.IntN(3) {
			case 0:
				provider = l.send(provider, total)
			case 1:
				client = l.receive(t, client, provider.Ended, p)
			default:
				provider = l.deliver(provider)
			}
		}
		if provider.Paid != tm.Cost(total) || client.Paid != provider.Paid {
			t.Fatalf("paid %s and %s, want %s", client.Paid, provider.Paid, tm.Cost(total))
		}
	})
}

func exposureHolds(t *rapid.T, a Account, block voucher.Bytes) {
	k := intervals(a.Terms, a.Terms.Covered(a.Paid))
	interval := Boundary(a.Terms, k+1) - Boundary(a.Terms, k)
	if unpaid := a.Moved.Sub(a.Terms.Covered(a.Paid)); unpaid > interval.Add(a.Credit).Add(block) {
		t.Fatalf("%d bytes unpaid, interval %d credit %d block %d", unpaid, interval, a.Credit, block)
	}
}

func (l *line) send(a Account, total voucher.Bytes) Account {
	if a.Moved < total && a.Moved < a.Limit() {
		a = a.Move(min(total, a.Moved+l.block/2+1+voucher.Bytes(l.r.Uint64N(uint64(l.block)/2+1))))
		l.blocks = append(l.blocks, a.Moved)
	}
	if a.Moved == total && !a.Paid.Less(a.Terms.Unseal) {
		a = a.End(total)
	}
	return a
}

func (l *line) receive(t *rapid.T, a Account, ended bool, p Purse) Account {
	if len(l.blocks) > 0 {
		a = a.Move(l.blocks[0])
		l.blocks = l.blocks[1:]
	}
	if ended && len(l.blocks) == 0 {
		a = a.End(a.Moved)
	}
	if m, ok := p.Next(a); ok {
		if a.Terms.Cost(a.Moved.Add(p.AtRisk)).Less(m) {
			t.Fatalf("signed %s with %d verified and %d at risk", m, a.Moved, p.AtRisk)
		}
		a = a.Pay(m)
		l.pays = append(l.pays, m)
	}
	return a
}

func (l *line) deliver(a Account) Account {
	if len(l.pays) == 0 {
		return a
	}
	i := l.r.IntN(len(l.pays))
	a = a.Pay(l.pays[i])
	if l.r.IntN(4) > 0 { // else it comes again
		l.pays = append(l.pays[:i], l.pays[i+1:]...)
	}
	return a
}

func FuzzLimit(f *testing.F) {
	f.Add(uint64(1), uint64(1), uint64(0), uint64(0), uint64(0))
	f.Add(^uint64(0), uint64(0), ^uint64(0), ^uint64(0), ^uint64(0))
	f.Fuzz(func(t *testing.T, price, interval, increase, moved, paid uint64) {
		a := Account{Terms: terms(voucher.Price(price), voucher.Bytes(interval), voucher.Bytes(increase)),
			Moved: voucher.Bytes(moved), Paid: voucher.Atto(paid)}
		limit := a.Limit()
		if price != 0 && limit != voucher.MaxBytes && limit <= a.Terms.Covered(a.Paid) {
			t.Fatalf("limit %d is not above what is paid: %+v", limit, a)
		}
		_, _ = a.Due(), a.Verdict()
		_, _ = Purse{Budget: voucher.MaxAmount, AtRisk: voucher.Bytes(moved), Window: voucher.Bytes(interval), Expected: voucher.Bytes(increase)}.Next(a)
	})
}

// TestLookTable pins where a client looks again, at 1 attoFIL a byte, interval 100.
func TestLookTable(t *testing.T) {
	for name, tc := range map[string]struct {
		a    Account
		p    Purse
		want voucher.Bytes
	}{
		"strict":                 {Account{Moved: 20}, Purse{}, 100},
		"strict, paid":           {Account{Moved: 100, Paid: voucher.Atto(100)}, Purse{}, 200},
		"window without at-risk": {Account{}, Purse{Window: 80}, 100},
		"ahead":                  {Account{Paid: voucher.Atto(300)}, Purse{Window: 80, AtRisk: 200, Expected: 1000}, 351},
		"little at risk":         {Account{Paid: voucher.Atto(300)}, Purse{Window: 80, AtRisk: 90, Expected: 1000}, 379},
		"quick payments":         {Account{Paid: voucher.Atto(300)}, Purse{Window: 80, Trip: 10, AtRisk: 90, Expected: 1000}, 379},
		"slow payments":          {Account{Paid: voucher.Atto(300)}, Purse{Window: 80, Trip: 30, AtRisk: 90, Expected: 1000}, 341},
		"slower than the window": {Account{Paid: voucher.Atto(300)}, Purse{Window: 80, Trip: 500, AtRisk: 90, Expected: 1000}, 321},
		"slower than the risk":   {Account{Paid: voucher.Atto(300)}, Purse{Window: 800, Trip: 500, AtRisk: 90, Expected: 1000}, 311},
		"window before the root": {Account{}, Purse{Window: 800, AtRisk: 1600, Expected: 1000}, 0},
		"all is here":            {Account{Moved: 42, Ended: true}, Purse{}, voucher.MaxBytes},
	} {
		tc.a.Terms = terms(1, 100, 0)
		if got := tc.p.Look(tc.a); got != tc.want {
			t.Errorf("%s: looks at %d, want %d", name, got, tc.want)
		}
	}
	if got := (Purse{}).Look(Account{Terms: terms(0, 100, 0)}); got != voucher.MaxBytes {
		t.Errorf("for free: looks at %d", got)
	}
}

// TestLookLaws: a client that looks only where Look says signs before the provider
// stops, if its budget lets it, and not for less than three quarters of what it may pay ahead,
// unless more arrives before the payment does.
func TestLookLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAccount(t)
		a.Credit, a.Ended = 0, false
		p := drawPurse(t, a)
		p.Budget, p.Expected = voucher.MaxAmount, 0 // a.Paid may be above any other
		at := p.Look(a)
		if a.Terms.Price == 0 {
			return
		}
		if at > a.Limit() {
			t.Fatalf("looks at %d, behind the limit %d", at, a.Limit())
		}
		if left := a.Limit().Sub(at); left > min(p.AtRisk, max(p.AtRisk/4, 2*p.Trip)) {
			t.Fatalf("looks at %d with %d at risk, the limit is %d", at, p.AtRisk, a.Limit())
		}
		if p.AtRisk == 0 && a.Paid.Less(a.Terms.Cost(at)) {
			if _, signs := p.Next(a.Move(max(at, a.Moved))); !signs {
				t.Fatalf("signs nothing at %d: %+v %+v", at, a, p)
			}
		}
	})
}
