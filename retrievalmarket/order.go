package retrievalmarket

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// An order is a root and a selection that a user wants, and the budget is the
// order's: over all deals that it takes, at one provider after the other, until
// everything is here or the user gives it up.

// order is the id of the order that r belongs to: that of its first deal.
func (r record) order() DealID {
	if r.Order == 0 {
		return DealID(r.ID)
	}
	return DealID(r.Order)
}

// want returns the selector of the order that r, with proposal p, is part of.
func (r record) want(p voucher.DealProposal) (datamodel.Node, error) {
	if len(r.Want) == 0 {
		return p.Params.Selector, nil
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(nb, bytes.NewReader(r.Want)); err != nil {
		return nil, fmt.Errorf("deal %d: stored selector: %w", r.ID, err)
	}
	return nb.Build(), nil
}

// setWant notes what the order of a part selects.
func (r *record) setWant(sel datamodel.Node) error {
	if sel == nil {
		sel = selectors.All()
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(sel, &buf); err != nil {
		return fmt.Errorf("encode selector: %w", err)
	}
	r.Want = buf.Bytes()
	return nil
}

// done reports whether the order of r ended with it.
func (r record) done() bool { return r.Done || r.Phase == Completed && r.Whole == "" }

// orderOf finds among all records of a root, newest first, the order that asks for
// all that sel selects, unless it has ended: its id, and what its deals have paid.
// Nothing is 0 and zero.
func (c *Client) orderOf(ctx context.Context, records []record, sel datamodel.Node) (id DealID, spent Amount, err error) {
	for _, r := range records {
		p, err := r.proposal()
		if err != nil {
			return 0, spent, err
		}
		want, err := r.want(p)
		if err != nil {
			return 0, spent, err
		}
		if !selectors.Equal(want, sel) {
			continue
		}
		if r.done() {
			break
		}
		id, spent = r.order(), spent.Add(c.paidOn(ctx, r))
	}
	return id, spent, nil
}

// paidOn is what a deal paid. A voucher is on disk before the record is, so the
// lane may know of more than the record of a deal that a crash interrupted.
func (c *Client) paidOn(ctx context.Context, r record) Amount {
	if !c.everPaid(r) || c.cfg.Node == nil {
		return r.Paid
	}
	channel, err := parseAddress(r.Channel)
	if err != nil {
		return r.Paid
	}
	v, err := c.cfg.Node.CreatePaymentVoucher(ctx, channel, r.Paid, r.Lane)
	if err != nil {
		return r.Paid // nothing was paid on it
	}
	last, err := voucher.AmountFromBig(v.Amount.Int)
	if err != nil {
		return r.Paid
	}
	return r.Paid.Max(last)
}

// latest returns the open deal of the order that a deal belongs to, with which
// the order goes on. The error wraps ErrNoDeal if the order has ended.
func (c *Client) latest(ctx context.Context, id DealID) (record, voucher.DealProposal, error) {
	r, err := c.book.get(ctx, id)
	if err != nil {
		return r, voucher.DealProposal{}, err
	}
	p, err := r.proposal()
	if err != nil || r.open() {
		return r, p, err
	}
	open, err := c.book.open(ctx, r.whole(p).String())
	if err != nil {
		return r, p, err
	}
	for _, other := range open {
		if other.order() == r.order() {
			p, err := other.proposal()
			return other, p, err
		}
	}
	return r, p, fmt.Errorf("deal %d has ended: %w", id, ErrNoDeal)
}

// endOrder notes that no deal follows those of an order; done says that the
// order itself is over.
func (c *Client) endOrder(ctx context.Context, root cid.Cid, order DealID, done bool) error {
	open, err := c.book.open(ctx, root.String())
	if err != nil {
		return err
	}
	for _, r := range open {
		if r.order() != order || !r.Phase.Final() {
			continue
		}
		r.More, r.Done = false, done
		if err := c.book.put(ctx, root.String(), &r); err != nil {
			return err
		}
		c.noMore(DealID(r.ID))
	}
	return nil
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
		rec.Paid, rec.More = c.paidOn(ctx, rec), false
		rec.keep(rec.deal(p.Params.Terms(), 0).step(failed{voucher.DealStatusCancelled, "another deal on the same root went on in its place"}))
		if err := c.book.put(ctx, whole.String(), &rec); err != nil {
			return err
		}
		c.noMore(DealID(rec.ID))
	}
	return nil
}

// noMore takes back that another deal is to follow one that ended in this process.
func (c *Client) noMore(id DealID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, known := c.ended[id]; known {
		s.More = false
		c.ended[id] = s
	}
}
