package main

import (
	"context"
	"errors"
	"sync"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// shop is what a provider sells and on which terms.
type shop struct {
	paths         []string // CAR files, or directories of them
	free          []string // those of paths that are given away
	ask           voucher.Ask
	credit        voucher.Amount // lent to any payer
	earned        voucher.Bytes  // lent at most to a client that has paid before
	unsealCommand string         // brings sealed pieces back; none: they are not sold
	client        *market.Client // that buys on the same node, if one does
}

// seller is a provider on a node, serving.
type seller struct {
	*market.Provider
	store   *piece.Store
	till    *payment.Till
	looking sync.WaitGroup     // through the accounts, at the start
	stop    context.CancelFunc // ends that
}

// newSeller indexes the pieces and starts a provider on n. events, if not nil,
// is told of its deals from the first one on.
func newSeller(ctx context.Context, n *node, s shop, events market.ProviderSubscriber) (_ *seller, err error) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	out := &seller{stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close())
		}
	}()
	if out.till, err = payment.NewTill(n.repo.db, n.repo.key.Address(), payment.TillConfig{DefaultCredit: s.credit}); err != nil {
		return nil, err
	}
	hint := &creditHint{till: out.till, settings: settings{n.repo.db}}
	if out.store, err = openPieces(ctx, n.repo, s); err != nil {
		return nil, err
	}
	free, err := givenAway(out.store, s.free)
	if err != nil {
		return nil, err
	}
	transfers, useStore := n.transfers()
	out.Provider, err = market.NewProvider(market.ProviderConfig{
		Host: n.host, Transfers: transfers, UseStore: useStore, Pieces: goods{out.store, free}, Pricing: free.pricing(),
		Node: out.till, DB: n.repo.db, Client: s.client, PayTo: out.till.Address(), Ask: s.ask, Meter: n.meter, Hold: n.hold, Bound: n.bound, Proven: n.prove, Pace: n.egress.Wait,
		CreditLine: hint.line, EarnedCredit: s.earned, Logger: logger("tollgraph/provider"),
	})
	if err != nil {
		return nil, err
	}
	if events != nil {
		out.SubscribeToEvents(events)
	}
	out.looking.Go(func() { hint.find(life) }) // the first query finds it done
	return out, out.Start(ctx)
}

// openPieces opens the pieces of s, with their indexes in the repo.
func openPieces(ctx context.Context, r *repo, s shop) (*piece.Store, error) {
	cfg := piece.Config{Paths: s.paths, IndexDir: r.path("index"), Logger: logger("tollgraph/piece")}
	if s.unsealCommand != "" {
		cfg.Unsealer = piece.CommandUnsealer{Command: s.unsealCommand}
	}
	return piece.Open(ctx, cfg)
}

// Close stops selling. Deals go on at the next start.
func (s *seller) Close() error {
	s.stop()
	s.looking.Wait()
	var errs []error
	if s.Provider != nil {
		errs = append(errs, s.Provider.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}
