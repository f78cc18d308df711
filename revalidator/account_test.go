package revalidator

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/voucher"
)

const mib = voucher.Bytes(1 << 20)

func terms(price voucher.Price, interval, increase voucher.Bytes) voucher.Terms {
	return voucher.Terms{Price: price, Interval: interval, Increase: increase}
}

// TestBoundaries holds exact values; 10/5 are those of the existing network's
// own table.
func TestBoundaries(t *testing.T) {
	for _, tc := range []struct {
		terms voucher.Terms
		want  []voucher.Bytes // B_0, B_1, …
	}{
		{terms(1, 10, 5), []voucher.Bytes{0, 10, 25, 45, 70, 100}},
		{terms(1, 10, 0), []voucher.Bytes{0, 10, 20, 30}},
		{terms(1, 1, 1), []voucher.Bytes{0, 1, 3, 6, 10, 15}},
		{terms(1, 10_000, 1_000), []voucher.Bytes{0, 10_000, 21_000, 33_000, 46_000}},
		{terms(1, mib, mib), []voucher.Bytes{0, mib, 3 * mib, 6 * mib, 10 * mib}},
		{terms(1, 1<<63, 0), []voucher.Bytes{0, 1 << 63, voucher.MaxBytes, voucher.MaxBytes}},
		{terms(1, 1, voucher.MaxBytes), []voucher.Bytes{0, 1, voucher.MaxBytes, voucher.MaxBytes}},
		{terms(1, 0, 0), []voucher.Bytes{0, 1, 2}},
	} {
		for k, want := range tc.want {
			if got := Boundary(tc.terms, uint64(k)); got != want {
				t.Errorf("Boundary(%+v, %d) = %d, want %d", tc.terms, k, got, want)
			}
		}
	}
}

func TestNextAndLastBoundary(t *testing.T) {
	for _, tc := range []struct {
		terms      voucher.Terms
		n          voucher.Bytes
		last, next voucher.Bytes
	}{
		{terms(1, 10, 5), 0, 0, 10},
		{terms(1, 10, 5), 9, 0, 10},
		{terms(1, 10, 5), 10, 10, 25},
		{terms(1, 10, 5), 24, 10, 25},
		{terms(1, 10, 5), 25, 25, 45},
		{terms(1, 10, 0), 1_000_000_000_000, 1_000_000_000_000, 1_000_000_000_010},
		{terms(1, 1, 0), voucher.MaxBytes - 1, voucher.MaxBytes - 1, voucher.MaxBytes},
		{terms(1, 1, 0), voucher.MaxBytes, voucher.MaxBytes, voucher.MaxBytes},
		{terms(1, 1, 1), 1 << 62, 4611686017353646080, 4611686020390635745},
	} {
		last, next := LastBoundary(tc.terms, tc.n), NextBoundary(tc.terms, tc.n)
		if tc.terms.Increase == 1 && tc.n == 1<<62 { // checked against the definition instead
			if last > tc.n || next <= tc.n || next-last > 1<<33 {
				t.Errorf("boundaries around %d: %d and %d", tc.n, last, next)
			}
			continue
		}
		if last != tc.last || next != tc.next {
			t.Errorf("%+v at %d: last %d next %d, want %d and %d", tc.terms, tc.n, last, next, tc.last, tc.next)
		}
	}
}

// slowBoundaries is the oracle: the loop that the closed form replaces.
func slowBoundaries(t voucher.Terms, n voucher.Bytes) (last, next voucher.Bytes) {
	length := t.Interval
	for next <= n {
		last, next = next, next+length
		length += t.Increase
	}
	return last, next
}

func TestBoundariesAgainstLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tm := terms(1, voucher.Bytes(rapid.Uint64Range(1, 5000).Draw(t, "interval")), voucher.Bytes(rapid.Uint64Range(0, 3000).Draw(t, "increase")))
		n := voucher.Bytes(rapid.Uint64Range(0, 1<<21).Draw(t, "n"))
		last, next := slowBoundaries(tm, n)
		if LastBoundary(tm, n) != last || NextBoundary(tm, n) != next {
			t.Fatalf("%+v at %d: closed form %d, %d; loop %d, %d", tm, n, LastBoundary(tm, n), NextBoundary(tm, n), last, next)
		}
	})
}

// TestAccountTable pins the amounts of one deal at 2 attoFIL a byte, interval
// 10, increase 5, unsealing 7.
func TestAccountTable(t *testing.T) {
	tm := voucher.Terms{Unseal: voucher.Atto(7), Price: 2, Interval: 10, Increase: 5}
	for _, tc := range []struct {
		moved  voucher.Bytes
		paid   uint64
		credit voucher.Bytes
		ended  bool
		limit  voucher.Bytes
		due    uint64
	}{
		{0, 0, 0, false, 0, 7},            // unsealing comes first
		{0, 6, 0, false, 0, 1},            //
		{0, 7, 0, false, 10, 0},           // and buys the first interval
		{9, 7, 0, false, 10, 0},           //
		{10, 7, 0, false, 10, 20},         // exactly reaching the limit stops
		{13, 7, 0, false, 10, 20},         // the overshoot falls due later
		{13, 26, 0, false, 10, 1},         // one attoFIL short keeps it stopped
		{13, 27, 0, false, 25, 0},         //
		{13, 33, 0, false, 25, 0},         // paid for the overshoot too
		{13, 57, 0, false, 45, 0},         // paid exactly to the second boundary: the third is the limit
		{13, 7, 4, false, 14, 0},          // credit
		{14, 7, 4, false, 14, 20},         //
		{13, 7, 0, true, 10, 26},          // at the end every byte is due
		{13, 33, 0, true, 25, 0},          //
		{13, 1000, 0, true, 520, 0},       // overpaid: (1000-7)/2 = 496 bytes
		{0, 7, 0, true, 10, 0},            // nothing moved
		{10, 27, 100, false, 125, 0},      //
		{125, 27, 100, false, 125, 180},   // to 100: B is 10 25 45 70 100 135
		{124, 27, 100, false, 125, 0},     //
		{200, 27, 100, false, 125, 330},   // 175
		{200, 27, 100, true, 125, 380},    //
		{200, 27 + 330, 0, false, 220, 0}, // 175 paid: the limit is the next, 220
	} {
		a := Account{Terms: tm, Credit: tc.credit, Moved: tc.moved, Paid: voucher.Atto(tc.paid), Ended: tc.ended}
		if a.Limit() != tc.limit || a.Due() != voucher.Atto(tc.due) {
			t.Errorf("%+v: limit %d due %s, want %d and %d", a, a.Limit(), a.Due(), tc.limit, tc.due)
		}
	}
}

func TestFreeDeal(t *testing.T) {
	a := Account{}.Move(1 << 40)
	if a.Limit() != voucher.MaxBytes || !a.Due().IsZero() {
		t.Errorf("free: limit %d due %s", a.Limit(), a.Due())
	}
	if v := a.Verdict(); v.Settle {
		t.Error("a free deal must not be held open for a payment")
	}
	unsealOnly := Account{Terms: voucher.Terms{Unseal: voucher.Atto(5)}}
	if unsealOnly.Limit() != 0 || unsealOnly.Due() != voucher.Atto(5) {
		t.Errorf("unseal only: limit %d due %s", unsealOnly.Limit(), unsealOnly.Due())
	}
	if got := unsealOnly.Pay(voucher.Atto(5)).Limit(); got != voucher.MaxBytes {
		t.Errorf("unseal paid: limit %d", got)
	}
}

func drawTerms(t *rapid.T) voucher.Terms {
	tm := voucher.Terms{
		Price:    voucher.Price(rapid.Uint64Range(0, 1<<40).Draw(t, "price")),
		Interval: voucher.Bytes(rapid.Uint64Range(1, 1<<21).Draw(t, "interval")),
		Increase: voucher.Bytes(rapid.Uint64Range(0, 1<<21).Draw(t, "increase")),
	}
	if rapid.Bool().Draw(t, "sealed") {
		tm.Unseal = voucher.Atto(rapid.Uint64Range(0, 1<<50).Draw(t, "unseal"))
	}
	return tm
}

func drawAccount(t *rapid.T) Account {
	a := Account{Terms: drawTerms(t), Credit: voucher.Bytes(rapid.Uint64Range(0, 1<<21).Draw(t, "credit"))}
	a.Moved = voucher.Bytes(rapid.Uint64Range(0, 1<<24).Draw(t, "moved"))
	switch rapid.IntRange(0, 3).Draw(t, "paid kind") {
	case 0: // about what the bytes cost
		a.Paid = a.Terms.Cost(a.Moved.Add(voucher.Bytes(rapid.Uint64Range(0, 3).Draw(t, "near"))).Sub(1))
	case 1: // a boundary, give or take one attoFIL
		b := Boundary(a.Terms, rapid.Uint64Range(0, 9).Draw(t, "k"))
		a.Paid = a.Terms.Cost(b).Add(voucher.Atto(rapid.Uint64Range(0, 2).Draw(t, "edge"))).Sub(voucher.Atto(1))
	case 2:
		a.Paid = voucher.Atto(rapid.Uint64().Draw(t, "any"))
	}
	a.Ended = rapid.IntRange(0, 3).Draw(t, "ended") == 0
	return a
}

// TestLaws checks, account by account, what must hold whatever came before.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAccount(t)
		due := a.Due()
		stopped := !a.Ended && a.Moved >= a.Limit()
		if !a.Ended && stopped == due.IsZero() {
			t.Fatalf("stopped %v with %s due: %+v", stopped, due, a)
		}
		after := a.Pay(a.Paid.Add(due))
		if !after.Due().IsZero() {
			t.Fatalf("paying %s leaves %s due: %+v", due, after.Due(), a)
		}
		if !a.Ended && after.Moved >= after.Limit() {
			t.Fatalf("paying what is due does not resume: %+v", a)
		}
		if !due.IsZero() && !a.Ended && a.Credit == 0 {
			short := a.Pay(a.Paid.Add(due).Sub(voucher.Atto(1)))
			if short.Moved < short.Limit() {
				t.Fatalf("one attoFIL short resumes: %+v", a)
			}
		}
		more := a.Pay(a.Paid.Add(voucher.Atto(rapid.Uint64().Draw(t, "more"))))
		if more.Limit() < a.Limit() || a.Move(a.Moved+1).Limit() != a.Limit() {
			t.Fatalf("the limit fell: %+v", a)
		}
		if a.Pay(voucher.Amount{}) != a || a.Pay(a.Paid) != a || a.Move(0) != a {
			t.Fatalf("old news changed the account: %+v", a)
		}
		if a.Terms.Cost(a.Moved).Less(due.Add(a.Paid)) && !due.IsZero() && !a.Paid.Less(a.Terms.Unseal) {
			t.Fatalf("more is due than the bytes cost: %+v", a)
		}
	})
}

// TestPaymentsCommute: the same payments in any order, any of them twice,
// leave the same account.
func TestPaymentsCommute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAccount(t)
		pays := rapid.SliceOfN(rapid.Uint64(), 1, 12).Draw(t, "payments")
		want, got := a, a
		for _, p := range pays {
			want = want.Pay(voucher.Atto(p))
		}
		shuffled := rapid.Permutation(append(pays, pays...)).Draw(t, "order")
		for _, p := range shuffled {
			got = got.Pay(voucher.Atto(p))
		}
		if got != want {
			t.Fatalf("order matters: %+v and %+v", got, want)
		}
	})
}

func BenchmarkVerdict(b *testing.B) {
	a := Account{Terms: voucher.Terms{Price: 7, Interval: mib, Increase: 4096}, Moved: 300 * mib, Paid: voucher.Atto(7 << 28)}
	p := Purse{Budget: voucher.OneFIL, AtRisk: 32 * mib, Window: 16 * mib, Expected: 1 << 40}
	b.ReportAllocs()
	for b.Loop() {
		_ = a.Verdict()
		_ = a.Due()
		_, _ = p.Next(a)
	}
}
