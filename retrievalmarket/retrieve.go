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

	// Budget is the most that the deal may cost. The zero Budget buys nothing
	// that is not free.
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

	part cid.Cid // if defined, Root is below this one, whose store the blocks go to
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
)

// Retrieve begins to buy, and returns when the deal is on record and running.
// It is idempotent: the same root and selection joins the deal that runs, or
// continues the one on disk; what is held already is neither fetched nor paid
// again. Wait tells the outcome.
func (c *Client) Retrieve(ctx context.Context, r Request) (DealID, error) {
	if err := selectors.Check(r.Selector, selectors.Limits{}); err != nil {
		return 0, fmt.Errorf("retrieve %s: %w", r.Root, err)
	}
	if id, err := c.reserve(r); id != 0 || err != nil {
		return id, err
	}
	d, err := c.prepare(ctx, r)
	if err != nil {
		c.release(r.whole())
		return 0, fmt.Errorf("retrieve %s: %w", r.Root, err)
	}
	return d.id, nil
}

// reserve keeps the root for the caller, or finds the deal that it should join.
func (c *Client) reserve(r Request) (DealID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, errors.New("client: closed")
	}
	d, taken := c.roots[r.whole()]
	switch {
	case !taken:
		c.roots[r.whole()] = nil
		return 0, nil
	case d != nil && d.proposal.PayloadCID == r.Root && selectors.Equal(d.proposal.Params.Selector, r.Selector):
		if d.provider.ID == r.Provider.ID {
			c.knows(r.Provider.AddrInfo)
		}
		return d.id, nil
	}
	return 0, fmt.Errorf("%w: %s", ErrBusy, r.Root)
}

func (c *Client) release(root cid.Cid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.roots, root)
}

// prepare makes the deal and starts it. The store is closed if it fails.
func (c *Client) prepare(ctx context.Context, r Request) (_ *clientDeal, err error) {
	store, err := c.cfg.Stores.Open(ctx, r.whole())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	ls := withUnixFS(store.LinkSystem())
	complete, held, err := selectors.Complete(ctx, ls, r.Root, r.Selector, maxLocalLinks)
	if err != nil {
		return nil, fmt.Errorf("look through what is held: %w", err)
	}
	d, err := c.find(ctx, r, store)
	if err != nil {
		return nil, err
	}
	if d == nil {
		if complete {
			d, err = c.already(ctx, r, store)
		} else {
			d, err = c.propose(ctx, r, store, Bytes(held.Bytes))
		}
		if err != nil {
			return nil, err
		}
	}
	d.complete = complete
	c.start(d)
	return d, nil
}

// find continues the deal on record that r is about, if there is one.
func (c *Client) find(ctx context.Context, r Request, store Store) (*clientDeal, error) {
	rec, found, err := c.findRecord(ctx, r, store)
	if err != nil || !found {
		return nil, err
	}
	proposal, err := rec.proposal()
	if err != nil {
		return nil, err
	}
	d := newClientDeal(c, rec, proposal, r.Provider, store)
	return d, d.refit(ctx, r)
}

// findRecord finds the open deal that r is about: same root, selection and
// provider, terms within r. Deals on record that r cannot continue stay there.
func (c *Client) findRecord(ctx context.Context, r Request, store Store) (record, bool, error) {
	records, err := c.book.open(ctx, r.whole().String())
	if err != nil {
		return record{}, false, err
	}
	for _, rec := range records {
		proposal, err := rec.proposal()
		if err != nil {
			return record{}, false, err
		}
		same := rec.Peer == r.Provider.ID.String() && proposal.PayloadCID == r.Root && selectors.Equal(proposal.Params.Selector, r.Selector)
		if !same || rec.check() != nil || r.MaxPrice != nil && proposal.Params.PricePerByte > *r.MaxPrice || store.Written() < rec.Start {
			continue
		}
		return rec, true, nil
	}
	return record{}, false, nil
}

// refit gives a continued deal the budget and risk of the new request. What
// the record does not know yet of payments, the lane does: its last voucher.
func (d *clientDeal) refit(ctx context.Context, r Request) error {
	terms := d.proposal.Params.Terms()
	if !terms.Free() {
		if d.rec.Budget.Less(r.Budget) {
			if err := d.c.cfg.Node.SetLaneBudget(ctx, d.channel, d.rec.Lane, r.Budget); err != nil {
				return err
			}
			d.rec.Budget = r.Budget
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
	d.rec.AtRisk = uint64(atRisk(r, terms, d.rec.Budget))
	d.purse = d.newPurse()
	return nil
}

// everPaid reports whether the lane of a record may carry more than the record
// says: the voucher is durable before the record is.
func (c *Client) everPaid(r record) bool { return r.Channel != "" && r.Phase != Proposed }

// already records that nothing needs to be bought.
func (c *Client) already(ctx context.Context, r Request, store Store) (*clientDeal, error) {
	proposal := voucher.DealProposal{PayloadCID: r.Root, ID: c.nextID(), Params: Params{Selector: r.Selector, PieceCID: r.PieceCID}}
	rec := record{V: recordVersion, Peer: r.Provider.ID.String(), ID: uint64(proposal.ID), Phase: Proposed, Created: time.Now().UTC(),
		Start: store.Written(), Output: r.Output}
	return c.make(ctx, rec, proposal, r, store)
}

// propose asks the provider, checks its answer against r, sets up payment and
// records the deal.
func (c *Client) propose(ctx context.Context, r Request, store Store, held Bytes) (*clientDeal, error) {
	if err := c.connect(ctx, r.Provider.AddrInfo); err != nil {
		return nil, err
	}
	q, err := c.askFor(ctx, r)
	if err != nil {
		return nil, err
	}
	expected, err := affordable(r, q, held)
	if err != nil {
		return nil, err
	}
	if err := c.permitted(ctx, q, expected); err != nil {
		return nil, fmt.Errorf("%w; nothing was fetched or paid", err)
	}
	if err := c.carrierFor(r.Provider.ID).carriable(r.Provider.ID, q.Ask().Terms(), expected, atRisk(r, q.Ask().Terms(), r.Budget)); err != nil {
		return nil, fmt.Errorf("%w; nothing was fetched or paid", err)
	}
	if _, err := store.Sync(); err != nil { // the deal's bytes begin behind what is durable
		return nil, err
	}
	terms := q.Ask().Terms()
	proposal := voucher.DealProposal{PayloadCID: r.Root, ID: c.nextID(), Params: Params{
		Selector: r.Selector, PieceCID: r.PieceCID, PricePerByte: terms.Price, UnsealPrice: terms.Unseal,
		PaymentInterval: terms.Interval, PaymentIntervalIncrease: terms.Increase,
	}}
	if r.Selector == nil {
		proposal.Params.Selector = selectors.All()
	}
	rec := record{
		V: recordVersion, Peer: r.Provider.ID.String(), ID: uint64(proposal.ID), Phase: Proposed, Created: time.Now().UTC(),
		Budget: r.Budget, AtRisk: uint64(atRisk(r, terms, r.Budget)), Expected: uint64(expected), Start: store.Written(), Output: r.Output,
		PayTo: addressText(q.PaymentAddress),
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

// askFor asks the provider what it has and charges, unless r says it.
func (c *Client) askFor(ctx context.Context, r Request) (QueryResponse, error) {
	if r.Ask == nil {
		return askPeer(ctx, c.cfg.Host, r.Provider.ID, Query{PayloadCID: r.Root, QueryParams: QueryParams{PieceCID: r.PieceCID, Selector: r.Selector}})
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
	rec.Proposal = encoded
	for _, a := range r.Provider.Addrs {
		rec.Addrs = append(rec.Addrs, a.String())
	}
	if r.part.Defined() {
		rec.Whole = r.part.String()
	}
	d := newClientDeal(c, rec, proposal, r.Provider, store)
	return d, c.book.put(ctx, d.whole.String(), &d.rec)
}

// start runs the deal's goroutine.
func (c *Client) start(d *clientDeal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live[d.id], c.roots[d.whole] = d, d
	delete(c.ended, d.id)
	c.done.Go(func() { d.run(c.ctx) })
}

// Wait returns when the deal has completed (nil), failed, or was suspended
// (ErrSuspended), with the state it is then in; or with ctx.
func (c *Client) Wait(ctx context.Context, id DealID) (ClientDealState, error) {
	c.mu.Lock()
	d := c.live[id]
	c.mu.Unlock()
	if d != nil {
		select {
		case <-d.gone:
		case <-ctx.Done():
			return d.snapshot(), ctx.Err()
		}
	}
	s, err := c.RetrievalStatus(ctx, id)
	if err != nil {
		return s, err
	}
	if s.Err == nil && s.Status != voucher.DealStatusCompleted {
		s.Err = fmt.Errorf("%w: %s", ErrSuspended, s.Message)
	}
	return s, s.Err
}

// get is Retrieve and Wait. When the provider cannot take up the deal where it
// stood, it goes on with a new one.
func (c *Client) get(ctx context.Context, r Request) (ClientDealState, error) {
	for again := false; ; again = true {
		id, err := c.Retrieve(ctx, r)
		if err != nil {
			return ClientDealState{}, err
		}
		s, err := c.Wait(ctx, id)
		if again || !errors.Is(err, voucher.RefusedResume) {
			return s, err
		}
	}
}
