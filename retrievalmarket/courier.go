package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/tollgraph/tollgraph/voucher"
)

// maxFlying bounds the frames of a deal that are on the payment stream and not
// answered. More need not be: payments are cumulative, and only the latest waits.
const maxFlying = 16

// courier carries the payments of one client deal: on a stream of their own,
// or on the deal's channel where the provider knows no better. On a stream
// several are on the way at once, and are answered in order; what is not answered
// when it breaks is sent again on the next, as far as nothing newer makes it
// superfluous.
type courier struct {
	d    *clientDeal
	wake chan struct{} // capacity 1
	done sync.WaitGroup

	mu       sync.Mutex
	pending  *payFrame   // guarded by mu; not sent yet
	flying   []*payFrame // guarded by mu; sent and not answered, the oldest first; on a channel, being sent
	last     *payFrame   // guarded by mu; the latest that carried a payment
	asVouch  bool        // guarded by mu; payments go on the channel
	booked   bool        // guarded by mu; the provider says that it has the payment of last
	settledQ bool        // guarded by mu; the provider says that the deal is completed
	fine     bool        // guarded by mu; something was delivered since that was asked last
	streamed bool        // guarded by mu; the provider is known to take payments on a stream, whatever it says while it starts

	line *payLine // owned by run; nil if there is no stream
}

// ackNote is a provider's answer to a payment, and how long it took.
type ackNote struct {
	ack  ackFrame
	took time.Duration
}

func newCourier(d *clientDeal) *courier {
	return &courier{d: d, wake: make(chan struct{}, 1), asVouch: d.c.cfg.VouchersOnly || d.c.transfers == nil, streamed: d.rec.Streamed}
}

// send replaces what waits.
func (c *courier) send(f payFrame) {
	c.mu.Lock()
	if f.payment != nil {
		c.last, c.booked = &f, false
	}
	c.pending = &f
	c.mu.Unlock()
	c.kick()
}

// keep remembers a payment of an earlier run, for again.
func (c *courier) keep(f payFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.booked = &f, false
}

// again sends the last payment once more, unless the provider is known to have
// it or is being asked: on a stream, what is not answered is sent again anyway.
func (c *courier) again() {
	c.mu.Lock()
	if c.pending == nil && !c.booked && (c.asVouch || len(c.flying) == 0) {
		c.pending = c.last
	}
	c.mu.Unlock()
	c.kick()
}

func (c *courier) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// settled reports whether the provider said that the deal is completed.
func (c *courier) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settledQ
}

// vouchers reports whether payments go on the channel, as data-transfer vouchers
// or what else its carrier has.
func (c *courier) vouchers() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asVouch
}

// streams reports whether the provider is known to take payments on a stream of
// their own.
func (c *courier) streams() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streamed
}

// rideAlong sends payments on the deal's channel from now on.
func (c *courier) rideAlong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asVouch = true
}

// byStream sends the last payment on a stream of its own, where the provider
// takes those: there is no channel any more for a voucher to go on.
func (c *courier) byStream() {
	c.mu.Lock()
	c.asVouch = false
	if c.pending == nil && !c.booked {
		c.pending = c.last
	}
	c.mu.Unlock()
	c.kick()
}

// take returns what is to be sent now, nil if nothing is or too much is on the
// way. It comes with the last payment unless the provider has it: a question may
// have overtaken the payment that it is about.
func (c *courier) take() *payFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.pending
	if f == nil || len(c.flying) >= maxFlying {
		return nil
	}
	if f.payment == nil && c.last != nil && !c.booked {
		f = &payFrame{id: f.id, payment: c.last.payment, done: f.done}
	}
	c.pending, c.flying = nil, append(c.flying, f)
	return f
}

// answered takes in the provider's answer to the oldest frame on the way.
func (c *courier) answered(ack ackFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flying[0]
	c.flying, c.fine, c.streamed = c.flying[1:], true, true
	c.settledQ = c.settledQ || ack.settled
	if ack.refused == 0 && f.payment != nil && f.payment == c.last.payment {
		c.booked = true
	}
}

// landed notes that what was taken is on the channel, where nothing answers it.
func (c *courier) landed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flying, c.fine = nil, true
}

// putBack keeps the latest of what is on the way for the next try, unless
// something newer waits. That the client wants no more is not forgotten.
func (c *courier) putBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	flying := c.flying
	c.flying = nil
	if len(flying) == 0 {
		return
	}
	again := *flying[len(flying)-1]
	if c.pending != nil {
		again = *c.pending
	}
	for _, f := range flying {
		again.done = again.done || f.done
	}
	c.pending = &again
}

// wentFine reports whether something was delivered since it was asked last.
func (c *courier) wentFine() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.fine = false }()
	return c.fine
}

// idle reports whether everything is delivered.
func (c *courier) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending == nil && len(c.flying) == 0
}

// idleLine reports whether nothing is on the way.
func (c *courier) idleLine() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.flying) == 0
}

// run sends until ctx ends.
func (c *courier) run(ctx context.Context) {
	defer c.hangUp()
	pause, wait := time.Duration(0), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-c.line.broken():
		case <-after(wait):
		}
		wait = 0
		if err := c.deliverAll(ctx); err != nil {
			c.d.c.log.Debug("payment not delivered", "id", c.d.id, "err", err)
			c.hangUp()
			c.putBack()
			if c.wentFine() {
				pause = 0
			}
			pause = min(max(2*pause, 100*time.Millisecond), 3*time.Second)
			wait = pause
		}
	}
}

// deliverAll sends what waits, and returns why the stream is of no more use.
func (c *courier) deliverAll(ctx context.Context) error {
	for err := c.line.err(); ; {
		if err != nil {
			return err
		}
		if c.vouchers() && c.line != nil { // payments ride along since
			if !c.idleLine() {
				return nil // the answers come first
			}
			c.hangUp()
		}
		f := c.take()
		if f == nil {
			return nil
		}
		err = c.deliver(ctx, f)
	}
}

// after is a timer, or never.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// flushTimeout bounds the last word of a deal that its user ends.
const flushTimeout = 5 * time.Second

// flush waits, for a moment, until what was sent is delivered, all of it, and reports
// whether it was: an answer may be to a payment before the last word.
func (c *courier) flush(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c.d.inbox.wake:
		}
		for _, note := range c.d.inbox.take() {
			if n, ok := note.(ackNote); ok && !n.ack.paid.Less(c.d.deal.Account.Paid) && c.idle() {
				return true
			}
		}
		if c.vouchers() {
			return c.d.line.open // else there is nothing to send them on
		}
	}
}

// hangUp ends the stream. What is on it is not waited for.
func (c *courier) hangUp() {
	if c.line != nil {
		c.line.close()
		c.line = nil
	}
}

// deliver sends f: on the stream as long as there is one, where the answer comes
// later, also if payments are to ride along since f was taken.
func (c *courier) deliver(ctx context.Context, f *payFrame) error {
	ctx, cancel := context.WithTimeout(ctx, payTimeout)
	defer cancel()
	if c.line == nil && !c.vouchers() {
		if err := c.dial(ctx); err != nil {
			return err
		}
	}
	if c.line != nil {
		return c.line.send(ctx, f)
	}
	if err := c.deliverVoucher(ctx, f); err != nil {
		return err
	}
	c.landed()
	return nil
}

// dial opens the payment stream, or finds out that there is none.
func (c *courier) dial(ctx context.Context) error {
	if err := c.d.c.connect(ctx, c.d.provider.AddrInfo); err != nil {
		return err
	}
	s, err := c.d.c.cfg.Host.NewStream(ctx, c.d.provider.ID, PaymentProtocol)
	var unknown multistream.ErrNotSupported[protocol.ID]
	if errors.As(err, &unknown) && !c.streams() {
		c.rideAlong()
		return nil
	}
	if err != nil {
		return fmt.Errorf("open payment stream: %w", err)
	}
	c.line = newPayLine(s, c.heard)
	return nil
}

// heard takes in the answer to the oldest frame on the way. A provider that
// cannot take it now is sent it again, on another stream.
func (c *courier) heard(ack ackFrame, took time.Duration) error {
	if ack.refused == voucher.RefusedBusy || ack.refused == voucher.RefusedInternal {
		return errors.New(ack.message)
	}
	c.answered(ack)
	c.d.inbox.post(ackNote{ack, took})
	c.kick() // there is room for another
	return nil
}

// deliverVoucher sends a payment on the channel. There is no answer; a provider that stands still is sent the last one again.
func (c *courier) deliverVoucher(ctx context.Context, f *payFrame) error {
	if f.payment == nil {
		return nil
	}
	chid := c.d.channelID()
	if chid.Initiator == "" {
		return errors.New("no channel to send a payment on")
	}
	if err := c.d.c.connect(ctx, c.d.provider.AddrInfo); err != nil {
		return err
	}
	return c.d.c.carrierOf(chid).pay(ctx, chid, *f.payment)
}
