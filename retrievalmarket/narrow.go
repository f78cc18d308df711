package retrievalmarket

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/voucher"
)

// maxGaps is how many parts a retrieval is divided into so that nothing held is
// bought again. Where more would be needed the selection is bought whole: every
// part costs a round trip and a signature.
const maxGaps = 64

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

// supersede ends the open deals on a root because another is about to begin.
// What a deal has is counted by what its store received since it began, so no
// deal can go on once another has added to it.
func (c *Client) supersede(ctx context.Context, whole cid.Cid) error {
	open, err := c.book.open(ctx, whole.String())
	if err != nil {
		return err
	}
	for _, rec := range open {
		p, err := rec.proposal()
		if err != nil {
			return err
		}
		rec.keep(rec.deal(p.Params.Terms(), 0).step(failed{voucher.DealStatusCancelled, "another deal on the same root went on in its place"}))
		if err := c.book.put(ctx, whole.String(), &rec); err != nil {
			return err
		}
	}
	return nil
}

// Get is Retrieve and Wait. When the provider cannot take up the deal where it
// stood, it goes on with a new one. A whole DAG, or all below a path, of which
// later parts are held already is bought in several deals, one for each gap; the
// state is then that of the last, with the sums of all. Bought again is only what
// nobody can know of: a block below a gap that is held because it occurs elsewhere
// too.
func (c *Client) Get(ctx context.Context, r Request) (ClientDealState, error) {
	var sum ClientDealState
	for range 3 { // parts of an earlier run come first, then those of this one
		parts, err := c.parts(ctx, r)
		if err != nil {
			return sum, fmt.Errorf("retrieve %s: %w", r.Root, err)
		}
		for _, part := range parts {
			s, err := c.get(ctx, part)
			if errors.Is(err, ErrNotFound) || errors.Is(err, voucher.RefusedSelector) {
				return c.rest(ctx, r, sum) // it sells whole DAGs only
			}
			if sum = s.plus(sum); err != nil {
				return sum, err
			}
		}
		if len(parts) == 0 {
			break
		}
	}
	return c.rest(ctx, r, sum)
}

// rest gets what the parts have left over, usually nothing.
func (c *Client) rest(ctx context.Context, r Request, sum ClientDealState) (ClientDealState, error) {
	s, err := c.get(ctx, r)
	return s.plus(sum), err
}

// plus returns s with what another deal of the same retrieval came to added.
func (s ClientDealState) plus(o ClientDealState) ClientDealState {
	s.TotalReceived, s.Expected = s.TotalReceived.Add(o.TotalReceived), s.Expected.Add(o.Expected)
	s.FundsSpent = s.FundsSpent.Add(o.FundsSpent)
	s.Payments, s.Stalls = s.Payments+o.Payments, s.Stalls+o.Stalls
	if s.Params.PricePerByte == 0 && o.Params.PricePerByte != 0 {
		s.Params = o.Params // nothing was left for the last one
	}
	return s
}

// parts returns the requests that bring what r lacks: those of an earlier run
// that can go on, else one for each gap, and none if one deal for all of r does
// as well.
func (c *Client) parts(ctx context.Context, r Request) (_ []Request, err error) {
	if r.part.Defined() || c.keepRoot(r.Root) != nil { // Retrieve finds out why, or joins
		return nil, nil
	}
	defer c.release(r.Root)
	store, err := c.cfg.Stores.Open(ctx, r.Root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if _, found, err := c.findRecord(ctx, r, store); err != nil || found {
		return nil, err
	}
	if open, err := c.openParts(ctx, r); err != nil || len(open) != 0 {
		return open, err
	}
	ls := withUnixFS(store.LinkSystem())
	below, ok := subtree(ctx, ls, r)
	if !ok {
		return nil, nil
	}
	s := survey{ls: ls, seen: make(map[cid.Cid]struct{})}
	if err := s.walk(ctx, below); err != nil {
		return nil, fmt.Errorf("look through what is held: %w", err)
	}
	if !s.scattered || len(s.gaps) > maxGaps {
		return nil, nil
	}
	return c.gapRequests(ctx, r, s)
}

// openParts returns the parts that an earlier run began with the same provider.
func (c *Client) openParts(ctx context.Context, r Request) ([]Request, error) {
	open, err := c.book.open(ctx, r.Root.String())
	if err != nil {
		return nil, err
	}
	for _, rec := range open {
		proposal, err := rec.proposal()
		if err != nil {
			return nil, err
		}
		if rec.Whole != "" && rec.Peer == r.Provider.ID.String() && rec.check() == nil {
			return []Request{r.partOf(gap{proposal.PayloadCID, proposal.Params.Selector})}, nil // there is never a second
		}
	}
	return nil, nil
}

// partOf is the request for a gap in what r asks for.
func (r Request) partOf(g gap) Request {
	r.part, r.Root, r.Selector, r.Expected = r.Root, g.root, g.selector, 0
	return r
}

// gapRequests makes one request for each gap, after a look at whether the budget
// covers them all.
func (c *Client) gapRequests(ctx context.Context, r Request, s survey) ([]Request, error) {
	if err := c.connect(ctx, r.Provider.AddrInfo); err != nil {
		return nil, err
	}
	q, err := c.askFor(ctx, r)
	if err != nil {
		return nil, err
	}
	if _, err := affordable(r, q, s.held); err != nil {
		return nil, err
	}
	requests := make([]Request, 0, len(s.gaps))
	for _, g := range s.gaps {
		requests = append(requests, r.partOf(g))
	}
	return requests, nil
}
