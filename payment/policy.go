package payment

import (
	"errors"
	"fmt"
	"time"

	"github.com/tollgraph/tollgraph/voucher"
)

// Policy is what a wallet may spend. A zero amount is no limit.
type Policy struct {
	PerDeal           voucher.Amount `json:",omitzero"` // for one order: on all lanes that JoinOrder says are of it, or on one that is of none
	PerProviderPerDay voucher.Amount `json:",omitzero"` // to one payee on one day (UTC)
	PerDay            voucher.Amount `json:",omitzero"` // to anyone on one day (UTC)
	Total             voucher.Amount `json:",omitzero"` // to anyone, for ever
}

// A Rule names the limit that forbade a payment.
type Rule string

// The rules, in the order in which they are looked at.
const (
	RuleLane              Rule = "budget of the deal"
	RulePerDeal           Rule = "policy per deal"
	RulePerProviderPerDay Rule = "policy per provider and day"
	RulePerDay            Rule = "policy per day"
	RuleTotal             Rule = "policy in total"
)

// ErrBudget is what errors.Is finds in every BudgetError.
var ErrBudget = errors.New("over budget")

// BudgetError says that a payment was not signed because of a limit that the
// client's own side set.
type BudgetError struct {
	Rule   Rule
	Limit  voucher.Amount
	Would  voucher.Amount // what the payment would have made of that which Rule limits
	Amount voucher.Amount // what was asked for: the lane's total
	Day    time.Time      // of a rule per day: the day (UTC) that it is counted on
}

func (e *BudgetError) Error() string {
	day := ""
	if !e.Day.IsZero() {
		day = e.Day.Format(" on 2006-01-02")
	}
	return fmt.Sprintf("%s is %s and this would make it %s%s: raise the limit or spend less: %v",
		e.Rule, e.Limit.FIL(), e.Would.FIL(), day, ErrBudget)
}

// Is makes errors.Is(err, ErrBudget) true.
func (e *BudgetError) Is(target error) bool { return target == ErrBudget }

// tighter returns the policy that holds when p and q both do.
func (p Policy) tighter(q Policy) Policy {
	return Policy{
		PerDeal:           tighter(p.PerDeal, q.PerDeal),
		PerProviderPerDay: tighter(p.PerProviderPerDay, q.PerProviderPerDay),
		PerDay:            tighter(p.PerDay, q.PerDay),
		Total:             tighter(p.Total, q.Total),
	}
}

func tighter(a, b voucher.Amount) voucher.Amount {
	if a.IsZero() || b.IsZero() {
		return a.Max(b)
	}
	return a.Min(b)
}

// spent is what a policy is compared with: what was signed before.
type spent struct {
	day      int64          // since 1970, UTC
	order    voucher.Amount // for the same order, on other lanes
	provider voucher.Amount // to the provider in question on day
	today    voucher.Amount // to anyone on day
	ever     voucher.Amount
}

// check returns the *BudgetError of the first rule that forbids a lane to be
// worth amount when that means to spend more on top of s, or nil.
func (p Policy) check(s spent, amount, more voucher.Amount) error {
	date := time.Unix(s.day*secondsPerDay, 0).UTC()
	for _, r := range []struct {
		rule         Rule
		limit, would voucher.Amount
		day          time.Time
	}{
		{RulePerDeal, p.PerDeal, s.order.Add(amount), time.Time{}},
		{RulePerProviderPerDay, p.PerProviderPerDay, s.provider.Add(more), date},
		{RulePerDay, p.PerDay, s.today.Add(more), date},
		{RuleTotal, p.Total, s.ever.Add(more), time.Time{}},
	} {
		if !r.limit.IsZero() && r.limit.Less(r.would) {
			return &BudgetError{Rule: r.rule, Limit: r.limit, Would: r.would, Amount: amount, Day: r.day}
		}
	}
	return nil
}

const secondsPerDay = 24 * 60 * 60

// dayOf returns the day (UTC) that t is on, counted from 1970; never negative.
func dayOf(t time.Time) int64 { return max(0, t.Unix()) / secondsPerDay }
