package retrievalmarket

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	// lastWord is how long a client that has and paid everything waits for the
	// provider to say so when nothing can tell it.
	lastWord = 10 * time.Second
	// lastWords is how often it pays once more meanwhile.
	lastWords = 4
)

// receive tells whoever waits for the deal that it is complete: everything is here,
// and the provider says that it has all the money. That both sides have closed
// the deal takes one more round trip, which nobody has to wait for; until then it
// stays open on disk, so that a client that crashes says its last word later.
func (d *clientDeal) receive() {
	if d.received || d.rec.Whole != "" { // more deals are to come on the same store
		return
	}
	if d.closeStore(); d.err != nil {
		return
	}
	d.received = true
	d.publishState()
	d.of.receive()
}

// closeAlone ends a deal that is settled without the provider's agreement; why says
// what is missing.
func (d *clientDeal) closeAlone(why string) {
	d.deal.Message = "complete; " + why
	d.deal = d.deal.step(closed{})
}

// closeStore closes the store, once.
func (d *clientDeal) closeStore() {
	if d.received {
		return
	}
	if err := d.store.Close(); err != nil && d.err == nil {
		d.err = fmt.Errorf("%w: %w", ErrSuspended, err)
	}
}

// disconnected takes in that the last connection to the provider is gone. When
// everything has moved the channel needs none; but a payment that went as a
// voucher may have gone with the connection, and nobody would say so.
func (d *clientDeal) disconnected() {
	switch {
	case !d.line.open:
	case !d.deal.Account.Ended:
		d.drop()
	case d.courier.vouchers():
		d.courier.again()
	}
}

// comesBack reports whether the last payment needs another channel: it rides along,
// its channel is gone, and the provider takes up the deal on the next.
func (d *clientDeal) comesBack() bool {
	return d.line.chid.Initiator == "" && d.line.by != nil && d.line.by.inBand() && !d.line.older && d.returns < lastWords
}

// lookSettling waits for the provider to agree that all is paid. One that only
// takes vouchers says so once: the payment may have been lost, which is mended
// by paying again, and so may the answer. One that was paid again and is silent,
// or whose channel is gone, cannot answer any more.
func (d *clientDeal) lookSettling(ctx context.Context, now time.Time) {
	waited := now.Sub(d.progress)
	if d.received && waited > lastWord {
		d.closeAlone("the provider did not say that it has closed the deal")
		return
	}
	if d.deal.settled() && d.courier.vouchers() {
		back := d.comesBack()
		if back && !d.line.open && now.After(d.line.next) {
			d.openLine(ctx)
		}
		if d.line.open && d.repeats < lastWords && waited > time.Duration(d.repeats+1)*lastWord/(lastWords+1) {
			d.repeats++
			d.courier.again()
		}
		if waited > lastWord && !back && (!d.line.open || d.courier.idle()) {
			d.closeAlone("the provider did not acknowledge the last payment")
			return
		}
	}
	if waited > d.c.cfg.Patience {
		d.err = fmt.Errorf("%w: everything is here, the last payment is not acknowledged", ErrSuspended)
	}
}

// sayLastWords waits, for a moment, until those retrievals are over that lack
// nothing else.
func (c *Client) sayLastWords() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	c.mu.Lock()
	roots := slices.Collect(maps.Keys(c.roots))
	c.mu.Unlock()
	for _, root := range roots {
		if c.untilLeft(ctx, root) != nil {
			return
		}
	}
}
