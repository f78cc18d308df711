package retrievalmarket

import (
	"context"
	"database/sql"
	"fmt"
	"maps"

	"github.com/tollgraph/tollgraph/voucher"
)

// RetrievalStatus returns a deal as it is now, or as it ended.
func (c *Client) RetrievalStatus(ctx context.Context, id DealID) (ClientDealState, error) {
	c.mu.Lock()
	d := c.live[id]
	s, over := c.ended[id]
	c.mu.Unlock()
	if d != nil {
		return d.snapshot(), nil
	}
	if over {
		return s, nil
	}
	r, err := c.book.get(ctx, id)
	if err != nil {
		return ClientDealState{}, err
	}
	return clientState(r)
}

// ListDeals returns the latest 10,000 deals by id; see Deals.
func (c *Client) ListDeals(ctx context.Context) (map[DealID]ClientDealState, error) {
	deals, err := c.Deals(ctx, 10_000)
	if err != nil {
		return nil, err
	}
	all := make(map[DealID]ClientDealState, len(deals))
	for _, s := range deals {
		all[s.ID] = s
	}
	return all, nil
}

// Deals returns at most limit deals, the last changed first.
func (c *Client) Deals(ctx context.Context, limit int) ([]ClientDealState, error) {
	return c.list(func() ([]ClientDealState, error) { return StoredClientDeals(ctx, c.cfg.DB, limit) })
}

// list returns the deals that read finds on disk, the live ones as they are now. Which
// are live is seen before, too: one that ends meanwhile would be shown as it was stored
// before its end.
func (c *Client) list(read func() ([]ClientDealState, error)) ([]ClientDealState, error) {
	c.mu.Lock()
	live := maps.Clone(c.live)
	c.mu.Unlock()
	states, err := read()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range states {
		d := c.live[states[i].ID]
		if d == nil {
			d = live[states[i].ID]
		}
		if d != nil {
			states[i] = d.snapshot()
		}
	}
	return states, nil
}

// StoredClientDeals reads a client's deals from its database, the last changed
// first.
func StoredClientDeals(ctx context.Context, db *sql.DB, limit int) ([]ClientDealState, error) {
	if err := migrate(ctx, db); err != nil {
		return nil, err
	}
	records, err := newClientBook(db).all(ctx, limit)
	if err != nil {
		return nil, err
	}
	states := make([]ClientDealState, 0, len(records))
	for _, r := range records {
		s, err := clientState(r)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

// StoredClientDeal reads one of a client's deals from its database. The error
// wraps ErrNoDeal if there is none of that id.
func StoredClientDeal(ctx context.Context, db *sql.DB, id DealID) (ClientDealState, error) {
	if err := migrate(ctx, db); err != nil {
		return ClientDealState{}, err
	}
	r, err := newClientBook(db).get(ctx, id)
	if err != nil {
		return ClientDealState{}, err
	}
	return clientState(r)
}

// clientState is a stored deal for people.
func clientState(r record) (ClientDealState, error) {
	proposal, err := r.proposal()
	if err != nil {
		return ClientDealState{}, err
	}
	provider, err := r.peer()
	if err != nil {
		return ClientDealState{}, err
	}
	channel, err := parseAddress(r.Channel)
	if err != nil {
		return ClientDealState{}, fmt.Errorf("deal %d: stored payment channel: %w", r.ID, err)
	}
	d := r.deal(proposal.Params.Terms(), 0)
	if r.More && d.Message == "" {
		d.Message = "another deal is to bring the rest"
	}
	return ClientDealState{
		DealProposal: proposal, Status: d.status(), Message: d.Message, Sender: provider, Whole: r.whole(proposal),
		TotalReceived: d.Account.Moved, Expected: Bytes(r.Expected), FundsSpent: d.Account.Paid, SpentBefore: r.Before, TotalFunds: r.Budget, Order: r.order(), More: r.More,
		Payments: r.Payments, Stalls: r.Stalls, PaymentChannel: channel, Lane: r.Lane,
		Created: r.Created, Updated: r.Updated, FirstByte: r.FirstByte,
	}, nil
}

// Open reports whether something is left to do: for the deal, or for the order
// that it is part of.
func (s ClientDealState) Open() bool {
	switch s.Status {
	case voucher.DealStatusCompleted, voucher.DealStatusRejected, voucher.DealStatusDealNotFound, voucher.DealStatusCancelled, voucher.DealStatusErrored:
		return s.More
	}
	return true
}
