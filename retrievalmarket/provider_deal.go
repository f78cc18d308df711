package retrievalmarket

import (
	"context"
	"fmt"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

const (
	// watchEvery is how often a deal compares what should be with what is when
	// nothing happens.
	watchEvery = 2 * time.Second
	// closeAfter is how long the channel of a completed deal may take to complete.
	closeAfter = 10 * time.Second
	// tellTimeout bounds one message to the client over data-transfer.
	tellTimeout = 5 * time.Second
	// returnRate and returnBurst bound how often a second a client may put another
	// channel in the place of its deal's, or restart it, and how often at once.
	returnRate  = 1
	returnBurst = 64
	// acceptanceLead is how far behind the blocks of a short deal its last word
	// is sent. The acceptance travels with the blocks, the last word on a stream of
	// its own, and an older client that gets it first waits for ever.
	acceptanceLead = 50 * time.Millisecond
)

// providerDeal is one live deal of a Provider and its goroutine.
type providerDeal struct {
	p        *Provider
	key      ProviderDealID
	proposal voucher.DealProposal
	encoded  []byte // the proposal's bytes
	piece    Piece
	origin   string // where its client was when it last opened a channel, see room; guarded by p.mu
	inbox    *inbox
	gone     chan struct{} // closed when the goroutine has ended
	returns  *rate.Limiter // of new and restarted channels
	since    time.Time     // when it took its place
	lent     Bytes         // of what its client has earned

	// Owned by the goroutine that runs run, and before it starts by its maker.
	deal      Deal
	rec       record
	told      validation.Grant       // what the channel was last let do
	asked     voucher.Amount         // what was last asked for
	stopped   bool                   // the channel stands still, and was not told since
	telling   *telling               // what it is being told; nil if nothing
	opening   <-chan struct{}        // it is told nothing before; nil if there is nothing to wait for
	untold    bool                   // that could not be sent: not again before something happens
	unsure    bool                   // what it was told last may be overtaken
	word      *voucher.DealResponse  // what is to be said next about a payment
	streaming bool                   // the client pays on a stream of its own: it need not be asked
	done      bool                   // the client said that it has everything
	sentAll   datatransfer.ChannelID // the channel of which its carrier said that it has nothing more to send
	wasOver   bool                   // it was the deal's last one
	unsealing bool
	active    time.Time // when anything last happened that keeps it open
	moved     time.Time // when a byte last moved, or could again; see room
	put       record    // as it is on disk

	mu   sync.Mutex
	view channelView // guarded by mu
}

func newProviderDeal(p *Provider, from peer.ID, proposal voucher.DealProposal, r record) *providerDeal {
	now := time.Now()
	d := &providerDeal{p: p, key: ProviderDealID{from, proposal.ID}, proposal: proposal, inbox: newInbox(), gone: make(chan struct{}),
		returns: rate.NewLimiter(returnRate, returnBurst), rec: r, put: r, since: now, active: now, moved: now}
	d.encoded, _ = encodeProposal(proposal) // decoded a moment ago; a nil never equals
	d.rec.Peer, d.rec.ID, d.rec.Proposal = from.String(), uint64(proposal.ID), d.encoded
	if id, err := cid.Decode(r.PieceID); err == nil {
		if piece, ok := p.cfg.Pieces.Find(proposal.PayloadCID, &id); ok {
			d.piece = piece
		}
	}
	d.view.base, d.view.baseKnown = r.Base, r.BaseKnown
	return d
}

// run is the deal's goroutine. It ends with the deal, or with ctx, which
// leaves the deal as it is on disk.
func (d *providerDeal) run(ctx context.Context) {
	d.publish(ProviderEventOpen)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := d.settleUp(ctx); err != nil && ctx.Err() == nil {
			d.p.log.Error("deal", "peer", d.key.From, "id", d.key.ID, "err", err)
		}
		if d.deal.Phase.Final() {
			d.leave()
			d.goodbye(ctx)
			d.forget()
			return
		}
		select {
		case <-ctx.Done():
			d.leave()
			return
		case <-d.inbox.wake:
			d.happened()
			for _, note := range d.inbox.take() {
				d.handle(ctx, note)
			}
		case <-d.telling.gone():
			d.hasTold()
		case <-d.opening:
			d.opening = nil
		case <-tick.C:
			d.untold = false
			d.watch()
		}
	}
}

// leave takes the deal out of the provider's maps. One that came to something makes
// no difference to what its client may begin.
func (d *providerDeal) leave() {
	if cameToSomething(d.deal.Account) {
		d.p.begun.giveBack(d.key.From)
	}
	d.prove()
	defer func() {
		if d.wasOver {
			d.repay()
		}
	}()
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	d.wasOver = d.deal.Phase.Final() && d.over() // no other channel comes any more
	delete(d.p.live, d.key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.p.byChan[d.view.chid] == d {
		delete(d.p.byChan, d.view.chid)
	}
	close(d.gone)
}

// forget lets the carrier of the deal's channel forget it.
func (d *providerDeal) forget() {
	d.mu.Lock()
	chid := d.view.chid
	d.mu.Unlock()
	d.p.carrierOf(chid).forget(chid)
}

// handle takes in one note. What follows from it is settleUp's.
func (d *providerDeal) handle(ctx context.Context, note any) {
	switch n := note.(type) {
	case channelNote:
		d.channelEvent(ctx, n)
	case attachNote:
		d.told, d.stopped, d.asked, d.active = n.grant, false, d.askedFirst(), time.Now()
		d.sentAll = datatransfer.ChannelID{}
		if d.telling != nil {
			d.telling.stale = true
		}
		d.prove()
		if n.old != n.chid {
			d.closeChannel(ctx, n.old)
		}
	case payNote:
		d.streaming = true
		ack := d.takeFrame(ctx, n.frame)
		d.publishView() // whoever is told of it may look
		n.reply <- ack
	case unsealNote:
		d.unsealing, d.active = false, time.Now()
		d.moved = d.active
		if n.err != nil {
			d.fail(voucher.DealStatusErrored, fmt.Sprintf("unsealing failed: %v", n.err))
			return
		}
		d.deal = d.deal.step(unsealed{})
	case cancelNote:
		d.fail(voucher.DealStatusCancelled, n.reason)
	}
}

func (d *providerDeal) channelEvent(ctx context.Context, n channelNote) {
	d.mu.Lock()
	current := n.chid == d.view.chid
	if current {
		d.view.queued = max(d.view.queued, n.queued)
	}
	d.mu.Unlock()
	if !current {
		return
	}
	switch n.kind {
	case noteStopped:
		d.stopped = true
		d.refresh()
		d.mu.Lock()
		d.view.place(n.queued)
		d.mu.Unlock()
	case noteVoucher:
		before := d.deal.Account.Paid
		if err := d.takeVoucher(ctx, n.voucher); err != nil {
			d.p.log.Warn("payment refused", "peer", d.key.From, "id", d.key.ID, "err", err)
			d.tellRefused(err)
		}
		if before.Less(d.deal.Account.Paid) {
			d.askAnew()
		}
	case noteEnded, noteClosed:
		d.sentAll = n.chid
		d.refresh()
		d.deal = d.deal.step(ended{d.deal.Account.Moved})
	case noteLost:
		d.lost(n)
	}
}

// over reports whether the deal's channel has nothing more to send. That one before it
// had not, says nothing of this one.
func (d *providerDeal) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sentAll != (datatransfer.ChannelID{}) && d.sentAll == d.view.chid
}

// lost notes that the channel is gone. The deal waits for the client to come
// back, until it is idle for too long. A channel on which blocks were missing
// would only fail again.
func (d *providerDeal) lost(n channelNote) {
	d.mu.Lock()
	d.view.attached = false
	d.mu.Unlock()
	d.refresh()
	d.p.log.Debug("channel lost", "peer", d.key.From, "id", d.key.ID, "reason", n.reason)
}

// refresh takes over what the meter says.
func (d *providerDeal) refresh() {
	d.mu.Lock()
	d.measure(&d.view)
	total, why := d.view.account.Moved, d.view.overdone()
	d.rec.Base, d.rec.BaseKnown = d.view.base, d.view.baseKnown
	d.mu.Unlock()
	if total > d.deal.Account.Moved {
		d.active = time.Now()
		d.moved = d.active
		d.deal = d.deal.step(moved{total})
	}
	if why != "" {
		d.fail(voucher.DealStatusErrored, why)
	}
}

// settleUp brings the world in line with the deal: decide, persist, then tell.
func (d *providerDeal) settleUp(ctx context.Context) error {
	d.refresh()
	d.makeRoom()
	d.closeIfDone()
	if err := d.persist(ctx); err != nil {
		return err
	}
	d.publishView()
	if d.deal.Phase.Final() {
		return nil
	}
	d.publish(ProviderEventProgress)
	d.unsealIfPaid(ctx)
	d.tell(ctx)
	return nil
}

// closeIfDone ends a deal that is settled. A client with a payment stream says
// when it has everything; until then it may come back for blocks that were
// lost on the way, so that paying ahead costs it nothing.
func (d *providerDeal) closeIfDone() {
	if d.deal.settled() && (d.done || !d.streaming) {
		d.deal = d.deal.step(closed{})
	}
}

// persist puts the deal on disk if money, phase or readiness changed, and, with
// the next of these at the latest, where a paid deal begins. Bytes alone are no
// news: they are metered again when the client comes back.
func (d *providerDeal) persist(ctx context.Context) error {
	d.rec.keep(d.deal)
	d.rec.Let = max(d.rec.Let, uint64(d.deal.verdict().Limit))
	old := d.put
	begun := d.rec.BaseKnown && !old.BaseKnown && !d.deal.Account.Terms.Free()
	news := d.rec.Phase != max(old.Phase, Moving) || d.rec.Paid != old.Paid || d.rec.Ready != old.Ready && old.Instance != 0 || d.rec.Lane != old.Lane
	when := synced
	switch {
	case !news && !begun:
		return nil
	case !news: // a client whose deal is lost with the power proposes it again
		when = soon
	}
	if err := d.p.book.write(ctx, when, &d.rec); err != nil {
		return err
	}
	d.put = d.rec
	return nil
}

// publishView copies what others look at.
func (d *providerDeal) publishView() {
	s, err := withDeal(d.rec, d.deal).soldTo(d.key.From, d.proposal)
	if err != nil {
		d.p.log.Error("deal state", "err", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.state, d.view.instance = s, d.rec.Instance
	d.view.ready, d.view.moved, d.view.unsealing = d.deal.Ready, d.moved, d.unsealing
	moved := d.view.account.Moved
	d.view.account = d.deal.Account.Move(moved)
}

func withDeal(r record, d Deal) record {
	r.keep(d)
	return r
}

// snapshot returns the deal for people, and its instance on disk.
func (d *providerDeal) snapshot() (ProviderDealState, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.view.state
	s.TotalSent = max(s.TotalSent, d.view.account.Moved)
	return s, d.view.instance
}

func (d *providerDeal) publish(ev ProviderEvent) {
	d.mu.Lock()
	s := d.view.state
	d.mu.Unlock()
	d.p.hub.publish(d.key, ev, s)
}

func (d *providerDeal) fail(status voucher.DealStatus, reason string) {
	d.deal = d.deal.step(failed{status, reason})
}

// watch ends a deal that nothing happens to, and says again what a channel may
// have missed.
func (d *providerDeal) watch() {
	idle := time.Since(d.active)
	if idle > d.p.cfg.IdleTimeout && d.deal.settled() {
		d.done = true // it has not come back
		return
	}
	if idle > d.p.cfg.IdleTimeout && !d.unsealing {
		d.fail(voucher.DealStatusCancelled, fmt.Sprintf("nothing moved and nothing was paid for %s", idle.Round(time.Second)))
		return
	}
	if idle > watchEvery && d.deal.Account.Moved < d.deal.verdict().Limit {
		d.stopped = true
	}
}
