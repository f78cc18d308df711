package payment

import (
	"context"
	"fmt"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// ever is the day on which payment_spent counts all days.
const ever = -1

// anyone is the payee to whom payment_spent counts all payees.
var anyone = []byte{}

// SetPolicy stores p, which holds from the next signature on, together with the
// policy in the WalletConfig: of each rule the tighter one counts. It also
// accepts the clock as it is now, if that was stepped back (see Policy).
func (w *Wallet) SetPolicy(ctx context.Context, p Policy) error {
	err := w.ledger.do(ctx, func(t *tx) error {
		t.exec(`UPDATE payment_policy SET deal = ?, provider = ?, day = ?, total = ?, today = ?`,
			amountColumn(p.PerDeal), amountColumn(p.PerProviderPerDay), amountColumn(p.PerDay), amountColumn(p.Total),
			dayOf(w.now()))
		return nil
	})
	if err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	return nil
}

// Policy returns what holds: of each rule the tighter one of the stored policy
// and the one in the WalletConfig. A clock that is stepped back does not open
// a fresh day: money is counted on the latest day that any was counted on until
// the clock is past it or SetPolicy is called.
func (w *Wallet) Policy(ctx context.Context) (Policy, error) {
	var p Policy
	err := w.ledger.read(ctx, func(t *tx) error {
		p, _ = w.policy(t)
		return nil
	})
	return p, err
}

// Check returns the *BudgetError that would meet a deal for which amount is paid
// to provider now, after spent was paid by other deals of its order, or nil. It
// reserves nothing.
func (w *Wallet) Check(ctx context.Context, provider address.Address, spent, amount voucher.Amount) error {
	return w.ledger.read(ctx, func(t *tx) error {
		p, day := w.policy(t)
		before := t.spent(day, provider)
		before.order = spent
		return p.check(before, amount, amount)
	})
}

// policy returns the policy that holds and the day to count on.
func (w *Wallet) policy(t *tx) (Policy, int64) {
	var p Policy
	var today int64
	t.row(`SELECT deal, provider, day, total, today FROM payment_policy`, nil,
		(*amountColumn)(&p.PerDeal), (*amountColumn)(&p.PerProviderPerDay), (*amountColumn)(&p.PerDay), (*amountColumn)(&p.Total),
		&today)
	return p.tighter(w.limits), max(today, dayOf(w.now()))
}

// spent returns what was spent up to day.
func (t *tx) spent(day int64, payee address.Address) spent {
	s := spent{day: day}
	const query = `SELECT amount FROM payment_spent WHERE day = ? AND payee = ?`
	t.row(query, []any{day, addressColumn(payee)}, (*amountColumn)(&s.provider))
	t.row(query, []any{day, anyone}, (*amountColumn)(&s.today))
	t.row(query, []any{ever, anyone}, (*amountColumn)(&s.ever))
	return s
}

// spend records that more was spent on top of s.
func (t *tx) spend(s spent, payee address.Address, more voucher.Amount) {
	t.exec(`INSERT INTO payment_spent VALUES (?, ?, ?), (?, ?, ?), (?, ?, ?)
		ON CONFLICT DO UPDATE SET amount = excluded.amount`,
		s.day, addressColumn(payee), amountColumn(s.provider.Add(more)),
		s.day, anyone, amountColumn(s.today.Add(more)),
		ever, anyone, amountColumn(s.ever.Add(more)))
	t.exec(`UPDATE payment_policy SET today = ?1 WHERE today < ?1`, s.day)
}
