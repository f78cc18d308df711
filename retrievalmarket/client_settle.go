package retrievalmarket

import (
	"fmt"
	"time"
)

const (
	// lastWord is how long a client that has and paid everything waits for the
	// provider to say so when nothing can tell it.
	lastWord = 10 * time.Second
	// lastWords is how often it pays once more meanwhile.
	lastWords = 4
)

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

// lookSettling waits for the provider to agree that all is paid. One that only
// takes vouchers says so once: the payment may have been lost, which is mended
// by paying again, and so may the answer. One that was paid again and is silent,
// or whose channel is gone, cannot answer any more.
func (d *clientDeal) lookSettling(now time.Time) {
	waited := now.Sub(d.progress)
	if d.deal.settled() && d.courier.vouchers() {
		if d.line.open && d.repeats < lastWords && waited > time.Duration(d.repeats+1)*lastWord/(lastWords+1) {
			d.repeats++
			d.courier.again()
		}
		if waited > lastWord && (!d.line.open || d.courier.idle()) {
			d.deal.Message = "complete; the provider did not acknowledge the last payment"
			d.deal = d.deal.step(closed{})
			return
		}
	}
	if waited > d.c.cfg.Patience {
		d.err = fmt.Errorf("%w: everything is here, the last payment is not acknowledged", ErrSuspended)
	}
}
