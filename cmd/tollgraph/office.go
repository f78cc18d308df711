package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// office is what can be done with a node that runs on a repo: it buys, or
// sells, or both.
type office struct {
	*app
	node     *node
	buyer    *buyer  // nil if nothing is bought
	seller   *seller // nil if nothing is sold
	settings settings
	shelf    shelf
	log      *slog.Logger
	started  time.Time
	stats    *stats // nil if nobody counts

	life context.Context // of jobs; they end with it
	jobs sync.WaitGroup
	mu   sync.Mutex
	busy map[market.DealID]*job // guarded by mu; by order
}

func newOffice(a *app, n *node, b *buyer, s *seller) *office {
	return &office{
		app: a, node: n, buyer: b, seller: s, settings: settings{n.repo.db}, shelf: shelf{n.repo.db},
		log: logger("tollgraph/node"), started: time.Now(), life: context.Background(), busy: make(map[market.DealID]*job),
	}
}

// deals returns the deals of both roles, the latest first: those that run as
// they are now.
func (o *office) deals(ctx context.Context, limit int) ([]deal, error) {
	deals, err := readDeals(ctx, o.node.repo.db, limit)
	if err != nil {
		return nil, err
	}
	return deals, o.freshen(ctx, deals, limit)
}

// freshen replaces the deals that run by what they are now. limit bounds what of
// the history is read for it.
func (o *office) freshen(ctx context.Context, deals []deal, limit int) error {
	bought, sold := map[string]market.ClientDealState{}, map[string]market.ProviderDealState{}
	if o.buyer != nil {
		states, err := o.buyer.Deals(ctx, limit)
		if err != nil {
			return err
		}
		for _, s := range states {
			bought[strconv.FormatUint(uint64(s.ID), 10)] = s
		}
	}
	if o.seller != nil {
		states, err := o.seller.Deals(ctx, limit)
		if err != nil {
			return err
		}
		for _, s := range slices.Backward(states) { // the newest under an id wins
			sold[s.Receiver.String()+"/"+strconv.FormatUint(uint64(s.ID), 10)] = s
		}
	}
	for i, d := range deals {
		if s, ok := bought[d.ID]; ok && d.Role == "client" {
			deals[i] = clientDeal(s)
		}
		if s, ok := sold[d.Peer+"/"+d.ID]; ok && d.Role == "provider" {
			deals[i] = providerDeal(s)
		}
	}
	return o.shelf.mark(ctx, deals)
}

// findDeal finds the deal that a user names: this node's own under an id, or
// else the one that a client has under it.
func (o *office) findDeal(ctx context.Context, name string) (deal, error) {
	if id, err := o.clientDeal(ctx, name); err == nil {
		s, err := o.buyer.RetrievalStatus(ctx, id)
		if err != nil {
			return deal{}, err
		}
		found := []deal{clientDeal(s)}
		err = o.shelf.mark(ctx, found)
		return found[0], err
	} else if !errors.Is(err, market.ErrNoDeal) {
		return deal{}, err
	}
	_, id, err := parseDealName(name)
	if err != nil {
		return deal{}, err
	}
	deals, err := readDealsOf(ctx, o.node.repo.db, id)
	if err == nil {
		err = o.freshen(ctx, deals, 0)
	}
	if err != nil {
		return deal{}, err
	}
	return pickDeal(deals, name)
}

// clientDeal finds a deal that this node has as a client.
func (o *office) clientDeal(ctx context.Context, name string) (market.DealID, error) {
	with, id, err := parseDealName(name)
	if err != nil {
		return 0, err
	}
	none := fmt.Errorf("%w: %s, bought here; tollgraph deals list shows those on record", market.ErrNoDeal, name)
	if o.buyer == nil {
		return 0, none
	}
	s, err := o.buyer.RetrievalStatus(ctx, id)
	if errors.Is(err, market.ErrNoDeal) || err == nil && with != "" && with != s.Sender {
		return 0, none
	}
	return id, err
}

// purchaseOf is what a deal on record still has to do: its order, or else only
// to bring everything into the repo.
func (o *office) purchaseOf(ctx context.Context, id market.DealID) (purchase, error) {
	r, err := o.buyer.RequestOf(ctx, id)
	if err != nil {
		return purchase{}, err
	}
	kept, found, err := o.orderOf(ctx, id)
	if err != nil {
		return purchase{}, err
	}
	if !found {
		return purchaseFrom(r), nil
	}
	p, err := kept.purchase()
	if err != nil {
		return purchase{}, fmt.Errorf("the order of deal %d: %w", id, err)
	}
	p.budget, p.maxPrice, p.atRisk = r.Budget, r.MaxPrice, r.AtRisk // the deal's, which may have changed since
	return p, nil
}

// orderOf returns what a daemon was told that a deal is part of; false if that is
// nothing.
func (o *office) orderOf(ctx context.Context, id market.DealID) (order, bool, error) {
	s, err := o.buyer.RetrievalStatus(ctx, id)
	if err != nil {
		return order{}, false, err
	}
	return o.shelf.order(ctx, s.Order)
}

// pause lets a deal stand still until resume.
func (o *office) pause(ctx context.Context, id market.DealID) error {
	if _, err := o.buyer.RequestOf(ctx, id); err != nil {
		return err
	}
	s, err := o.buyer.RetrievalStatus(ctx, id)
	if err != nil {
		return err
	}
	if err := o.shelf.hold(ctx, s.Order); err != nil {
		return err
	}
	if err := o.buyer.PauseDeal(ctx, id); err != nil && !errors.Is(err, market.ErrNoDeal) {
		return err
	} // one that does not run stands still already
	return nil
}

// resume goes on with a deal in the background.
func (o *office) resume(ctx context.Context, id market.DealID) error {
	p, err := o.purchaseOf(ctx, id)
	if err != nil {
		return err
	}
	kept, found, err := o.orderOf(ctx, id)
	if err != nil {
		return err
	}
	from := &kept
	if !found {
		from = nil
	}
	_, err = o.begin(ctx, p, from)
	return err
}

// ask returns what is charged.
func (o *office) ask() voucher.Ask { return o.seller.Ask() }

// setAsk makes ask hold for the deals that begin from now on, here and at every
// later start.
func (o *office) setAsk(ctx context.Context, ask voucher.Ask) error {
	if err := o.seller.SetAsk(ask); err != nil {
		return err
	}
	return o.settings.set(ctx, settingAsk, ask)
}
