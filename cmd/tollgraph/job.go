package main

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// job is a purchase that is being made in the background.
type job struct {
	purchase
	id    market.DealID // of the deal that ran when it began
	order market.DealID // that it is, in the market's terms
	done  chan struct{} // closed at the end

	got receipt // when done is closed
	err error   // when done is closed: why there is no receipt
}

// begin begins p, or joins it if it runs already. What is wrong with it at the
// start is the error; the rest is the job's. The order that p is from, if there
// is one, is kept until it is done.
func (o *office) begin(ctx context.Context, p purchase, from *order) (*job, error) {
	began := time.Now()
	if j := o.writing(ctx, p); j != nil {
		return j, nil
	}
	o.node.host.Peerstore().AddAddrs(p.from.ID, p.from.Addrs, peerstore.TempAddrTTL) // also for a deal that runs: it may have moved
	id, err := o.buyer.Retrieve(ctx, p.request())
	if err != nil {
		return nil, err
	}
	s, err := o.buyer.RetrievalStatus(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := o.shelf.unhold(ctx, s.Order); err != nil {
		return nil, err
	}
	if from != nil {
		if err := o.shelf.put(ctx, s.Order, *from); err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if j := o.busy[s.Order]; j != nil && (from == nil || j.output.path == p.output.path) {
		return j, nil
	}
	j := &job{purchase: p, id: id, order: s.Order, done: make(chan struct{})}
	o.busy[s.Order] = j
	o.jobs.Go(func() { o.run(j, began) })
	return j, nil
}

// writing is the job that writes out, or is about to, just what p wants where p
// wants it, or nil: its last deal is completed, and another for the same would find
// that everything is here and, at the end, the output too.
func (o *office) writing(ctx context.Context, p purchase) *job {
	o.mu.Lock()
	var same *job
	for _, j := range o.busy {
		if j.output == p.output && j.target == p.target && selectors.Equal(j.selector, p.selector) {
			same = j
		}
	}
	o.mu.Unlock()
	if same == nil {
		return nil
	}
	last, err := o.buyer.LatestDeal(ctx, same.order)
	if err != nil {
		return nil // Retrieve says what is wrong
	}
	if s, err := o.buyer.RetrievalStatus(ctx, last); err != nil || s.Status != voucher.DealStatusCompleted {
		return nil
	}
	return same
}

// run waits until j is bought and writes it out. What did not end is kept, and
// tried again by keep.
func (o *office) run(j *job, began time.Time) {
	ctx := o.life
	s, err := o.buyer.Wait(ctx, j.id)
	if err == nil {
		j.got, err = o.writeOut(ctx, o.buyer, j.purchase, s, time.Since(began))
	}
	j.err = err
	if !errors.Is(err, market.ErrSuspended) && ctx.Err() == nil {
		if err := o.shelf.drop(ctx, j.order); err != nil {
			o.log.Error("forget an order", "deal", j.order, "err", err)
		}
	}
	if err != nil && ctx.Err() == nil {
		o.log.Warn("fetch", "what", j.name(), "deal", j.order, "err", err)
	}
	o.mu.Lock()
	maps.DeleteFunc(o.busy, func(_ market.DealID, other *job) bool { return other == j })
	o.mu.Unlock()
	close(j.done)
}

// retryEvery is how often a daemon goes on with what stands still.
const retryEvery = time.Minute

// keep goes on with every deal that has not ended, unless the user paused it:
// now, and again from time to time, until ctx ends.
func (o *office) keep(ctx context.Context) {
	o.writeLate(ctx)
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		o.resumeAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// writeLate writes out what was complete when the last daemon was killed. It
// costs nothing: everything is here.
func (o *office) writeLate(ctx context.Context) {
	ids, err := o.shelf.ids(ctx)
	if err != nil {
		o.log.Error("read orders", "err", err)
		return
	}
	for _, id := range ids {
		if err := o.writeOne(ctx, id); err != nil && ctx.Err() == nil {
			o.log.Warn("write out", "deal", id, "err", err)
		}
	}
}

// writeOne writes out the deal of an order if it is complete, and forgets it if
// it ended otherwise.
func (o *office) writeOne(ctx context.Context, id market.DealID) error {
	if _, err := o.buyer.RequestOf(ctx, id); !errors.Is(err, market.ErrNoDeal) {
		return err // it has not ended, and so goes on
	}
	kept, _, err := o.shelf.order(ctx, id)
	if err != nil {
		return err
	}
	last, err := o.buyer.LatestDeal(ctx, id)
	if errors.Is(err, market.ErrNoDeal) { // it was pruned: nobody went on with it for that long
		return o.shelf.drop(ctx, id)
	}
	if err != nil {
		return err
	}
	s, err := o.buyer.RetrievalStatus(ctx, last)
	if err == nil && s.Status == voucher.DealStatusCompleted {
		p, err := kept.purchase()
		if err != nil {
			return err
		}
		if _, err = o.begin(ctx, p, &kept); err != nil {
			return err
		}
	}
	return o.shelf.drop(ctx, id)
}

// resumeAll goes on with what stands still. What waits for money looks again
// whether a limit was lifted, or a new day has begun.
func (o *office) resumeAll(ctx context.Context) {
	ids, err := o.buyer.OpenDeals(ctx)
	if err != nil {
		o.log.Error("resume", "err", err)
		return
	}
	for _, id := range ids {
		if err := o.goOn(ctx, id); err != nil && ctx.Err() == nil {
			o.log.Warn("resume", "deal", id, "err", err)
		}
	}
}

// goOn resumes the order of a deal if it does not run, unless the user paused it,
// and nudges one that is parked.
func (o *office) goOn(ctx context.Context, id market.DealID) error {
	s, err := o.buyer.RetrievalStatus(ctx, id)
	if err != nil {
		return err
	}
	if held, err := o.shelf.held(ctx, s.Order); err != nil || held {
		return err
	}
	o.mu.Lock()
	busy := o.busy[s.Order] != nil
	o.mu.Unlock()
	if s.Status == voucher.DealStatusInsufficientFunds {
		return o.buyer.AddMoreFunds(ctx, id, voucher.Amount{})
	}
	if busy {
		return nil
	}
	return o.resume(ctx, id)
}
