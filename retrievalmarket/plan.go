package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// plan is what a Request takes, given what is on record and in the store.
type plan struct {
	record   *record // the open deal that goes on first; nil if there is none
	complete bool    // nothing is left to buy
	held     Bytes   // of the selection, here already
	gaps     []gap   // what to buy in deals of their own; empty if one deal for all brings no more
	order    DealID  // that goes on; 0 if there is none
	spent    Amount  // by the deals of that order
}

// plan looks at what r takes. With whole it does not look for gaps.
func (c *Client) plan(ctx context.Context, r Request, store Store, whole bool) (p plan, err error) {
	records, err := c.book.ofRoot(ctx, r.Root.String())
	if err != nil {
		return p, err
	}
	if p.order, p.spent, err = c.orderOf(ctx, records, r.Selector); err != nil {
		return p, err
	}
	ls := withUnixFS(store.LinkSystem())
	complete, held, err := selectors.Complete(ctx, ls, r.Root, r.Selector, maxLocalLinks)
	if err != nil {
		return p, fmt.Errorf("look through what is held: %w", err)
	}
	p.complete, p.held = complete, Bytes(held.Bytes)
	if p.record, err = findRecord(records, r, store, complete); err != nil || complete || whole || p.record != nil && p.record.Whole == "" {
		return p, err
	}
	found, held2, err := gapsIn(ctx, ls, r, false)
	if len(found) > 0 {
		p.gaps, p.held = found, held2
	}
	return p, err
}

// findRecord finds among all records of its root the open deal with which r goes
// on, the last changed first: of the same order and provider, on terms within r, and
// not one that would be charged again, unless all is here, so that it need only end.
// Deals on record that r cannot continue stay there.
func findRecord(records []record, r Request, store Store, complete bool) (*record, error) {
	slices.SortStableFunc(records, func(a, b record) int { return b.Updated.Compare(a.Updated) })
	for _, rec := range records {
		if !rec.open() {
			continue
		}
		proposal, err := rec.proposal()
		if err != nil {
			return nil, err
		}
		want, err := rec.want(proposal)
		if err != nil {
			return nil, err
		}
		same := !rec.Phase.Final() && (!rec.Plain || complete) && rec.Peer == r.Provider.ID.String() && selectors.Equal(want, r.Selector)
		if same && rec.check() == nil && (r.MaxPrice == nil || proposal.Params.PricePerByte <= *r.MaxPrice) && store.Written() >= rec.Start {
			return &rec, nil
		}
	}
	return nil, nil
}

// next makes the deal that is to run next, and returns nil if everything is here.
func (v *retrieval) next(ctx context.Context) (_ *clientDeal, err error) {
	v.c.mu.Lock()
	r := v.request
	v.c.mu.Unlock()
	store, err := v.c.cfg.Stores.Open(ctx, r.Root)
	if err != nil {
		return nil, err
	}
	d, err := v.choose(ctx, r, store)
	if d == nil || err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return d, nil
}

// choose takes the next gap, or plans anew where there is none.
func (v *retrieval) choose(ctx context.Context, r Request, store Store) (*clientDeal, error) {
	for {
		for len(v.gaps) > 0 && !v.whole {
			d, err := v.buy(ctx, r.partOf(v.gaps[0]), store)
			if soldWhole(err) {
				v.whole = true
				break
			}
			if err != nil {
				return nil, err
			}
			if v.gaps = v.gaps[1:]; d != nil {
				return d, nil
			}
		}
		p, err := v.plan(ctx, r, store)
		if err != nil {
			return nil, err
		}
		v.order, v.spent = p.order, v.spent.Max(p.spent)
		switch {
		case p.record != nil:
			return v.goOn(ctx, r, *p.record, store)
		case p.complete:
			return nil, nil
		case len(p.gaps) == 0:
			return v.buy(ctx, r, store)
		}
		if _, _, err := v.c.quote(ctx, r, p.held, p.spent); err != nil { // all of it must be affordable
			return nil, err
		}
		v.gaps, v.rounds = p.gaps, v.rounds+1
	}
}

// plan is Client.plan, which does not look for gaps for ever. A deal with a plain
// provider begins at its root, so that one for all of r would be charged for what
// is held in front too: from such a provider that is bought as gaps are.
func (v *retrieval) plan(ctx context.Context, r Request, store Store) (plan, error) {
	whole := v.whole || v.rounds >= maxRounds
	p, err := v.c.plan(ctx, r, store, whole)
	if err != nil || whole || p.record != nil || p.complete || p.held == 0 || len(p.gaps) > 0 {
		return p, err
	}
	if err := v.c.connect(ctx, r.Provider.AddrInfo); err != nil {
		return p, err
	}
	v.c.identify(ctx, r.Provider.ID)
	if !v.c.carrierFor(r.Provider.ID).skips(r.Provider.ID) {
		p.gaps, p.held, err = gapsIn(ctx, withUnixFS(store.LinkSystem()), r, true)
	}
	return p, err
}

// goOn continues a deal on record.
func (v *retrieval) goOn(ctx context.Context, r Request, rec record, store Store) (*clientDeal, error) {
	proposal, err := rec.proposal()
	if err != nil {
		return nil, err
	}
	complete, _, err := selectors.Complete(ctx, withUnixFS(store.LinkSystem()), proposal.PayloadCID, proposal.Params.Selector, maxLocalLinks)
	if err != nil {
		return nil, fmt.Errorf("look through what is held: %w", err)
	}
	d, err := newClientDeal(v.c, rec, proposal, r.Provider, store)
	if err != nil {
		return nil, err
	}
	d.complete = complete
	return d, d.refit(ctx, r)
}

// buy makes a new deal for r, or returns nil if all of it is here.
func (v *retrieval) buy(ctx context.Context, r Request, store Store) (*clientDeal, error) {
	complete, held, err := selectors.Complete(ctx, withUnixFS(store.LinkSystem()), r.Root, r.Selector, maxLocalLinks)
	if err != nil {
		return nil, fmt.Errorf("look through what is held: %w", err)
	}
	if complete {
		return nil, nil
	}
	d, err := v.c.propose(ctx, r, store, Bytes(held.Bytes), record{Order: uint64(v.order), Before: v.spent})
	if err == nil {
		v.order = d.rec.order()
	}
	return d, err
}

// nothing records that nothing needs to be bought.
func (v *retrieval) nothing(ctx context.Context) (*clientDeal, error) {
	r := v.request
	store, err := v.c.cfg.Stores.Open(ctx, r.Root)
	if err != nil {
		return nil, err
	}
	proposal := voucher.DealProposal{PayloadCID: r.Root, ID: v.c.nextID(), Params: Params{Selector: r.Selector, PieceCID: r.PieceCID}}
	rec := record{V: recordVersion, Peer: r.Provider.ID.String(), ID: uint64(proposal.ID), Phase: Proposed, Created: time.Now().UTC(),
		Order: uint64(v.order), Before: v.spent, Budget: r.Budget, Start: store.Written(), Output: r.Output}
	d, err := v.c.make(ctx, rec, proposal, r, store)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	d.complete = true
	return d, nil
}

// partOf is the request for a gap in what r asks for.
func (r Request) partOf(g gap) Request {
	r.part, r.want = r.Root, r.Selector
	r.Root, r.Selector, r.Expected = g.root, g.selector(), 0
	return r
}

// whole is the root whose store the blocks of r go to.
func (r Request) whole() cid.Cid {
	if r.part.Defined() {
		return r.part
	}
	return r.Root
}

// whole is Request.whole for a deal on record.
func (r record) whole(p voucher.DealProposal) cid.Cid {
	if c, err := cid.Decode(r.Whole); err == nil {
		return c
	}
	return p.PayloadCID
}
