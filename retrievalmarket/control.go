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

type pauseNote struct{}

// PauseDeal suspends a running deal: no more is fetched or paid until Resume,
// or the same Retrieve. It returns when the deal stands still.
func (c *Client) PauseDeal(ctx context.Context, id DealID) error {
	c.mu.Lock()
	d := c.live[id]
	c.mu.Unlock()
	if d == nil {
		return fmt.Errorf("deal %d is not running: %w", id, ErrNoDeal)
	}
	d.inbox.post(pauseNote{})
	select {
	case <-d.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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

// RequestOf returns the request that goes on with a deal on record: the same
// goods from the same provider, where it was last, at no higher price and with
// the deal's budget. A deal that has ended has none: the error wraps ErrNoDeal.
func (c *Client) RequestOf(ctx context.Context, id DealID) (Request, error) {
	rec, err := c.book.get(ctx, id)
	if err != nil {
		return Request{}, err
	}
	if rec.Phase.Final() {
		return Request{}, fmt.Errorf("deal %d has ended: %w", id, ErrNoDeal)
	}
	return requestOf(rec)
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
	var part cid.Cid
	if rec.Whole != "" {
		part = rec.whole(proposal)
	}
	return Request{part: part, Provider: provider, Root: proposal.PayloadCID, Selector: proposal.Params.Selector, PieceCID: proposal.Params.PieceCID,
		Budget: rec.Budget, MaxPrice: &price, AtRisk: &risk, Expected: Bytes(rec.Expected), Output: rec.Output}, nil
}

// paused suspends the deal.
func (d *clientDeal) paused() {
	d.err = fmt.Errorf("%w: %w", ErrSuspended, ErrPaused)
}

// SetBudget changes the most that an open deal may cost, running or not. It cannot fall below
// what is paid.
func (c *Client) SetBudget(ctx context.Context, id DealID, budget Amount) error {
	s, err := c.RetrievalStatus(ctx, id)
	if err != nil {
		return err
	}
	if budget.Less(s.FundsSpent) {
		return fmt.Errorf("deal %d: %s are paid already: %w", id, s.FundsSpent.FIL(), ErrBudget)
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
		return c.cfg.Node.SetLaneBudget(ctx, channel, r.Lane, r.Budget)
	})
}

// changeStored changes the record of an open deal that is not running. Its root
// is kept meanwhile, so that it does not begin to run as it was before.
func (c *Client) changeStored(ctx context.Context, id DealID, change func(*record, voucher.DealProposal) error) error {
	r, err := c.book.get(ctx, id)
	if err != nil {
		return err
	}
	p, err := r.proposal()
	if err != nil {
		return err
	}
	if err := c.keepRoot(r.whole(p)); err != nil {
		return err
	}
	defer c.release(r.whole(p))
	if r, err = c.book.get(ctx, id); err != nil { // as it is now that nobody else writes it
		return err
	}
	if r.Phase.Final() {
		return fmt.Errorf("deal %d has ended: %w", id, ErrNoDeal)
	}
	if err := change(&r, p); err != nil {
		return err
	}
	if err := c.book.put(ctx, r.whole(p).String(), &r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ended, id) // it is not as it was when it stopped
	return nil
}

// keepRoot keeps a root from being retrieved until release.
func (c *Client) keepRoot(root cid.Cid) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.roots[root]; taken || c.closed {
		return fmt.Errorf("%w: %s", ErrBusy, root)
	}
	c.roots[root] = nil
	return nil
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
