package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// DefaultAtRisk is how many bytes a client pays ahead of what it holds
// verified, unless that is more than a hundredth of the budget.
const DefaultAtRisk = Bytes(32 << 20)

// maxLocalLinks bounds the walk that finds out what is held already.
const maxLocalLinks = 1 << 28

// Request is one retrieval.
type Request struct {
	Provider RetrievalPeer  // required
	Root     cid.Cid        // required
	Selector datamodel.Node // nil for the whole DAG
	PieceCID *cid.Cid       // nil for any piece

	// Budget is the most that Root and Selector may cost, over all deals that
	// they take until everything is here. The zero Budget buys nothing that is
	// not free.
	Budget Amount
	// MaxPrice, if set, is the highest price per byte.
	MaxPrice *Price
	// AtRisk is how many bytes may be paid ahead of what is verified: nil for
	// the default, 0 to pay strictly after receipt.
	AtRisk *Bytes
	// Ask, if set, is proposed without asking the provider first. What is
	// bought is then not known in advance, and is paid strictly after receipt
	// unless Expected says how large it is.
	Ask      *voucher.Ask
	Expected Bytes
	// Output is a note about where the result goes, kept with the deal.
	Output string

	part cid.Cid        // if defined, Root is below this one, whose store the blocks go to
	want datamodel.Node // what was selected below part
}

// The reasons for which Retrieve refuses to begin.
var (
	// ErrPrice means that the provider asks more than Request.MaxPrice.
	ErrPrice = errors.New("price above the maximum")
	// ErrBudget means that the budget does not cover the selection.
	ErrBudget = errors.New("budget too small")
	// ErrBusy means that another deal on the same root is running.
	ErrBusy = errors.New("another retrieval of this root is running")
	// ErrNotFound means that the provider does not have what is asked for.
	ErrNotFound = errors.New("not found at the provider")
	// ErrNoCredit means that the provider does not lend enough on account.
	ErrNoCredit = errors.New("no credit at the provider")
	// ErrSuspended means that a deal stopped without ending: retrieve the same
	// again to go on.
	ErrSuspended = errors.New("incomplete")

	// errNoAnswer means that a provider that could be reached did not answer.
	errNoAnswer = errors.New("the provider did not answer")
	// errCancelled is how a deal ends that its user cancelled.
	errCancelled = errors.New("client cancelled")
)

// Retrieve begins to buy, and returns when the first deal is on record and
// running. It is idempotent: the same root and selection joins the retrieval that
// runs, or continues the one on disk. What is held already is neither fetched nor
// paid again: where it is scattered over the selection, the gaps are bought in
// several deals, one after the other. When a provider cannot take up a deal where
// it stood, a new one goes on for what is left of the budget. Wait tells the
// outcome.
//
// Gaps are found in a whole DAG, in all below a path, and in a file or a range of
// its bytes; of any other selection only what comes first is known not to be
// needed. Bought again is what nobody can know of: a block below a gap that is
// held because it occurs elsewhere too.
func (c *Client) Retrieve(ctx context.Context, r Request) (DealID, error) {
	if err := selectors.Check(r.Selector, selectors.Limits{}); err != nil {
		return 0, fmt.Errorf("retrieve %s: %w", r.Root, err)
	}
	for {
		if err := c.untilLeft(ctx, r.Root); err != nil {
			return 0, err
		}
		v, mine, err := c.claim(r)
		if err != nil {
			return 0, err
		}
		if mine {
			id, err := v.begin(ctx)
			if err != nil {
				err = fmt.Errorf("retrieve %s: %w", r.Root, err)
			}
			return id, err
		}
		select {
		case <-v.begun:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		c.mu.Lock()
		id := v.last
		c.mu.Unlock()
		if id != 0 { // else it could not begin, and its root is free
			return id, nil
		}
	}
}

// Get is Retrieve and Wait.
func (c *Client) Get(ctx context.Context, r Request) (ClientDealState, error) {
	id, err := c.Retrieve(ctx, r)
	if err != nil {
		return ClientDealState{}, err
	}
	return c.Wait(ctx, id)
}

// Wait returns when the retrieval that a deal is part of has completed (nil): all of
// it is here and the provider says that it has the money; or when it failed, or was
// suspended (ErrSuspended), with the state of its last deal and the
// sums of all; or with ctx, and the state until then. For a retrieval of an
// earlier run it is the state of the deal.
func (c *Client) Wait(ctx context.Context, id DealID) (ClientDealState, error) {
	c.mu.Lock()
	v := c.runs[id]
	c.mu.Unlock()
	if v == nil {
		s, err := c.RetrievalStatus(ctx, id)
		if err == nil {
			s.Err = outcome(s)
			err = s.Err
		}
		return s, err
	}
	select {
	case <-v.full:
		s := v.state()
		return s, s.Err
	case <-v.over:
		s := v.state()
		return s, s.Err
	case <-ctx.Done():
		return v.state(), ctx.Err()
	}
}

func (c *Client) release(root cid.Cid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.roots, root)
}

// refit gives a continued deal the budget and risk of the new request. What
// the record does not know yet of payments, the lane does: its last voucher.
func (d *clientDeal) refit(ctx context.Context, r Request) error {
	terms := d.proposal.Params.Terms()
	if !terms.Free() {
		if d.rec.Budget.Less(r.Budget) {
			d.rec.Budget = r.Budget
			if err := d.c.cfg.Node.SetLaneBudget(ctx, d.channel, d.rec.Lane, d.rec.money()); err != nil {
				return err
			}
		}
		if !d.rec.Paid.IsZero() || d.rec.Payments > 0 || d.c.everPaid(d.rec) {
			v, err := d.c.cfg.Node.CreatePaymentVoucher(ctx, d.channel, d.rec.Paid, d.rec.Lane)
			if err == nil {
				if last, err := voucher.AmountFromBig(v.Amount.Int); err == nil {
					d.deal = d.deal.step(paid{last})
				}
				d.courier.keep(payFrame{id: d.id, payment: &voucher.DealPayment{ID: d.id, PaymentChannel: d.channel, PaymentVoucher: v}})
			}
		}
	}
	d.rec.AtRisk = uint64(atRisk(r, terms, d.rec.money()))
	d.purse = d.newPurse()
	return nil
}

// everPaid reports whether the lane of a record may carry more than the record
// says: the voucher is durable before the record is, and before it even says that
// the provider accepted.
func (c *Client) everPaid(r record) bool { return r.Channel != "" }

// propose asks the provider, checks its answer against r, sets up payment and
// records the deal, of which of says to which order it belongs.
func (c *Client) propose(ctx context.Context, r Request, store Store, held Bytes, of record) (*clientDeal, error) {
	q, expected, err := c.quote(ctx, r, held, of.Before)
	if err != nil {
		return nil, err
	}
	if _, err := store.Sync(); err != nil { // the deal's bytes begin behind what is durable
		return nil, err
	}
	terms, risk := q.Ask().Terms(), atRisk(r, q.Ask().Terms(), r.Budget.Sub(of.Before))
	c.know(ctx, r, terms, expected, risk)
	if err := c.carrierFor(r.Provider.ID).carriable(r.Provider.ID, terms, expected, risk); err != nil {
		return nil, fmt.Errorf("%w; nothing was fetched or paid", err)
	}
	lacks, known := c.lacksStream(r.Provider.ID)
	proposal := voucher.DealProposal{PayloadCID: r.Root, ID: c.nextID(), Params: Params{
		Selector: r.Selector, PieceCID: r.PieceCID, PricePerByte: terms.Price, UnsealPrice: terms.Unseal,
		PaymentInterval: terms.Interval, PaymentIntervalIncrease: terms.Increase,
	}}
	if r.Selector == nil {
		proposal.Params.Selector = selectors.All()
	}
	rec := record{
		V: recordVersion, Peer: r.Provider.ID.String(), ID: uint64(proposal.ID), Phase: Proposed, Created: time.Now().UTC(),
		Order: of.Order, Before: of.Before, Budget: r.Budget, AtRisk: uint64(risk),
		Expected: uint64(expected), Start: store.Written(), Output: r.Output, PayTo: addressText(q.PaymentAddress), Streamed: known && !lacks,
	}
	if !terms.Free() {
		if err := c.openLane(ctx, &rec, q.PaymentAddress); err != nil {
			return nil, err
		}
	}
	if err := c.supersede(ctx, r.whole()); err != nil {
		return nil, err
	}
	return c.make(ctx, rec, proposal, r, store)
}

// quote asks the provider and returns its answer and what is expected to move,
// or why no deal is to be made: its price, the budget, or the wallet's rules.
func (c *Client) quote(ctx context.Context, r Request, held Bytes, spent Amount) (QueryResponse, Bytes, error) {
	if err := c.dialOnly(ctx, r.Provider.AddrInfo); err != nil {
		return QueryResponse{}, 0, err
	}
	q, err := c.askFor(ctx, r)
	if err != nil {
		return q, 0, err
	}
	expected, err := affordable(r, q, held, spent)
	if err != nil {
		return q, expected, err
	}
	if err := c.permitted(ctx, q, expected, spent); err != nil {
		return q, expected, fmt.Errorf("%w; nothing was fetched or paid", err)
	}
	return q, expected, nil
}

// askFor asks the provider what it has and charges, unless r says it.
func (c *Client) askFor(ctx context.Context, r Request) (QueryResponse, error) {
	if r.Ask == nil {
		q, err := askPeer(ctx, c.cfg.Host, r.Provider.ID, Query{PayloadCID: r.Root, QueryParams: QueryParams{PieceCID: r.PieceCID, Selector: r.Selector}})
		if err != nil {
			err = fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		return q, err
	}
	q := QueryResponse{PaymentAddress: r.Provider.Address}
	q.MinPricePerByte, q.UnsealPrice = r.Ask.PricePerByte, r.Ask.UnsealPrice
	q.MaxPaymentInterval, q.MaxPaymentIntervalIncrease = r.Ask.PaymentInterval, r.Ask.PaymentIntervalIncrease
	if r.Expected != 0 {
		q.ExpectedPayloadSize = &r.Expected
	}
	return q, nil
}

// make records a new deal.
func (c *Client) make(ctx context.Context, rec record, proposal voucher.DealProposal, r Request, store Store) (*clientDeal, error) {
	encoded, err := encodeProposal(proposal)
	if err != nil {
		return nil, err
	}
	rec.Proposal, rec.Ready = encoded, true
	for _, a := range r.Provider.Addrs {
		rec.Addrs = append(rec.Addrs, a.String())
	}
	if rec.Order == 0 {
		rec.Order = rec.ID
	}
	if r.part.Defined() {
		rec.Whole = r.part.String()
		if err := rec.setWant(r.want); err != nil {
			return nil, err
		}
	}
	d, err := newClientDeal(c, rec, proposal, r.Provider, store)
	if err != nil {
		return nil, err
	}
	return d, c.book.put(ctx, d.whole.String(), &d.rec)
}
