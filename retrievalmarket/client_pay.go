package retrievalmarket

import (
	"context"
	"errors"
	"fmt"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// pay signs and sends what the purse says. Blocks are durable before they are
// paid for, and the voucher is before it leaves.
func (d *clientDeal) pay(ctx context.Context) error {
	a := d.deal.Account
	if a.Terms.Free() || d.deal.Phase == Proposed {
		return nil // nothing is paid before the provider has accepted
	}
	if _, wanted := d.wants(a.Move(d.seen)); !wanted {
		return nil
	}
	if d.deal.Account.Moved < d.seen {
		if d.sync(); d.err != nil {
			return nil
		}
	}
	amount, wanted := d.wants(d.deal.Account)
	if !wanted {
		return nil
	}
	v, err := d.c.cfg.Node.CreatePaymentVoucher(ctx, d.channel, amount, d.rec.Lane)
	if err != nil {
		return err
	}
	signed, err := voucher.AmountFromBig(v.Amount.Int)
	if err != nil {
		return err
	}
	d.c.log.Debug("pay", "id", d.id, "durable", d.deal.Account.Moved, "seen", d.seen, "limit", d.deal.Account.Limit(), "amount", signed)
	d.parked, d.payAll, d.asked = "", false, false
	d.rec.Payments++
	d.deal = d.deal.step(paid{signed})
	d.doneSaid = d.deal.Account.Ended
	d.courier.send(payFrame{id: d.id, payment: &voucher.DealPayment{ID: d.id, PaymentChannel: d.channel, PaymentVoucher: v}, done: d.doneSaid})
	return nil
}

// sayDone tells the provider, after the last payment, that everything is here,
// and so asks for its agreement.
func (d *clientDeal) sayDone() {
	a := d.deal.Account
	if d.doneSaid || !a.Ended || !a.Due().IsZero() || a.Terms.Free() || a.Paid.IsZero() {
		return
	}
	d.doneSaid = true
	d.courier.send(payFrame{id: d.id, done: true})
}

// wants is the purse's answer, or everything that is held if the provider
// stands still. The last byte is not paid ahead where payments ride along: a
// provider that has sent and been paid everything closes such a deal, and what was
// lost on the way would have to be bought again.
func (d *clientDeal) wants(a revalidator.Account) (Amount, bool) {
	purse := d.purse
	if d.courier.vouchers() {
		purse.Expected = purse.Expected.Sub(1)
	}
	amount, ok := purse.Next(a)
	if d.payAll && !a.Ended {
		all := a.Terms.Cost(a.Moved).Min(d.purse.Ceiling(a))
		amount, ok = amount.Max(all), ok || a.Paid.Less(all)
	}
	return amount, ok
}

// park notes that money is missing. The deal goes on with AddMoreFunds.
func (d *clientDeal) park(err error) {
	if errors.Is(err, context.Canceled) || d.parked != "" {
		return
	}
	d.parked = err.Error()
	d.publishState()
	d.publish(ClientEventFundsExpended)
}

// short reports, and parks the deal, when what is due exceeds the budget.
func (d *clientDeal) short() bool {
	a := d.deal.Account.Move(d.seen)
	missing := d.purse.Short(a)
	if missing.IsZero() {
		return false
	}
	d.park(fmt.Errorf("%w: %s more is needed to go on", ErrBudget, missing.FIL()))
	return true
}

// close ends the deal when nothing is left to wait for.
func (d *clientDeal) close() {
	a := d.deal.Account
	if !a.Ended || !a.Due().IsZero() {
		return
	}
	switch {
	case a.Terms.Free() || a.Paid.IsZero():
		d.deal = d.deal.step(closed{})
	case d.acked.Less(a.Paid):
	case d.courier.settled():
		d.deal = d.deal.step(closed{})
	default:
		d.receive()
	}
}
