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

// runsAhead is more than a provider has queued for the client, in its own memory
// and in the system's, and the client for its store, beside what is on the way.
const runsAhead = Bytes(16 << 20)

// paceEvery is how long a rate is measured.
const paceEvery = 100 * time.Millisecond

// pace is how fast a deal moves, as its client sees it. It is a value.
type pace struct {
	rate  Bytes         // that arrive in a second; quick to rise and slow to fall
	trip  time.Duration // a payment's way there and back, the commits on both sides included; 0: not known
	since time.Time     // from when on bytes are counted for rate
	from  Bytes         // and behind which
}

// arrived takes in that seen bytes had arrived at now.
func (p pace) arrived(now time.Time, seen Bytes) pace {
	took := now.Sub(p.since)
	switch {
	case p.since.IsZero() || seen < p.from:
		p.since, p.from = now, seen
	case took >= paceEvery:
		rate := Bytes(float64(seen-p.from) / took.Seconds())
		p.rate = max(rate, p.rate-p.rate/4+rate/4)
		p.since, p.from = now, seen
	}
	return p
}

// answered takes in how long a payment took.
func (p pace) answered(took time.Duration) pace {
	if p.trip == 0 {
		p.trip = took
	}
	p.trip += (took - p.trip) / 4
	return p
}

// window is how much must be left before the limit for a client that risks so
// many bytes not to pay yet: what arrives while a payment is on its way, what is
// on the way itself, and what is queued at either end. The rest of the risk is
// the step by which it pays: a payment costs the same whatever its size, so where
// payments are quick the step is half of the risk, and never less than an eighth.
func (p pace) window(risk Bytes) Bytes {
	far := risk - risk/8
	if p.trip == 0 {
		return far
	}
	return max(risk/2, min(far, runsAhead.Add(p.under()).Add(p.under())))
}

// under is how much arrives while a payment is on its way there and back.
func (p pace) under() Bytes { return Bytes(min(float64(p.rate)*p.trip.Seconds(), 1<<61)) }

// newPurse is how far the deal goes with its money.
func (d *clientDeal) newPurse() revalidator.Purse {
	risk := Bytes(d.rec.AtRisk)
	return revalidator.Purse{Budget: d.rec.money(), AtRisk: risk, Window: d.pace.window(risk), Trip: d.pace.under(), Expected: Bytes(d.rec.Expected)}
}
