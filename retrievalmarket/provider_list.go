package retrievalmarket

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

// ListDeals returns the deals that are live and the latest that are not, under
// the ids that clients gave them. See Deals for all, in order.
func (p *Provider) ListDeals() map[ProviderDealID]ProviderDealState {
	deals, err := p.Deals(context.Background(), 10_000)
	if err != nil {
		p.log.Error("list deals", "err", err)
	}
	all := make(map[ProviderDealID]ProviderDealState, len(deals))
	for i := len(deals) - 1; i >= 0; i-- { // the newest under an id wins
		all[ProviderDealID{deals[i].Receiver, deals[i].ID}] = deals[i]
	}
	return all
}

// Deals returns at most limit deals, newest first. Live deals are as they are
// now, others as they ended.
func (p *Provider) Deals(ctx context.Context, limit int) ([]ProviderDealState, error) {
	return p.list(func() ([]record, error) { return p.book.all(ctx, limit) })
}

// list returns the live deals and those that read finds on disk. Which are live is
// seen before, too: one that ends meanwhile would be shown as it was stored before its end.
func (p *Provider) list(read func() ([]record, error)) ([]ProviderDealState, error) {
	before := p.allLive()
	records, err := read()
	if err != nil {
		return nil, err
	}
	var states []ProviderDealState
	seen := make(map[int64]bool)
	live := p.allLive()
	for _, d := range slices.Concat(live, slices.DeleteFunc(before, func(d *providerDeal) bool { return slices.Contains(live, d) })) {
		s, instance := d.snapshot()
		states = append(states, s)
		seen[instance] = instance != 0
	}
	for _, r := range records {
		if seen[r.Instance] {
			continue
		}
		s, err := providerState(r)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

// allLive returns the deals that are live now.
func (p *Provider) allLive() []*providerDeal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.live))
}

// providerState is a stored deal for people.
func providerState(r record) (ProviderDealState, error) {
	proposal, err := r.proposal()
	if err != nil {
		return ProviderDealState{}, err
	}
	from, err := r.peer()
	if err != nil {
		return ProviderDealState{}, err
	}
	return r.soldTo(from, proposal)
}

// soldTo is the record for people, where what it has of from and proposal is
// decoded already.
func (r record) soldTo(from peer.ID, proposal voucher.DealProposal) (ProviderDealState, error) {
	channel, err := parseAddress(r.Channel)
	if err != nil {
		return ProviderDealState{}, fmt.Errorf("deal %d: stored payment channel: %w", r.ID, err)
	}
	d := r.deal(proposal.Params.Terms(), 0)
	return ProviderDealState{
		DealProposal: proposal, Status: d.status(), Message: d.Message, Receiver: from,
		TotalSent: d.Account.Moved, FundsReceived: d.Account.Paid, PaymentChannel: channel, Lane: r.Lane,
		Created: r.Created, Updated: r.Updated,
	}, nil
}

// StoredProviderDeals reads a provider's deals from a database that no
// Provider may be using now, newest first.
func StoredProviderDeals(ctx context.Context, db *sql.DB, limit int) ([]ProviderDealState, error) {
	return storedProviderDeals(ctx, db, func(b providerBook) ([]record, error) { return b.all(ctx, limit) })
}

// maxNamesakes bounds how many deals of one number are read.
const maxNamesakes = 100

// StoredProviderDealsOf reads the deals that clients gave a number, newest first,
// at most 100 of them. It takes as long with a long history as with a short one.
func StoredProviderDealsOf(ctx context.Context, db *sql.DB, id DealID) ([]ProviderDealState, error) {
	return storedProviderDeals(ctx, db, func(b providerBook) ([]record, error) { return b.numbered(ctx, id, maxNamesakes) })
}

func storedProviderDeals(ctx context.Context, db *sql.DB, read func(providerBook) ([]record, error)) ([]ProviderDealState, error) {
	if err := migrate(ctx, db); err != nil {
		return nil, err
	}
	records, err := read(newProviderBook(db))
	if err != nil {
		return nil, err
	}
	states := make([]ProviderDealState, 0, len(records))
	for _, r := range records {
		s, err := providerState(r)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}
