package retrievalmarket

import (
	"context"
	"errors"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

// grant is what the channel should be let do now.
func (d *providerDeal) grant() validation.Grant {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := validation.Grant{Verdict: d.deal.verdict()}
	g.Verdict.Settle = g.Verdict.Settle || d.streaming && !d.done // the client's word closes the deal
	v := d.view
	g.Queued = d.told.Queued
	switch {
	case v.started && v.placed:
		g.Offset, g.Ahead = v.offset, v.ahead
	case d.told.Offset != 0 && d.deal.Account.Moved >= g.Verdict.Limit: // held back for money
		g.Offset = d.told.Offset
	case v.restarted && v.placed && !d.told.Probe:
		g.Offset, g.Ahead = v.offset, v.ahead
	case v.restarted, d.told.Probe, d.told.Offset != 0: // the last was held back for money, which came
		g.Probe = true
	}
	return g
}

// tell passes the grant on when it changed, when the channel stopped below it,
// and when the client must be asked for money. It does not wait: a client that
// does not read must not keep its payments from being answered. One message is
// under way at a time; when it has gone, or could not, this is asked again, and so
// it is when a channel that is being opened is open.
func (d *providerDeal) tell(ctx context.Context) {
	d.mu.Lock()
	chid, attached := d.view.chid, d.view.attached
	d.mu.Unlock()
	if !attached || d.p.away(d.key.From) {
		return
	}
	g := d.grant()
	below := d.deal.Account.Moved < g.Verdict.Limit
	if below {
		d.release()
	}
	if d.telling != nil || d.untold {
		return
	}
	news := &telling{grant: g, reply: d.word, word: d.word != nil, over: make(chan struct{})}
	if news.reply == nil {
		if news.reply = d.askFor(); news.reply != nil {
			news.asked = d.deal.Account.Paid.Add(news.reply.PaymentOwed)
		}
	}
	if g == d.told && news.reply == nil && !d.unsure && !(d.stopped && below) {
		return
	}
	if d.opening = d.p.carrierOf(chid).opening(chid); d.opening != nil {
		return
	}
	d.telling, d.word, d.stopped, d.unsure = news, nil, false, false
	d.p.done.Go(func() {
		defer close(news.over)
		news.err = d.update(ctx, chid, g, news.reply)
	})
}

// telling is one message to the client that is under way.
type telling struct {
	grant validation.Grant
	reply *voucher.DealResponse
	word  bool           // reply is a word that is said once, such as a refusal
	asked voucher.Amount // what reply asks the client to have paid in all, zero if it does not
	stale bool           // the channel was replaced or restarted since
	news  bool           // something happened since
	over  chan struct{}  // closed when err is set
	err   error
}

// gone is closed when what is under way has gone; nil if nothing is.
func (t *telling) gone() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.over
}

// hasTold takes in what became of a message. The limit may be raised all the same
// if it could not be sent; the next event, or the tick, comes back to it.
func (d *providerDeal) hasTold() {
	t := d.telling
	d.telling = nil
	switch {
	case t.stale: // what holds for the channel now is not known
		d.unsure = true
	case t.err != nil:
		d.p.log.Debug("tell", "peer", d.key.From, "id", d.key.ID, "err", t.err)
		d.untold, d.stopped = !t.news, true
		if t.word && d.word == nil {
			d.word = t.reply
		}
	default:
		d.told = t.grant
		if !t.asked.IsZero() {
			d.asked = t.asked
		}
	}
}

// happened notes that something did: what could not be said may be now, also what
// is still being said.
func (d *providerDeal) happened() {
	d.untold = false
	if d.telling != nil {
		d.telling.news = true
	}
}

// askAnew forgets what was asked for, also what is still being said: a payment came,
// and if it was too little the rest is asked for.
func (d *providerDeal) askAnew() {
	d.asked = voucher.Amount{}
	if d.telling != nil {
		d.telling.asked = voucher.Amount{}
	}
}

// release lets a channel go on that was held back for money.
func (d *providerDeal) release() {
	d.mu.Lock()
	chid, held := d.view.chid, d.view.held
	d.view.held = false
	d.mu.Unlock()
	if held {
		d.p.carrierOf(chid).hold(chid, 0)
	}
}

// askFor returns the request for money that an older client waits for, once
// for each amount; a client with a payment stream knows by itself.
func (d *providerDeal) askFor() *voucher.DealResponse {
	due := d.deal.Account.Due()
	if due.IsZero() || d.streaming || d.asked == d.deal.Account.Paid.Add(due) {
		return nil
	}
	return &voucher.DealResponse{Status: d.deal.status(), ID: d.key.ID, PaymentOwed: due}
}

// askedFirst is what the answer to the proposal asked for: unsealing.
func (d *providerDeal) askedFirst() voucher.Amount {
	if a := d.deal.Account; a.Paid.Less(a.Terms.Unseal) {
		return a.Terms.Unseal
	}
	return voucher.Amount{}
}

// update lets the deal's channel go as far as g says, if it is still its own.
func (d *providerDeal) update(ctx context.Context, chid datatransfer.ChannelID, g validation.Grant, reply *voucher.DealResponse) error {
	d.p.mu.Lock()
	own := d.p.byChan[chid] == d
	if own {
		d.mu.Lock()
		d.confine(chid, g.Verdict.Limit)
		d.mu.Unlock()
	}
	d.p.mu.Unlock()
	if !own {
		return errNoChannel
	}
	return d.say(ctx, chid, g, reply)
}

// say is update for a channel whose bounds stay as they are.
func (d *providerDeal) say(ctx context.Context, chid datatransfer.ChannelID, g validation.Grant, reply *voucher.DealResponse) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	return d.p.carrierOf(chid).grant(ctx, chid, g, reply)
}

// goodbye tells the client how the deal ended and lets the channel go.
func (d *providerDeal) goodbye(ctx context.Context) {
	d.mu.Lock()
	chid, attached := d.view.chid, d.view.attached
	d.mu.Unlock()
	event := ProviderEventComplete
	if d.deal.Phase == Failed {
		event = ProviderEventError
	}
	d.publish(event)
	switch {
	case d.wasOver:
	case d.deal.Phase == Completed || d.lent != 0:
		d.closeLater(ctx, chid)
	default:
		defer d.repay()
	}
	if !attached || d.p.away(d.key.From) {
		return
	}
	if d.telling != nil { // one thing after the other
		<-d.telling.over
	}
	if opening := d.p.carrierOf(chid).opening(chid); opening != nil {
		select {
		case <-opening:
		case <-ctx.Done():
		}
	}
	if !d.streaming && time.Since(d.rec.Created) < time.Second {
		pause(ctx, acceptanceLead)
	}
	reply := &voucher.DealResponse{Status: d.deal.status(), ID: d.key.ID, Message: d.deal.Message}
	var err error
	if d.deal.Phase == Completed {
		err = d.letGo(ctx, chid, reply)
	} else {
		err = d.reject(ctx, chid, reply)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		d.p.log.Debug("last word", "peer", d.key.From, "id", d.key.ID, "err", err)
	}
}

// letGo lets the channel of a completed deal complete. One that has more to
// send keeps its limit: that the client wants no more is only its word. It
// completes within that limit if it was about to, and is closed later if it was not.
func (d *providerDeal) letGo(ctx context.Context, chid datatransfer.ChannelID, reply *voucher.DealResponse) error {
	if d.wasOver {
		return d.say(ctx, chid, validation.Grant{Verdict: revalidator.Verdict{Limit: voucher.MaxBytes}}, reply)
	}
	last := d.grant()
	last.Verdict.Settle = false
	d.mu.Lock()
	d.confine(chid, last.Verdict.Limit)
	d.mu.Unlock()
	return d.say(ctx, chid, last, reply)
}

// closeLater ends a channel that had more to send when its deal ended, by its client's
// word or with something lent, and looks at what that was sent meanwhile.
func (d *providerDeal) closeLater(ctx context.Context, chid datatransfer.ChannelID) {
	d.p.done.Go(func() {
		pause(ctx, closeAfter)
		d.closeNow(ctx, chid)
		d.tally()
		d.repay()
	})
}

// reject ends the channel with a reason.
func (d *providerDeal) reject(ctx context.Context, chid datatransfer.ChannelID, reply *voucher.DealResponse) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	return d.p.carrierOf(chid).reject(ctx, chid, reply)
}

// closeChannel lets go of a channel that another one replaced. It does not
// wait: the message to a client that is gone may take its time.
func (d *providerDeal) closeChannel(ctx context.Context, chid datatransfer.ChannelID) {
	if chid == (datatransfer.ChannelID{}) {
		return
	}
	d.p.done.Go(func() { d.closeNow(ctx, chid) })
}

// closeNow is closeChannel, and waits.
func (d *providerDeal) closeNow(ctx context.Context, chid datatransfer.ChannelID) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if err := d.p.carrierOf(chid).close(ctx, chid); err != nil {
		d.p.log.Debug("close channel", "channel", chid, "err", err)
	}
}
