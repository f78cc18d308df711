package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// openedNote is how the opening of a channel ended.
type openedNote struct {
	seq   int
	chid  datatransfer.ChannelID
	by    clientCarrier // of chid
	older bool          // see line
	over  bool          // the channel can no longer be restarted
	err   error
}

// handle takes in one note. What follows from it is settleUp's.
func (d *clientDeal) handle(ctx context.Context, note any) {
	switch n := note.(type) {
	case openedNote:
		d.opened(n)
	case channelNote:
		d.channelEvent(n)
	case ackNote:
		d.acknowledged(n)
	case storeNote:
		d.notKept(n.err)
	case arrivedNote: // settleUp counts
	case disconnectNote:
		d.disconnected()
	case fundsNote:
		n.reply <- d.fund(ctx, n.change(d.rec.Budget))
	case haltNote:
		d.halted(ctx, n.why)
	}
}

// opened takes in how an opening ended. One that was given up meanwhile may
// still have left a channel behind.
func (d *clientDeal) opened(n openedNote) {
	switch {
	case n.seq != d.line.seq || !d.line.open:
		if n.err == nil && n.chid != d.line.chid {
			d.closeChannel(n.chid, func() {})
		}
	case n.over && !d.deal.Account.Ended:
		d.refused(voucher.RefusedResume, "the channel ended: "+n.err.Error())
	case n.err != nil:
		d.c.log.Debug("open channel", "id", d.id, "err", n.err)
		if errors.Is(n.err, ErrUnreachable) {
			d.busy = ErrUnreachable
		}
		d.drop()
	default:
		if errors.Is(d.busy, ErrUnreachable) {
			d.busy = nil
		}
		d.line.by, d.line.older = n.by, n.older
		d.rec.Plain = n.older && n.by.inBand()
		if d.adopt(n.chid); d.deal.Account.Ended {
			d.returns++
		}
	}
}

// acknowledged takes in the provider's answer to a payment.
func (d *clientDeal) acknowledged(n ackNote) {
	d.rec.Streamed = true
	d.acked, d.ackLimit = d.acked.Max(n.ack.paid), max(d.ackLimit, n.ack.limit)
	d.pace = d.pace.answered(n.took)
	d.purse = d.newPurse() // for the new pace
	if n.ack.refused == 0 {
		d.hope()
		return
	}
	d.refused(n.ack.refused, n.ack.message)
}

// hope takes a good word of the provider for progress, but not for ever: one that
// accepts every channel and sends nothing on it would never be given up.
func (d *clientDeal) hope() {
	d.busy = nil
	if d.hopes < maxHopes {
		d.hopes++
		d.progress = time.Now()
	}
}

// adopt makes chid the deal's channel; later ones have higher ids.
func (d *clientDeal) adopt(chid datatransfer.ChannelID) bool {
	last := d.line.chid
	if !d.line.open || chid.ID < last.ID || chid.ID == last.ID && last.Initiator == "" {
		return false
	}
	d.line.chid = chid
	return true
}

func (d *clientDeal) channelEvent(n channelNote) {
	if n.kind == noteReply {
		d.reply(n)
		return
	}
	if !d.adopt(n.chid) {
		return
	}
	switch n.kind {
	case noteAccepted:
		d.line.heard = true
		d.deal = d.deal.step(accepted{})
		d.hope()
		d.courier.again() // the last payment may have been lost with the last channel
	case noteStopped:
		d.standsStill()
	case noteResumed:
		d.line.still = false
	case noteEnded:
		d.count()
		if d.sync(); d.err == nil {
			d.deal = d.deal.step(ended{d.deal.Account.Moved})
			d.progress = time.Now()
		}
	case noteClosed: // a provider with a payment stream says so there, when it has booked everything
		switch {
		case !d.line.heard && d.courier.vouchers() && !d.deal.Account.Terms.Free():
			d.courier.byStream() // the provider says nothing by it, and a voucher has no channel to go on
			d.doneSaid = false   // a channel cannot carry that word; a stream's provider waits for it
		case d.deal.settled() && (d.courier.vouchers() || d.deal.Account.Paid.IsZero()):
			d.deal = d.deal.step(closed{})
		}
		d.line.open = false
	case noteFault:
		d.fail(voucher.DealStatusErrored, fmt.Errorf("the provider broke the rules: %w", n.err))
	case noteLost:
		d.c.log.Debug("channel lost", "id", d.id, "channel", n.chid, "reason", n.reason)
		if d.oneChannel() && !d.deal.Account.Ended {
			d.refused(voucher.RefusedResume, "the channel ended: "+n.reason)
			return
		}
		d.drop()
	}
}

// standsStill counts a stall, once. A stop at the first boundary is none:
// nothing was paid yet when it was set. Nor is the first stop of a channel that
// replaced another: the provider looks where it is.
func (d *clientDeal) standsStill() {
	if d.line.still || d.deal.Account.Ended {
		return
	}
	d.line.still = true
	if total := Bytes(d.rec.Expected); total != 0 && d.ackLimit >= total {
		return // it may send everything: it has, and waits for the last word
	}
	first := !d.line.stopped && (d.line.seq > 1 || d.seen < revalidator.Boundary(d.deal.Account.Terms, 2))
	d.line.stopped = true
	d.c.log.Debug("stands still", "id", d.id, "seen", d.seen, "limit", d.deal.Account.Limit(), "counts", !first)
	if !first {
		d.rec.Stalls++
	}
}

// reply takes in what the provider says of the deal. How much is owed is
// never taken from it.
func (d *clientDeal) reply(n channelNote) {
	if n.voucher.Type != voucher.ResponseType {
		return
	}
	r, err := voucher.DecodeDealResponse(n.voucher.Voucher)
	if err != nil {
		d.c.log.Warn("unreadable answer", "id", d.id, "err", err)
		return
	}
	if n.chid.ID < d.line.chid.ID {
		return // of a channel that was replaced
	}
	switch r.Status {
	case voucher.DealStatusAccepted, voucher.DealStatusFundsNeededUnseal, voucher.DealStatusUnsealing, voucher.DealStatusUnsealed, voucher.DealStatusOngoing:
		d.deal = d.deal.step(accepted{})
		d.unsealing = r.Status == voucher.DealStatusUnsealing
		d.hope()
	case voucher.DealStatusFundsNeeded, voucher.DealStatusFundsNeededLastPayment:
		d.deal = d.deal.step(accepted{})
		d.asked = true
		d.courier.again()
		if code, detail, ok := voucher.ParseRefusal(r.Message); ok {
			d.refused(code, detail)
		}
	case voucher.DealStatusCompleted:
		if d.count(); d.deal.settled() && d.courier.vouchers() {
			d.deal = d.deal.step(closed{})
		}
	default:
		d.ends(r)
	}
}

// ends takes in an answer that ends the deal, or its channel.
func (d *clientDeal) ends(r voucher.DealResponse) {
	code, detail, ours := voucher.ParseRefusal(r.Message)
	switch {
	case ours && code == voucher.RefusedBusy:
		d.busy = &ProviderError{Status: r.Status, Refusal: code, Message: detail}
		d.drop()
		return
	case ours:
		d.refused(code, detail)
		return
	}
	status := r.Status
	if status != voucher.DealStatusRejected && status != voucher.DealStatusDealNotFound && status != voucher.DealStatusCancelled {
		status = voucher.DealStatusErrored
	}
	d.fail(status, &ProviderError{Status: r.Status, Message: r.Message})
}

// ProviderError is why a provider ended a deal, or did not begin one.
type ProviderError struct {
	Status  DealStatus
	Refusal voucher.Refusal // 0 if the provider gave no code
	Message string
}

func (e *ProviderError) Error() string {
	if e.Refusal != 0 {
		return fmt.Sprintf("the provider refused: %s", e.Message)
	}
	return fmt.Sprintf("the provider ended the deal (%s): %s", e.Status, e.Message)
}

// Unwrap returns the refusal's code, and ErrNotFound where that is what it is.
func (e *ProviderError) Unwrap() []error {
	var errs []error
	if e.Refusal != 0 {
		errs = append(errs, e.Refusal)
	}
	if e.Refusal == voucher.RefusedContent || e.Status == voucher.DealStatusDealNotFound {
		errs = append(errs, ErrNotFound)
	}
	if e.Refusal == voucher.RefusedCredit {
		errs = append(errs, ErrNoCredit)
	}
	return errs
}

// refused ends the deal with the provider's reason. One that is settled is complete:
// its provider has closed it, and what it said of that was lost.
func (d *clientDeal) refused(code voucher.Refusal, detail string) {
	status := voucher.DealStatusRejected
	if code == voucher.RefusedContent {
		status = voucher.DealStatusDealNotFound
	}
	err := &ProviderError{Status: status, Refusal: code, Message: detail}
	if d.received {
		d.fail(status, err)
		return
	}
	if d.deal.settled() && code == voucher.RefusedResume {
		d.closeAlone("the provider no longer knows the deal: " + detail)
		return
	}
	if code == voucher.RefusedCredit || code == voucher.RefusedInternal || code == voucher.RefusedPayment {
		d.err = fmt.Errorf("%w: %w", ErrSuspended, err) // it may go on once that is mended
		return
	}
	d.fail(status, err)
}

// fund changes the budget.
func (d *clientDeal) fund(ctx context.Context, budget Amount) error {
	if d.rec.Channel != "" {
		if err := d.c.cfg.Node.SetLaneBudget(ctx, d.channel, d.rec.Lane, budget.Sub(d.rec.Before)); err != nil {
			return err
		}
	}
	d.rec.Budget, d.parked, d.payAll, d.progress = budget, "", true, time.Now()
	d.purse = d.newPurse()
	d.keep(ctx, true)
	d.publishState() // before the one who asked for it looks
	return nil
}

// halted suspends the deal or, if it is cancelled, pays for what arrived and ends
// it.
func (d *clientDeal) halted(ctx context.Context, why error) {
	if d.deal.Phase.Final() || d.received { // nothing is left to be ended
		return
	}
	if !errors.Is(why, errCancelled) {
		d.err = why
		return
	}
	d.count()
	d.sync()
	d.deal = d.deal.step(ended{d.deal.Account.Moved})
	if err := d.pay(ctx); err != nil {
		d.c.log.Warn("payment for what arrived", "id", d.id, "err", err)
	}
	if !d.sayGone(ctx) {
		why = fmt.Errorf("%w; %s", why, untold)
	}
	d.fail(voucher.DealStatusCancelled, why)
	d.rec.Done = true
}

// untold is added to the reason of a cancelled deal whose provider was not told.
const untold = "the provider could not be told, and ends the deal when nothing has happened to it for long enough"

// sayGone tells the provider, after the last payment, that nothing more is wanted,
// and reports whether it knows.
func (d *clientDeal) sayGone(ctx context.Context) bool {
	if d.deal.Account.Terms.Free() {
		return true // the end of the channel says so, and nothing is kept of it
	}
	if !d.doneSaid {
		d.doneSaid = true
		d.courier.send(payFrame{id: d.id, done: true})
	}
	return d.courier.flush(ctx)
}
