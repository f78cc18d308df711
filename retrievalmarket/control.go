package retrievalmarket

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/tollgraph/tollgraph/voucher"
)

// ErrPaused is how Wait reports a deal that Pause suspended.
var ErrPaused = errors.New("paused")

// PauseDeal suspends the running retrieval that a deal is part of: no more is
// fetched or paid until ResumeDeal, or the same Retrieve. It returns when the deal
// stands still.
func (c *Client) PauseDeal(ctx context.Context, id DealID) error {
	if v, _, _ := c.running(ctx, id); v != nil {
		return v.haltNow(ctx, fmt.Errorf("%w: %w", ErrSuspended, ErrPaused))
	}
	return fmt.Errorf("deal %d is not running: %w", id, ErrNoDeal)
}

// ResumeDeal goes on with a deal that was suspended, in this run or an earlier
// one, where its provider was last. It returns the deal's id, which is another
// one if the deal cannot go on and a new one takes its place.
func (c *Client) ResumeDeal(ctx context.Context, id DealID) (DealID, error) {
	r, err := c.RequestOf(ctx, id)
	if err != nil {
		return 0, err
	}
	return c.Retrieve(ctx, r)
}

// RequestOf returns the request that goes on with the order of a deal on record:
// the same goods from the same provider, where it was last, at no higher price and
// with the order's budget. One that has ended has none: the error wraps ErrNoDeal.
func (c *Client) RequestOf(ctx context.Context, id DealID) (Request, error) {
	rec, _, err := c.latest(ctx, id)
	if err != nil {
		return Request{}, err
	}
	return requestOf(rec)
}

// LatestDeal returns the deal with which the order of a deal goes on, or ended.
func (c *Client) LatestDeal(ctx context.Context, id DealID) (DealID, error) {
	r, p, err := c.latest(ctx, id)
	if !errors.Is(err, ErrNoDeal) || r.ID == 0 {
		return DealID(r.ID), err
	}
	all, err := c.book.ofRoot(ctx, r.whole(p).String())
	if err != nil {
		return id, err
	}
	for _, other := range all { // newest first
		if other.order() == r.order() {
			return DealID(other.ID), nil
		}
	}
	return id, nil
}

// ResumeAll goes on with every deal that is not final, as at the start of a
// daemon. It tries them all and returns what could not be resumed.
func (c *Client) ResumeAll(ctx context.Context) error {
	records, err := c.book.open(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, rec := range records {
		if _, err := c.ResumeDeal(ctx, DealID(rec.ID)); err != nil {
			errs = append(errs, fmt.Errorf("deal %d: %w", rec.ID, err))
		}
	}
	return errors.Join(errs...)
}

// requestOf is the request that a record continues.
func requestOf(rec record) (Request, error) {
	proposal, err := rec.proposal()
	if err != nil {
		return Request{}, err
	}
	id, err := rec.peer()
	if err != nil {
		return Request{}, err
	}
	payTo, err := parseAddress(rec.PayTo)
	if err != nil {
		return Request{}, fmt.Errorf("deal %d: stored address: %w", rec.ID, err)
	}
	provider := RetrievalPeer{AddrInfo: peer.AddrInfo{ID: id}, Address: payTo}
	for _, text := range rec.Addrs {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return Request{}, fmt.Errorf("deal %d: stored address: %w", rec.ID, err)
		}
		provider.Addrs = append(provider.Addrs, addr)
	}
	risk, price := Bytes(rec.AtRisk), proposal.Params.PricePerByte
	want, err := rec.want(proposal)
	if err != nil {
		return Request{}, err
	}
	return Request{Provider: provider, Root: rec.whole(proposal), Selector: want, PieceCID: proposal.Params.PieceCID,
		Budget: rec.Budget, MaxPrice: &price, AtRisk: &risk, Expected: Bytes(rec.Expected), Output: rec.Output}, nil
}

// SetBudget changes the most that the order of an open deal may cost, running or
// not. It cannot fall below what is paid.
func (c *Client) SetBudget(ctx context.Context, id DealID, budget Amount) error {
	s, err := c.RetrievalStatus(ctx, id)
	if err != nil {
		return err
	}
	if spent := s.SpentBefore.Add(s.FundsSpent); budget.Less(spent) {
		return fmt.Errorf("deal %d: %s are paid already: %w", id, spent.FIL(), ErrBudget)
	}
	return c.fund(ctx, id, func(voucher.Amount) voucher.Amount { return budget })
}

// fundStored changes the budget of a deal that is not running. The lane comes
// first: what it may carry is what binds.
func (c *Client) fundStored(ctx context.Context, id DealID, change func(Amount) Amount) error {
	return c.changeStored(ctx, id, func(r *record, _ voucher.DealProposal) error {
		r.Budget = change(r.Budget)
		if r.Channel == "" {
			return nil
		}
		channel, err := parseAddress(r.Channel)
		if err != nil {
			return fmt.Errorf("deal %d: stored payment channel: %w", id, err)
		}
		return c.cfg.Node.SetLaneBudget(ctx, channel, r.Lane, r.money())
	})
}

// changeStored changes the record with which the order of a deal goes on, while
// it does not run. Its root is kept meanwhile, so that it does not begin to run as
// it was before.
func (c *Client) changeStored(ctx context.Context, id DealID, change func(*record, voucher.DealProposal) error) error {
	r, p, err := c.latest(ctx, id)
	if err != nil {
		return err
	}
	if err := c.keepRoot(ctx, r.whole(p)); err != nil {
		return err
	}
	defer c.release(r.whole(p))
	if r, p, err = c.latest(ctx, id); err != nil { // as it is now that nobody else writes it
		return err
	}
	if err := change(&r, p); err != nil {
		return err
	}
	if err := c.book.put(ctx, r.whole(p).String(), &r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ended, DealID(r.ID)) // it is not as it was when it stopped
	delete(c.runs, DealID(r.ID))
	return nil
}

// keepRoot keeps a root from being retrieved until release.
func (c *Client) keepRoot(ctx context.Context, root cid.Cid) error {
	if err := c.untilLeft(ctx, root); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if _, taken := c.roots[root]; taken {
		return fmt.Errorf("%w: %s", ErrBusy, root)
	}
	c.roots[root] = nil
	return nil
}

// ErrOpenDeal means that a deal needs what is to be dropped.
var ErrOpenDeal = errors.New("it has a deal that has not ended")

// Drop runs drop, which is to remove what is held below root, while nothing of it
// can be retrieved. It does not if a retrieval runs (ErrBusy) or a deal could go on
// (ErrOpenDeal): what that received is paid, and would be bought again.
func (c *Client) Drop(ctx context.Context, root cid.Cid, drop func() error) error {
	if err := c.keepRoot(ctx, root); err != nil {
		return err
	}
	defer c.release(root)
	open, err := c.book.open(ctx, root.String())
	if err != nil {
		return err
	}
	if len(open) > 0 {
		return fmt.Errorf("%s: %w: %d", root, ErrOpenDeal, open[0].ID)
	}
	return drop()
}

// OpenDeals returns the ids of the deals that have not ended, the last changed
// first: those that run, and those that could go on.
func (c *Client) OpenDeals(ctx context.Context) ([]DealID, error) {
	records, err := c.book.open(ctx, "")
	if err != nil {
		return nil, err
	}
	ids := make([]DealID, 0, len(records))
	for _, r := range records {
		ids = append(ids, DealID(r.ID))
	}
	return ids, nil
}

// SetAsk changes all that is charged, at once, for deals that begin from now on.
func (p *Provider) SetAsk(ask voucher.Ask) error {
	if err := ask.Validate(); err != nil {
		return err
	}
	if p.cfg.Node == nil && !ask.Terms().Free() {
		return errors.New("provider: a price needs a Node that takes payments")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ask = ask
	return nil
}
