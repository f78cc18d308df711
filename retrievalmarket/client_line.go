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
		d.adopt(n.chid)
	}
}

// acknowledged takes in the provider's answer to a payment.
func (d *clientDeal) acknowledged(n ackNote) {
	d.acked, d.ackLimit = d.acked.Max(n.ack.paid), max(d.ackLimit, n.ack.limit)
	d.pace = d.pace.answered(n.took)
	d.purse.Window = d.pace.window(d.purse.AtRisk)
	if n.ack.refused == 0 {
		d.hope()
		return
	}
	if d.deal.settled() && n.ack.refused == voucher.RefusedResume && !d.received {
		d.deal.Message = "complete; the provider no longer knows the deal: " + n.ack.message
		d.deal = d.deal.step(closed{})
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

// refused ends the deal with the provider's reason.
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
	if code == voucher.RefusedCredit || code == voucher.RefusedInternal || code == voucher.RefusedPayment {
		d.err = fmt.Errorf("%w: %w", ErrSuspended, err) // it may go on once that is mended
		return
	}
	d.fail(status, err)
}

// look is what a deal does when nothing happens: open a channel when it is
// time, give up one that stands still, and give up itself in the end.
func (d *clientDeal) look(ctx context.Context) {
	d.count()
	a := d.deal.Account
	now := time.Now()
	// What the provider asks for may be under way, and what it sent too. If
	// nothing comes, its account differs from ours: pay for all that is held.
	d.payAll = d.payAll || (d.line.still || d.asked) && now.Sub(d.line.opened) > clientTick
	switch {
	case a.Ended:
		d.lookSettling(now)
	case d.parked != "" || d.short():
		d.progress = now // it waits for AddMoreFunds, as long as the user likes
	case now.Sub(d.progress) > d.patience(d.c.cfg.Patience):
		d.err = fmt.Errorf("%w: no progress for %s", ErrSuspended, now.Sub(d.progress).Round(time.Second))
		if d.busy != nil {
			d.err = fmt.Errorf("%w: %w", d.err, d.busy)
		}
	case !d.line.open && now.After(d.line.next):
		d.openLine(ctx)
	case d.line.open && now.Sub(d.line.opened) > d.patience(d.c.cfg.StallTimeout):
		d.c.log.Info("channel stands still, opening another", "id", d.id)
		d.c.checkConnection(d.provider.ID)
		d.drop()
	}
}

// skipsAtLeast is how many bytes of what is held already are passed in a second at
// least before a channel brings anything: a provider reads them at a bounded rate.
const skipsAtLeast = 64 << 20

// patience is longer while the provider unseals, and before the first byte of a
// channel, which begins behind what is held: another one would begin there anew.
func (d *clientDeal) patience(usual time.Duration) time.Duration {
	if a := d.deal.Account; !a.Terms.Unseal.IsZero() && d.seen == 0 && !a.Paid.IsZero() {
		return d.c.cfg.UnsealPatience
	}
	if d.line.open && d.seen == d.line.from {
		held := min(d.store.Written(), 1<<50)
		usual += time.Duration(held/(skipsAtLeast/1000)) * time.Millisecond //nolint:gosec // bounded above
	}
	return usual
}

// openLine opens a channel, aside: it can take its time.
func (d *clientDeal) openLine(ctx context.Context) {
	lineCtx, cancel := context.WithCancel(ctx) // bounds the channel
	d.line.open, d.line.still, d.line.stopped, d.line.heard, d.line.opened = true, false, false, false, time.Now()
	d.line.cancel, d.line.from = cancel, d.seen
	d.line.seq++
	seq, again, by := d.line.seq, d.line.chid, d.line.by
	d.courier.done.Go(func() {
		note := d.dial(lineCtx, again, by)
		note.seq = seq
		d.inbox.post(note)
	})
}

// dial opens a channel, or restarts again, which by carried, if that is one.
func (d *clientDeal) dial(ctx context.Context, again datatransfer.ChannelID, by clientCarrier) openedNote {
	dialCtx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := d.c.connect(dialCtx, d.provider.AddrInfo); err != nil {
		return openedNote{err: err}
	}
	if again.Initiator != "" {
		err := by.restart(ctx, again)
		return openedNote{chid: again, by: by, older: true, over: err != nil && ctx.Err() == nil, err: err}
	}
	by = d.c.carrierFor(d.provider.ID)
	if by.inBand() {
		d.courier.rideAlong()
	}
	chid, older, err := by.open(ctx, d)
	return openedNote{chid: chid, by: by, older: older, err: err}
}

// drop lets go of the channel and plans the next.
func (d *clientDeal) drop() {
	if !d.line.open {
		return
	}
	d.hangUp(true)
	d.line.backoff = min(maxBackoff, max(d.line.backoff*2, 250*time.Millisecond))
	d.line.next = time.Now().Add(d.line.backoff)
}

// hangUp ends the channel. The provider is told if it may still be there.
func (d *clientDeal) hangUp(tell bool) {
	if !d.line.open {
		return
	}
	chid, cancel := d.line.chid, d.line.cancel
	d.line.open, d.line.still = false, false
	if d.oneChannel() && chid.Initiator != "" && d.err == nil && !d.deal.Phase.Final() {
		cancel() // the channel is restarted
		return
	}
	d.line.chid = datatransfer.ChannelID{ID: chid.ID}
	if !tell || chid.Initiator == "" {
		cancel()
		return
	}
	d.closeChannel(chid, cancel)
}

// oneChannel reports whether the provider takes one channel for a deal, to be
// restarted when it breaks, and no second proposal. On data-transfer that is one
// without a payment stream, which is known when it has said what it speaks: one
// that starts may say so before it speaks everything, and is heard again.
func (d *clientDeal) oneChannel() bool {
	if d.c.transfers != nil && d.line.by == d.c.transfers {
		if lacks, known := d.c.lacksStream(d.provider.ID); known {
			d.line.older = lacks
		}
	}
	return d.line.older
}

// closeChannel lets go of a channel, aside.
func (d *clientDeal) closeChannel(chid datatransfer.ChannelID, cancel context.CancelFunc) {
	d.c.done.Go(func() {
		defer cancel()
		ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		if err := d.c.carrierOf(chid).close(ctx, chid); err != nil {
			d.c.log.Debug("close channel", "channel", chid, "err", err)
		}
	})
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
