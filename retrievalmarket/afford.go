package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// openLane sets up the payments of a new deal.
func (c *Client) openLane(ctx context.Context, rec *record, payTo address.Address) error {
	switch {
	case c.cfg.Node == nil:
		return fmt.Errorf("%w: this client has no wallet", ErrBudget)
	case payTo == address.Undef:
		return errors.New("the provider does not say whom to pay")
	}
	channel, err := c.cfg.Node.GetOrCreatePaymentChannel(ctx, c.cfg.Wallet, payTo, rec.money())
	if err != nil {
		return fmt.Errorf("payment channel to %s: %w", payTo, err)
	}
	lane, err := c.cfg.Node.AllocateLane(ctx, channel, rec.money())
	if err != nil {
		return fmt.Errorf("lane on %s: %w", channel, err)
	}
	if rules, ok := c.cfg.Node.(policy); ok {
		if err := rules.JoinOrder(ctx, channel, lane, uint64(rec.order())); err != nil {
			return err
		}
	}
	rec.Channel, rec.Lane = channel.String(), lane
	return nil
}

// affordable checks a provider's answer and returns how many bytes the deal is
// expected to move: what is quoted less what is held; 0 if it is not known. spent
// is what is gone of the budget.
func affordable(r Request, q QueryResponse, held Bytes, spent Amount) (Bytes, error) {
	switch {
	case q.Status == voucher.QueryResponseUnavailable, q.SelectorFound != nil && *q.SelectorFound == voucher.QueryItemUnavailable:
		return 0, fmt.Errorf("%w: %s", ErrNotFound, q.Message)
	case q.Status != voucher.QueryResponseAvailable:
		return 0, fmt.Errorf("the provider cannot answer: %s", q.Message)
	case r.MaxPrice != nil && q.MinPricePerByte > *r.MaxPrice:
		return 0, fmt.Errorf("%w: %s per GiB asked, at most %s allowed", ErrPrice, q.MinPricePerByte.PerGiB().FIL(), r.MaxPrice.PerGiB().FIL())
	}
	if err := q.Ask().Validate(); err != nil {
		return 0, fmt.Errorf("the provider's ask is not usable: %w", err)
	}
	expected := Bytes(0)
	if q.ExpectedPayloadSize != nil {
		expected = q.ExpectedPayloadSize.Sub(held)
	}
	need := q.Ask().Terms().Cost(expected)
	if !q.Ask().Terms().Free() && expected == 0 {
		need = need.Max(voucher.Atto(1)) // something will be due
	}
	if r.Budget.Sub(spent).Less(need) {
		return 0, fmt.Errorf("%w: %s needed (%d bytes at %s per GiB, unsealing %s), the budget is %s%s",
			ErrBudget, need.FIL(), expected, q.MinPricePerByte.PerGiB().FIL(), q.UnsealPrice.FIL(), r.Budget.FIL(), spentText(spent))
	}
	if q.CreditLine != nil && !need.IsZero() && q.CreditLine.IsZero() {
		return 0, fmt.Errorf("%w: it grants unknown payers none; ask its operator for a credit line (serve --credit)", ErrNoCredit)
	}
	return expected, nil
}

// spentText says what is gone of a budget.
func spentText(spent Amount) string {
	if spent.IsZero() {
		return "; nothing was fetched or paid"
	}
	return fmt.Sprintf(", of which %s are spent: for the same, in deals that did not bring all of it", spent.FIL())
}

// atRisk is how many bytes a deal may be paid ahead.
func atRisk(r Request, terms voucher.Terms, budget Amount) Bytes {
	if r.AtRisk != nil {
		return *r.AtRisk
	}
	if terms.Price == 0 {
		return 0
	}
	return min(DefaultAtRisk, terms.Price.Buys(budget)/100)
}

const (
	// patientAck is how long a payment may take, its commits on both sides and
	// the way there and back, for larger steps to be safe.
	patientAck = 20 * time.Millisecond
	// runsAhead is more than a provider has on the way to the client while it
	// waits for such a payment.
	runsAhead = Bytes(16 << 20)
)

// window is how much must be left before the limit for the client not to pay
// yet, given what it risks and how long its payments take. The rest of the risk
// is the step by which it pays: a payment costs the same whatever its size, so
// where payments are quick the step is large.
func window(risk Bytes, took time.Duration) Bytes {
	far := risk - risk/8
	if took < patientAck {
		return max(risk/2, min(far, runsAhead))
	}
	return far
}

// newPurse is how far the deal goes with its money.
func (d *clientDeal) newPurse() revalidator.Purse {
	risk := Bytes(d.rec.AtRisk)
	return revalidator.Purse{Budget: d.rec.money(), AtRisk: risk, Window: window(risk, patientAck), Expected: Bytes(d.rec.Expected)}
}
