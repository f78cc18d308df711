package retrievalmarket

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

func drawEvent(t *rapid.T) event {
	n := voucher.Bytes(rapid.Uint64Range(0, 1000).Draw(t, "n"))
	return [...]event{
		accepted{}, moved{n}, paid{voucher.Atto(uint64(n))}, unsealed{}, ended{n}, closed{}, failed{voucher.DealStatusErrored, "why"},
	}[rapid.IntRange(0, 6).Draw(t, "event")]
}

func drawDeal(t *rapid.T) Deal {
	d := Deal{Phase: Phase(rapid.IntRange(int(Proposed), int(Failed)).Draw(t, "phase")), Ready: rapid.Bool().Draw(t, "ready")}
	d.Account = revalidator.Account{Terms: voucher.Terms{Price: 1, Interval: 100, Unseal: voucher.Atto(rapid.Uint64Range(0, 1).Draw(t, "unseal") * 50)}}
	d.Account.Moved = voucher.Bytes(rapid.Uint64Range(0, 1000).Draw(t, "moved"))
	d.Account.Paid = voucher.Atto(rapid.Uint64Range(0, 1000).Draw(t, "paid"))
	d.Account.Ended = d.Phase >= Settling
	return d
}

// TestStepLaws: every event is legal in every phase, a phase is never left
// backwards, final ones never, saying a thing twice says it once, and no money
// or byte is ever taken back.
func TestStepLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, ev := drawDeal(t), drawEvent(t)
		after := d.step(ev)
		switch {
		case d.Phase.Final() && after != d:
			t.Fatalf("%+v left its final phase by %T", d, ev)
		case after.Phase < d.Phase:
			t.Fatalf("%+v went back by %T", d, ev)
		case after.Account.Paid.Less(d.Account.Paid), after.Account.Moved < d.Account.Moved:
			t.Fatalf("%+v lost something by %T: %+v", d, ev, after)
		case after.step(ev) != after:
			t.Fatalf("%T twice differs: %+v and %+v", ev, after, after.step(ev))
		case after.Phase == Completed && d.Phase != Completed && !after.settled():
			t.Fatalf("%+v completed unsettled by %T", d, ev)
		}
	})
}

// TestStepsCommute: progress and payments may arrive in any order.
func TestStepsCommute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDeal(t)
		n := rapid.SliceOfN(rapid.Uint64Range(0, 1000), 2, 8).Draw(t, "numbers")
		var events []event
		for i, v := range n {
			if i%2 == 0 {
				events = append(events, moved{voucher.Bytes(v)})
			} else {
				events = append(events, paid{voucher.Atto(v)})
			}
		}
		run := func(events []event) Deal {
			r := d
			for _, ev := range events {
				r = r.step(ev)
			}
			return r
		}
		if a, b := run(events), run(rapid.Permutation(append(events, events...)).Draw(t, "order")); a != b {
			t.Fatalf("%+v and %+v", a, b)
		}
	})
}

// TestStatus has a row for each line of the truth table.
func TestStatus(t *testing.T) {
	tm := voucher.Terms{Unseal: voucher.Atto(5), Price: 1, Interval: 10}
	acc := func(movedBytes voucher.Bytes, paidAtto uint64, end bool) revalidator.Account {
		return revalidator.Account{Terms: tm, Moved: movedBytes, Paid: voucher.Atto(paidAtto), Ended: end}
	}
	for _, tc := range []struct {
		d    Deal
		want voucher.DealStatus
	}{
		{Deal{Phase: Failed, End: voucher.DealStatusCancelled}, voucher.DealStatusCancelled},
		{Deal{Phase: Completed}, voucher.DealStatusCompleted},
		{Deal{Phase: Proposed, Account: acc(0, 0, false)}, voucher.DealStatusNew},
		{Deal{Phase: Moving, Account: acc(0, 4, false)}, voucher.DealStatusFundsNeededUnseal},
		{Deal{Phase: Moving, Account: acc(0, 5, false)}, voucher.DealStatusUnsealing},
		{Deal{Phase: Moving, Ready: true, Account: acc(0, 5, false)}, voucher.DealStatusOngoing},
		{Deal{Phase: Moving, Ready: true, Account: acc(10, 5, false)}, voucher.DealStatusFundsNeeded},
		{Deal{Phase: Settling, Ready: true, Account: acc(7, 5, true)}, voucher.DealStatusFundsNeededLastPayment},
		{Deal{Phase: Settling, Ready: true, Account: acc(7, 12, true)}, voucher.DealStatusFinalizing},
	} {
		if got := tc.d.status(); got != tc.want {
			t.Errorf("%+v is %s, want %s", tc.d, got, tc.want)
		}
	}
	if v := (Deal{Phase: Moving, Account: acc(0, 5, false)}).verdict(); v.Limit != 0 {
		t.Errorf("a piece that is not unsealed is served up to %d", v.Limit)
	}
}
