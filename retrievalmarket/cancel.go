package retrievalmarket

import (
	"context"
	"errors"
	"fmt"

	"github.com/tollgraph/tollgraph/voucher"
)

// cancelStored ends a deal that is not running.
func (c *Client) cancelStored(ctx context.Context, id DealID) error {
	if _, _, err := c.latest(ctx, id); errors.Is(err, ErrNoDeal) {
		_, err := c.book.get(ctx, id)
		return err // it has ended, which is what was wanted
	}
	return c.changeStored(ctx, id, func(r *record, p voucher.DealProposal) error {
		if r.Phase.Final() { // only the order went on
			r.More, r.Done = false, true
			return nil
		}
		return c.sayCancelled(ctx, r, p)
	})
}

// sayCancelled ends the deal of a record as one that runs is ended, without a
// channel.
func (c *Client) sayCancelled(ctx context.Context, r *record, p voucher.DealProposal) error {
	request, err := requestOf(*r)
	if err != nil {
		return err
	}
	store, err := c.cfg.Stores.Open(ctx, r.whole(p))
	if err != nil {
		return fmt.Errorf("deal %d: %w", r.ID, err)
	}
	d, err := newClientDeal(c, *r, p, request.Provider, store)
	if err == nil {
		err = d.refit(ctx, request)
	}
	if err != nil {
		return errors.Join(err, store.Close())
	}
	life, stop := context.WithCancel(ctx)
	d.courier.done.Go(func() { d.courier.run(life) })
	d.halted(ctx, errCancelled)
	stop()
	d.courier.done.Wait()
	d.rec.keep(d.deal)
	*r = d.rec
	return store.Close()
}
