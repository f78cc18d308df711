package main

import (
	"context"
	"errors"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// purchase is one thing to buy, from whom, for how much, and where it goes.
type purchase struct {
	selection
	from     market.RetrievalPeer
	budget   voucher.Amount
	maxPrice *voucher.Price
	atRisk   *voucher.Bytes
	output   output
}

// errTimeout is the cause of a fetch that ran into --timeout.
var errTimeout = errors.New("time is up")

// parkedError says that a deal waits for money.
type parkedError struct{ state market.ClientDealState }

func (e *parkedError) Error() string { return e.state.Message }

// need is the budget with which the deal goes on: to its end where that is
// known, else through the next interval.
func (e *parkedError) need() voucher.Amount {
	terms := e.state.Params.Terms()
	return terms.Cost(max(e.state.Expected, e.state.TotalReceived.Add(terms.Interval))).Add(e.state.SpentBefore)
}

// buy fetches and writes out p. When it returns because ctx ended or the deal
// waits for money, the deal still runs: closing the buyer pauses it.
func (a *app) buy(ctx context.Context, b *buyer, p purchase) (receipt, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	bar := a.newProgress(p)
	unsubscribe := b.SubscribeToEvents(func(_ market.ClientEvent, s market.ClientDealState) {
		if s.Whole != p.root {
			return
		}
		bar.show(s)
		if s.Status == voucher.DealStatusInsufficientFunds {
			cancel(&parkedError{s})
		}
	})
	began := time.Now()
	state, err := b.Get(ctx, p.request())
	took := time.Since(began)
	unsubscribe()
	bar.finish()
	if err != nil {
		return receipt{}, cause(ctx, err)
	}
	return a.writeOut(ctx, b, p, state, took)
}

// writeOut writes out what was bought, if it has an output, and sums up.
func (a *app) writeOut(ctx context.Context, b *buyer, p purchase, state market.ClientDealState, took time.Duration) (receipt, error) {
	arrived := b.blocks.of(p.root)
	if p.output.path == "" {
		return newReceipt(p, state, arrived, took), nil
	}
	count, err := p.output.write(ctx, b.blocks.path(p.root), p.selection, a.out)
	if err != nil {
		return receipt{}, adviseOutput(cause(ctx, err))
	}
	if uint64(state.TotalReceived) == count.Bytes {
		arrived.blocks = count.Blocks // also those that came in an earlier run, and empty ones
	}
	return newReceipt(p, state, arrived, took), nil
}

// cause is why ctx ended, if it did and err is only that.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && errors.Is(err, ctx.Err()) {
		return why
	}
	return err
}
