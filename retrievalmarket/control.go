package retrievalmarket

import (
	"context"
	"errors"
	"fmt"

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
	rec, err := c.book.get(ctx, id)
	if err != nil {
		return 0, err
	}
	if rec.Phase.Final() {
		return 0, fmt.Errorf("deal %d has ended: %w", id, ErrNoDeal)
	}
	r, err := requestOf(rec)
	if err != nil {
		return 0, err
	}
	return c.Retrieve(ctx, r)
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
	risk := Bytes(rec.AtRisk)
	return Request{Provider: provider, Root: proposal.PayloadCID, Selector: proposal.Params.Selector, PieceCID: proposal.Params.PieceCID,
		Budget: rec.Budget, AtRisk: &risk, Expected: Bytes(rec.Expected), Output: rec.Output}, nil
}

// paused suspends the deal.
func (d *clientDeal) paused() {
	d.err = fmt.Errorf("%w: %w", ErrSuspended, ErrPaused)
}

// SetBudget changes the most that a running deal may cost. It cannot fall below
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
