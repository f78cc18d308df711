package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

const (
	// clientTick is how often a client's deal looks at what it may have missed.
	clientTick = 500 * time.Millisecond
	// openTimeout bounds the opening of a channel.
	openTimeout = 30 * time.Second
	// keepEvery is how often a deal under way is written to its record.
	keepEvery = time.Second
	// keepEnded bounds the deals of this run that are remembered with their error.
	keepEnded = 4096
	// maxHopes is how often a word of the provider counts as progress while no byte
	// comes.
	maxHopes = 3
	// maxBackoff bounds the pause between two channels.
	maxBackoff = 8 * time.Second
)

// clientDeal is one live deal of a Client and its goroutine.
type clientDeal struct {
	c        *Client
	of       *retrieval // set when it starts
	id       DealID
	proposal voucher.DealProposal
	whole    cid.Cid // the root that the store is of: the proposal's, or one above it
	provider RetrievalPeer
	channel  address.Address // payment channel
	store    Store
	inbox    *inbox
	gone     chan struct{} // closed when the goroutine has ended
	courier  *courier
	doubles  atomic.Uint64 // bytes of blocks that were held, came again and are charged, see purchase
	listens  atomic.Uint64 // so much written is to be heard of, see hear

	// Owned by the goroutine that runs run, and before it starts by its maker.
	deal      Deal
	rec       record
	purse     revalidator.Purse
	pace      pace
	complete  bool // everything was held when the deal began
	err       error
	line      line
	kept      time.Time // when rec was last written
	progress  time.Time // when anything last moved
	hopes     int       // words of the provider taken for progress since the last byte
	seen      Bytes     // arrived in this deal, durable or not
	acked     Amount    // what the provider said it has
	ackLimit  Bytes     // and how far it may send
	asked     bool      // the provider asked for money
	payAll    bool      // it stands still and nothing more comes: pay for all that is held
	parked    string    // why no payment can be made
	unsealing bool      // the provider says so, and no block has come
	busy      error     // why no channel comes about: the provider's last word that it has no room, or that it is not reachable; nil if one did since
	doneSaid  bool      // the provider was told that nothing more is wanted
	received  bool      // see receive
	repeats   int       // how often the last payment was sent again at the end
	returns   int       // and how often another channel was opened for it

	mu    sync.Mutex
	state ClientDealState        // guarded by mu
	chid  datatransfer.ChannelID // guarded by mu; of the open channel, for the courier
}

// line is the channel of a deal.
type line struct {
	seq     int // which opening this is
	chid    datatransfer.ChannelID
	by      clientCarrier      // of the channel that was opened last
	open    bool               // opening counts
	cancel  context.CancelFunc // ends the channel
	next    time.Time          // when to open again
	backoff time.Duration
	still   bool      // the provider stands still
	stopped bool      // it stood still before
	heard   bool      // the provider has taken it: one that finds everything here already never gets that far
	older   bool      // the provider takes one channel for a deal, to be restarted, and no second proposal
	opened  time.Time // or when the last byte came
	from    Bytes     // what had come in the deal when it was opened
}

func newClientDeal(c *Client, r record, p voucher.DealProposal, provider RetrievalPeer, store Store) (*clientDeal, error) {
	if err := store.Once(r.Start); err != nil {
		return nil, fmt.Errorf("blocks of %s: %w", p.PayloadCID, err)
	}
	d := &clientDeal{c: c, id: p.ID, proposal: p, whole: r.whole(p), provider: provider, store: store, inbox: newInbox(), gone: make(chan struct{}), rec: r, progress: time.Now(), kept: time.Now()}
	d.channel, _ = parseAddress(r.Channel) // written by us; an undefined one is refused when it is paid on
	d.deal = r.deal(p.Params.Terms(), 0)
	d.seen = d.arrived(store.Written())
	d.purse = d.newPurse()
	d.courier = newCourier(d)
	d.publishState()
	return d, nil
}

// run is the deal's goroutine. It ends with the deal, with ctx, or when the
// deal is suspended; the last two leave it open on disk.
func (d *clientDeal) run(ctx context.Context) {
	defer d.leave()
	d.publish(ClientEventOpen)
	if d.complete {
		d.sync()
		d.deal = d.deal.step(ended{d.deal.Account.Moved})
		if d.rec.Channel == "" { // nothing was bought
			d.deal = d.deal.step(closed{})
		}
	}
	courierCtx, stopCourier := context.WithCancel(ctx)
	d.courier.done.Go(func() { d.courier.run(courierCtx) })
	defer d.courier.done.Wait()
	defer stopCourier()
	tick := time.NewTicker(clientTick)
	defer tick.Stop()
	for d.look(ctx); ; {
		d.settleUp(ctx)
		if d.err != nil || d.deal.Phase.Final() {
			break
		}
		select {
		case <-ctx.Done():
			d.err = fmt.Errorf("%w: stopped", ErrSuspended)
		case <-d.inbox.wake:
			for _, note := range d.inbox.take() {
				d.handle(ctx, note)
			}
		case <-tick.C:
			d.look(ctx)
		}
	}
	var refusal *ProviderError
	d.hangUp(d.deal.Phase == Failed && !errors.As(d.err, &refusal)) // one who refused knows
	d.rec.More = d.rec.Whole != "" && d.deal.Phase == Completed || errors.Is(d.err, voucher.RefusedResume)
	d.keep(context.WithoutCancel(ctx), true)
}

// leave says goodbye: the deal has ended or is suspended.
func (d *clientDeal) leave() {
	d.closeStore()
	d.publishState()
	event := ClientEventError
	if d.deal.Phase == Completed {
		event = ClientEventComplete
	}
	d.publish(event)
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	delete(d.c.live, d.id)
	for chid, other := range d.c.byChan {
		if other == d {
			delete(d.c.byChan, chid)
		}
	}
	if len(d.c.ended) >= keepEnded {
		clear(d.c.ended) // what they ended as is on disk; only the error's type is lost
	}
	d.c.ended[d.id] = d.snapshot()
	if d.of.deal == d {
		d.of.deal = nil
	}
	close(d.gone)
}

// settleUp brings the world in line with the deal: count, decide, persist, pay.
func (d *clientDeal) settleUp(ctx context.Context) {
	d.count()
	if d.deal.Phase.Final() {
		return
	}
	if err := d.pay(ctx); err != nil {
		d.park(err)
	}
	d.sayDone()
	d.close()
	d.keep(ctx, false)
	d.publishState()
	d.publish(ClientEventProgress)
	d.listen()
}

// count takes over what the store holds. What arrives behind the end of a deal that
// was cancelled is not paid for, and not of it.
func (d *clientDeal) count() {
	seen := d.arrived(d.store.Written())
	if seen == d.seen || d.received || d.deal.Phase == Failed && d.deal.Account.Ended {
		return
	}
	d.pace = d.pace.arrived(time.Now(), seen)
	d.seen, d.progress, d.line.opened, d.line.backoff = seen, time.Now(), time.Now(), 0
	d.hopes = 0
	if d.rec.FirstByte == 0 {
		d.rec.FirstByte = time.Since(d.rec.Created)
	}
	d.deal = d.deal.step(accepted{}) // blocks are an answer too
}

// arrived is how many bytes came in this deal when the store has so many written.
func (d *clientDeal) arrived(written uint64) Bytes {
	return Bytes(written).Sub(Bytes(d.rec.Start)).Add(Bytes(d.doubles.Load()))
}

// fresh is how many bytes came that were not held.
func (d *clientDeal) fresh() Bytes { return d.seen.Sub(Bytes(d.doubles.Load())) }

// sync makes what arrived durable, and counts it.
func (d *clientDeal) sync() {
	if d.received {
		return
	}
	doubles := Bytes(d.doubles.Load()) // of what is durable in a moment
	written, err := d.store.Sync()
	if err != nil {
		d.err = fmt.Errorf("%w: keep what arrived: %w", ErrSuspended, err)
		return
	}
	d.deal = d.deal.step(moved{Bytes(written).Sub(Bytes(d.rec.Start)).Add(doubles)})
}

// keep writes the record, when it is time to. What a deal has got and paid, its
// store and its lane know too, and that it is complete shows when it goes on: only
// an end for another reason must not be lost.
func (d *clientDeal) keep(ctx context.Context, now bool) {
	d.rec.keep(d.deal)
	if !now && time.Since(d.kept) < keepEvery {
		return
	}
	d.kept = time.Now()
	when := soon
	if now && d.rec.Phase != Completed {
		when = synced
	}
	if err := d.c.book.write(ctx, when, d.whole.String(), &d.rec); err != nil {
		d.c.log.Error("deal", "id", d.id, "err", err)
		if d.err == nil {
			d.err = fmt.Errorf("%w: %w", ErrSuspended, err)
		}
	}
}

func (d *clientDeal) fail(status voucher.DealStatus, err error) {
	if d.received {
		d.closeAlone("the provider's last word: " + err.Error())
		return
	}
	d.deal = d.deal.step(failed{status, err.Error()})
	d.err = err
}

// publishState copies what others look at.
func (d *clientDeal) publishState() {
	a := d.deal.Account
	s := ClientDealState{
		DealProposal: d.proposal, Status: d.deal.status(), Message: d.deal.Message, Sender: d.provider.ID, Whole: d.whole,
		TotalReceived: max(a.Moved, d.seen), Expected: Bytes(d.rec.Expected), FundsSpent: a.Paid, SpentBefore: d.rec.Before, TotalFunds: d.rec.Budget, Order: d.rec.order(), More: d.rec.More,
		Payments: d.rec.Payments, Stalls: d.rec.Stalls, PaymentChannel: d.channel, Lane: d.rec.Lane,
		Created: d.rec.Created, Updated: d.rec.Updated, FirstByte: d.rec.FirstByte, Err: d.err,
	}
	if d.unsealing && d.seen == 0 && s.Status == voucher.DealStatusOngoing {
		s.Status = voucher.DealStatusUnsealing
	}
	if d.received && d.err == nil {
		s.Status = voucher.DealStatusCompleted
	}
	if d.parked != "" && !d.deal.Phase.Final() {
		s.Status, s.Message = voucher.DealStatusInsufficientFunds, d.parked
	}
	if s.Message == "" && d.err != nil {
		s.Message = d.err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state, d.chid = s, datatransfer.ChannelID{}
	if d.line.open {
		d.chid = d.line.chid
	}
}

func (d *clientDeal) snapshot() ClientDealState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// channelID returns the open channel, or none.
func (d *clientDeal) channelID() datatransfer.ChannelID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chid
}

func (d *clientDeal) publish(ev ClientEvent) { d.c.hub.publish(d.id, ev, d.snapshot()) }
