package retrievalmarket

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/selectors"
)

// Estimate is what a Request would come to if it were made now.
type Estimate struct {
	Answer  QueryResponse // of the provider; zero if it need not be asked
	Deal    DealID        // the open deal that would go on; 0 if there is none
	Held    Bytes         // of the selection that are here already
	Bytes   Bytes         // to fetch; 0 if nothing, or if the provider does not say
	Cost    Amount        // of those, and of unsealing
	Deals   int           // how many it takes: more than one where what is held is scattered
	Spent   Amount        // of the budget, by earlier deals for the same
	Refusal error         // why Retrieve would refuse: as it would return it; nil if it would not
}

// policy is what a RetrievalClientNode may have besides, if it has rules of its
// own. payment.Wallet has.
type policy interface {
	// Check says whether an amount could be paid to a provider now, after spent
	// was paid by other deals of the same order.
	Check(ctx context.Context, provider address.Address, spent, amount Amount) error
	// JoinOrder says of which order a fresh lane is: rules for one purchase hold
	// over all its lanes.
	JoinOrder(ctx context.Context, channel address.Address, lane, order uint64) error
}

// Estimate looks at what Retrieve would do with r, and does nothing of it. The
// error says that this could not be found out: the provider is not reachable,
// or the root is being retrieved (ErrBusy).
func (c *Client) Estimate(ctx context.Context, r Request) (e Estimate, err error) {
	if err := selectors.Check(r.Selector, selectors.Limits{}); err != nil {
		return e, fmt.Errorf("estimate %s: %w", r.Root, err)
	}
	if err := c.keepRoot(ctx, r.Root); err != nil {
		return e, err
	}
	defer c.release(r.Root)
	store, err := c.cfg.Stores.Open(ctx, r.Root)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p, err := c.plan(ctx, r, store, false)
	if err != nil {
		return e, err
	}
	e.Held, e.Spent, e.Deals = p.held, p.spent, max(1, len(p.gaps))
	switch {
	case p.record != nil && p.record.Whole == "":
		return c.estimateRest(ctx, e, *p.record, Bytes(store.Written()))
	case p.record != nil:
		e.Deal = DealID(p.record.ID)
	case p.complete:
		e.Deals = 0
		return e, nil
	}
	return c.estimateNew(ctx, r, e)
}

// estimateRest is what a deal on record still has to do, on its own terms.
func (c *Client) estimateRest(ctx context.Context, e Estimate, rec record, written Bytes) (Estimate, error) {
	proposal, err := rec.proposal()
	if err != nil {
		return e, err
	}
	e.Deal, e.Spent = DealID(rec.ID), rec.Before
	e.Answer.MinPricePerByte, e.Answer.UnsealPrice = proposal.Params.PricePerByte, proposal.Params.UnsealPrice
	if e.Bytes = Bytes(rec.Expected).Sub(written.Sub(Bytes(rec.Start))); rec.Expected != 0 {
		e.Cost = proposal.Params.Terms().Cost(Bytes(rec.Expected)).Sub(c.paidOn(ctx, rec))
	}
	return e, nil
}

// estimateNew asks the provider, as propose does.
func (c *Client) estimateNew(ctx context.Context, r Request, e Estimate) (Estimate, error) {
	if err := c.dialOnly(ctx, r.Provider.AddrInfo); err != nil {
		return e, err
	}
	var err error
	if e.Answer, err = c.askFor(ctx, r); err != nil {
		return e, err
	}
	if e.Answer.ExpectedPayloadSize != nil {
		e.Bytes = e.Answer.ExpectedPayloadSize.Sub(e.Held)
	}
	e.Cost = e.Answer.Ask().Terms().Cost(e.Bytes)
	if _, e.Refusal = affordable(r, e.Answer, e.Held, e.Spent); e.Refusal == nil {
		e.Refusal = c.permitted(ctx, e.Answer, e.Bytes, e.Spent)
	}
	return e, nil
}

// permitted asks the node that pays whether its rules allow what is needed,
// so that nothing is begun that cannot be paid.
func (c *Client) permitted(ctx context.Context, q QueryResponse, expected Bytes, spent Amount) error {
	rules, ok := c.cfg.Node.(policy)
	if cost := q.Ask().Terms().Cost(expected); ok && !cost.IsZero() {
		return rules.Check(ctx, q.PaymentAddress, spent, cost)
	}
	return nil
}
