package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// payIdle is how long a payment stream may be silent, and payTimeout how long
// one answer may take.
const (
	payIdle    = 10 * time.Minute
	payTimeout = 30 * time.Second
)

// payNote is a payment that came on a stream; the answer goes to reply, which
// has room for it.
type payNote struct {
	frame payFrame
	reply chan ackFrame
}

type unsealNote struct{ err error }

// turnBytes is what a deal must be paid for, in bytes at its price, before its client
// is given its turns back: as much as one more request is earned with on graphsync.
const turnBytes = 16 << 10

// takeFrame books a payment of the stream and returns the account after it.
// done says that the client wants no more: what has moved is then all there is.
func (d *providerDeal) takeFrame(ctx context.Context, f payFrame) ackFrame {
	ack, before := ackFrame{id: d.key.ID}, d.deal
	if f.payment != nil {
		if err := d.takePayment(ctx, *f.payment); err != nil {
			d.p.log.Warn("payment refused", "peer", d.key.From, "id", d.key.ID, "err", err)
			ack.refused, ack.message = voucher.RefusedInternal, err.Error()
			errors.As(err, &ack.refused)
		}
	}
	d.refresh()
	done := f.done && ack.refused == 0 // else the payment comes again
	if done {
		d.done = true
		d.deal = d.deal.step(ended{max(d.deal.Account.Moved, d.paidFor())})
	}
	if d.closeIfDone(); done && d.deal.Phase != Completed {
		d.fail(voucher.DealStatusCancelled, fmt.Sprintf("the client left with %s attoFIL due", d.deal.Account.Due()))
	}
	if d.deal.Phase.Final() {
		if err := d.persist(ctx); err != nil {
			d.p.log.Error("deal", "peer", d.key.From, "id", d.key.ID, "err", err)
			return ackFrame{id: d.key.ID, refused: voucher.RefusedInternal, message: "not stored"}
		}
	}
	ack.paid, ack.limit, ack.settled = d.deal.Account.Paid, d.deal.verdict().Limit, d.deal.Phase == Completed
	ack.news = d.deal.further(before)
	return ack
}

// limit is how far what the deal has been paid goes, for others than its goroutine.
func (d *providerDeal) limit() voucher.Bytes {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view.account.Limit()
}

// takeVoucher books a payment that came as a data-transfer voucher.
func (d *providerDeal) takeVoucher(ctx context.Context, v datatransfer.TypedVoucher) error {
	form, _ := voucher.FormOf(string(v.Type))
	if v.Type != datatransfer.TypeIdentifier(form.PaymentType()) {
		return fmt.Errorf("%w: voucher type %q", voucher.RefusedPayment, v.Type)
	}
	payment, err := form.DecodePayment(v.Voucher)
	if err != nil {
		return fmt.Errorf("%w: %w", voucher.RefusedPayment, err)
	}
	return d.takePayment(ctx, payment)
}

// takePayment verifies and stores a payment, and makes sure that its lane pays
// for this deal alone. The deal is on disk with the money when it returns.
func (d *providerDeal) takePayment(ctx context.Context, p voucher.DealPayment) error {
	switch {
	case d.p.cfg.Node == nil:
		return fmt.Errorf("%w: this provider takes no payments", voucher.RefusedPayment)
	case p.ID != d.key.ID:
		return fmt.Errorf("%w: it is for deal %d", voucher.RefusedPayment, p.ID)
	case d.rec.Channel != "" && (d.rec.Channel != p.PaymentChannel.String() || d.rec.Lane != p.PaymentVoucher.Lane):
		return fmt.Errorf("%w: this deal is paid on lane %d of %s", voucher.RefusedPayment, d.rec.Lane, d.rec.Channel)
	}
	ctx, cancel := context.WithTimeout(ctx, payTimeout)
	defer cancel()
	total, err := d.p.cfg.Node.SavePaymentVoucher(ctx, p.PaymentChannel, p.PaymentVoucher, nil, voucher.Amount{})
	if err != nil {
		return paymentRefusal(err)
	}
	if d.rec.Channel == "" {
		if err := d.bindLane(ctx, p.PaymentChannel, p.PaymentVoucher.Lane); err != nil {
			return err
		}
	}
	d.refresh() // what is known of the bytes goes to disk with the money
	d.pays(total)
	return d.persist(ctx)
}

// pays takes in what was paid in all. A payment that brings nothing keeps nothing
// open, and only one that lets the deal go on counts as movement.
func (d *providerDeal) pays(total voucher.Amount) {
	before := d.deal.Account
	d.deal = d.deal.step(paid{total})
	if before.Paid.Less(total) {
		d.active = time.Now()
	}
	if !before.Due().IsZero() && d.deal.Account.Due().IsZero() {
		d.moved = d.active
	}
	if earnsTurns(before, d.deal.Account) {
		d.p.asks.giveBack(d.key.From)
		d.p.idle.giveBack(d.key.From)
	}
	if before.Paid.Less(total) {
		d.prove()
	}
}

// prove tells that the deal's client is no stranger, if the deal shows that. It is told
// again of one that pays on or comes back: whoever heard of it may have been restarted,
// and forgets a peer that was away.
func (d *providerDeal) prove() {
	if d.p.cfg.Proven != nil && proves(d.deal.Account) {
		d.p.cfg.Proven(d.key.From)
	}
}

// proves reports whether the client of a deal has paid for turnBytes, or had all of the
// deal, however small, and owes nothing: that costs it as much as it costs the provider.
func proves(a revalidator.Account) bool {
	return a.Ended && a.Moved > 0 && a.Due().IsZero() || a.Terms.Price != 0 && a.Terms.Covered(a.Paid) >= turnBytes
}

// earnsTurns reports whether it is between two states of its account that a deal has
// been paid for what it takes from its client's turns, which is one question and one
// payment stream: one that buys small things one after the other is not held up.
// It happens once in a deal, so that a turn costs what the provider charges for
// turnBytes, whether they are taken or not.
func earnsTurns(before, after revalidator.Account) bool {
	return after.Terms.Price != 0 && after.Terms.Covered(before.Paid) < turnBytes && after.Terms.Covered(after.Paid) >= turnBytes
}

// paidFor is how many bytes a client that has everything says by paying for
// them. It counts where this process sent none of the deal and the last ones
// before it are not on record, or where the deal began in a process that crashed
// before it could be put on record: what that one sent looks like what the client
// held before.
func (d *providerDeal) paidFor() voucher.Bytes {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.deal.Account
	switch covered := a.Terms.Covered(a.Paid); {
	case a.Terms.Price == 0:
		return 0
	case d.view.recalled:
		return covered
	default:
		return min(covered, a.Moved.Add(voucher.Bytes(d.view.base)))
	}
}

// bindLane reserves the lane for this deal, which must be on record for it.
func (d *providerDeal) bindLane(ctx context.Context, channel address.Address, lane uint64) error {
	if d.rec.Instance == 0 {
		d.rec.keep(d.deal)
		if err := d.p.book.put(ctx, &d.rec); err != nil {
			return err
		}
		d.put = d.rec
	}
	owner, err := d.p.book.bindLane(ctx, channel, lane, d.rec.Instance)
	if err != nil {
		return err
	}
	if owner != d.rec.Instance {
		over, err := d.p.book.over(ctx, owner)
		if err != nil {
			return err
		}
		if over {
			return d.comesTooLate()
		}
		return fmt.Errorf("%w: lane %d of %s pays for another deal", voucher.RefusedPayment, lane, channel)
	}
	d.rec.Channel, d.rec.Lane = channel.String(), lane
	return nil
}

// comesTooLate ends a deal that its client takes for one that has ended here, as one
// that was idle for too long. Its lane belongs to that one. It may buy the rest in
// a new deal.
func (d *providerDeal) comesTooLate() error {
	const why = "the deal has ended, as it was idle for too long: make a new deal"
	d.fail(voucher.DealStatusRejected, voucher.RefusedResume.Message(why))
	return fmt.Errorf("%w: %s", voucher.RefusedResume, why)
}

// paymentRefusal keeps a refusal that the payment room names, such as
// voucher.RefusedCredit, and makes every other error one.
func paymentRefusal(err error) error {
	var code voucher.Refusal
	if errors.As(err, &code) {
		return err
	}
	return fmt.Errorf("%w: %w", voucher.RefusedPayment, err)
}

// tellRefused answers a bad payment that came as a data-transfer voucher. The
// deal goes on: a good payment may follow.
func (d *providerDeal) tellRefused(cause error) {
	code := voucher.RefusedInternal
	errors.As(cause, &code)
	d.word = &voucher.DealResponse{Status: d.deal.status(), ID: d.key.ID, PaymentOwed: d.deal.Account.Due(), Message: code.Message(cause.Error())}
}

// unsealIfPaid starts unsealing, once, when it is paid for.
func (d *providerDeal) unsealIfPaid(ctx context.Context) {
	a := d.deal.Account
	if d.deal.Ready || d.unsealing || a.Paid.Less(a.Terms.Unseal) {
		return
	}
	d.unsealing = true
	d.p.done.Go(func() {
		d.inbox.post(unsealNote{d.p.cfg.Pieces.Unseal(ctx, d.piece.ID)})
	})
}
