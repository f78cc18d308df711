package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
)

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
		d.lookSettling(ctx, now)
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
	seq, again, by, begun := d.line.seq, d.line.chid, d.line.by, d.seen > 0
	d.courier.done.Go(func() {
		note := d.dial(lineCtx, again, by, begun)
		note.seq = seq
		d.inbox.post(note)
		if note.err == nil && again.Initiator == "" && note.by == d.c.transfers {
			d.c.done.Go(func() { d.checkCarrier(lineCtx, seq) })
		}
	})
}

// errCarrier is why a channel comes to nothing that was opened before the provider had
// said what it speaks.
var errCarrier = errors.New("the provider speaks another protocol for deals")

// checkCarrier gives up a channel on data-transfer if the provider says, or has just
// said, that it does not speak that. Graphsync takes it for one that is away for a while.
func (d *clientDeal) checkCarrier(ctx context.Context, seq int) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if d.c.identify(ctx, d.provider.ID); d.c.carrierFor(d.provider.ID) != d.c.transfers {
		d.inbox.post(openedNote{seq: seq, err: errCarrier})
	}
}

// dial opens a channel, or restarts again, which by carried, if that is one. A deal of
// which something has come is over where the provider would send all of it again, and
// charge it.
func (d *clientDeal) dial(ctx context.Context, again datatransfer.ChannelID, by clientCarrier, begun bool) openedNote {
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
	if begun && !by.skips(d.provider.ID) {
		return openedNote{over: true, err: errNoRestart}
	}
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
// that starts may say so before it speaks everything, and is heard again. One that
// was ever paid on a stream is none, whatever it says, nor one that has never heard of
// the channel, as it does not speak data-transfer.
func (d *clientDeal) oneChannel() bool {
	if d.c.transfers != nil && d.line.by == d.c.transfers {
		if lacks, known := d.c.lacksStream(d.provider.ID); known {
			d.line.older = lacks && !d.courier.streams() && d.c.carrierFor(d.provider.ID) == d.line.by
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
