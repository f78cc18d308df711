package retrievalmarket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/tollgraph/tollgraph/voucher"
)

// courier carries the payments of one client deal: on a stream of their own,
// or on the deal's channel where the provider knows no better. Payments
// are cumulative, so only the latest waits, and it is sent until it is
// acknowledged.
type courier struct {
	d    *clientDeal
	wake chan struct{} // capacity 1
	done sync.WaitGroup

	mu       sync.Mutex
	pending  *payFrame // guarded by mu; not sent yet
	last     *payFrame // guarded by mu; the latest that carried a payment
	asVouch  bool      // guarded by mu; payments go on the channel
	booked   bool      // guarded by mu; the provider says that it has the payment of last
	settledQ bool      // guarded by mu; the provider says that the deal is completed
	sending  bool      // guarded by mu; something was taken and is not delivered yet

	stream network.Stream // owned by run
	reader *bufio.Reader  // owned by run
}

// ackNote is a provider's answer to a payment, and how long it took.
type ackNote struct {
	ack  ackFrame
	took time.Duration
}

func newCourier(d *clientDeal) *courier {
	return &courier{d: d, wake: make(chan struct{}, 1), asVouch: d.c.cfg.VouchersOnly || d.c.transfers == nil}
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
	if c.pending == nil && !c.booked && (c.asVouch || !c.sending) {
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

// take returns what waits, with the last payment unless the provider has it: a
// question may have overtaken the payment that it is about.
func (c *courier) take() *payFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.pending
	c.pending, c.sending = nil, f != nil
	if f != nil && f.payment == nil && c.last != nil && !c.booked {
		f = &payFrame{id: f.id, payment: c.last.payment, done: f.done}
	}
	return f
}

// answered takes in the provider's answer to f.
func (c *courier) answered(f *payFrame, ack ackFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settledQ = c.settledQ || ack.settled
	if ack.refused == 0 && f.payment != nil && f.payment == c.last.payment {
		c.booked = true
	}
}

// sent notes that what was taken is delivered.
func (c *courier) sent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = false
}

// idle reports whether everything is delivered.
func (c *courier) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending == nil && !c.sending
}

// putBack keeps f for the next try unless something newer waits.
func (c *courier) putBack(f *payFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == nil {
		c.pending = f
	}
}

// run sends until ctx ends.
func (c *courier) run(ctx context.Context) {
	defer c.hangUp()
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-after(pause):
		}
		f := c.take()
		if f == nil {
			pause = 0
			continue
		}
		if err := c.deliver(ctx, f); err != nil {
			c.d.c.log.Debug("payment not delivered", "id", c.d.id, "err", err)
			c.hangUp()
			c.putBack(f)
			pause = min(max(2*pause, 100*time.Millisecond), 3*time.Second)
			continue
		}
		c.sent()
		pause = 0
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

// flush waits, for a moment, until what was sent is delivered, and reports whether
// it was.
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
			if n, ok := note.(ackNote); ok && !n.ack.paid.Less(c.d.deal.Account.Paid) {
				return true
			}
		}
		if c.vouchers() {
			return c.d.line.open // else there is nothing to send them on
		}
	}
}

func (c *courier) hangUp() {
	if c.stream != nil {
		_ = c.stream.Reset() // nothing on it is waited for
		c.stream, c.reader = nil, nil
	}
}

// deliver sends f and takes in the answer.
func (c *courier) deliver(ctx context.Context, f *payFrame) error {
	ctx, cancel := context.WithTimeout(ctx, payTimeout)
	defer cancel()
	if !c.vouchers() && c.stream == nil {
		if err := c.dial(ctx); err != nil {
			return err
		}
	}
	if c.vouchers() {
		return c.deliverVoucher(ctx, f)
	}
	stream := c.stream
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() }) // ends the read below
	defer stop()
	node, err := f.node()
	sent := time.Now()
	if err := writeFrame(c.stream, node, err); err != nil {
		return err
	}
	answer, err := readFrame(c.reader)
	if err != nil {
		return err
	}
	ack, err := parseAckFrame(answer)
	if err != nil {
		return err
	}
	if ack.refused == voucher.RefusedBusy || ack.refused == voucher.RefusedInternal {
		return errors.New(ack.message)
	}
	c.answered(f, ack)
	c.d.inbox.post(ackNote{ack, time.Since(sent)})
	return nil
}

// dial opens the payment stream, or finds out that there is none.
func (c *courier) dial(ctx context.Context) error {
	if err := c.d.c.connect(ctx, c.d.provider.AddrInfo); err != nil {
		return err
	}
	s, err := c.d.c.cfg.Host.NewStream(ctx, c.d.provider.ID, PaymentProtocol)
	var unknown multistream.ErrNotSupported[protocol.ID]
	if errors.As(err, &unknown) {
		c.rideAlong()
		return nil
	}
	if err != nil {
		return fmt.Errorf("open payment stream: %w", err)
	}
	c.stream, c.reader = s, bufio.NewReaderSize(s, 4<<10)
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
