package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

// sale is the provider's end of one stream. Its goroutine walks the selection
// and writes; another reads payments. What is said to the client passes through
// the first, so that it stands in order with the blocks.
type sale struct {
	c        *providerStreams
	m        *messages
	chid     datatransfer.ChannelID
	proposal voucher.ProposalV0
	d        *providerDeal
	cancel   context.CancelCauseFunc
	wake     chan struct{} // capacity 1: may or words changed

	mu       sync.Mutex
	may      voucher.Bytes          // guarded by mu: bytes that may be sent in all
	hold     int64                  // guarded by mu: the link behind which nothing may be sent, 0 for none
	words    []voucher.DealResponse // guarded by mu: to be said
	progress Progress               // guarded by mu: without the last block, until it is known whether it is the last
	told     bool                   // guarded by mu: may is the deal's word
	walked   bool                   // guarded by mu: everything is sent
	over     bool                   // guarded by mu: the last word is said, and the stream closed

	// Owned by the goroutine of the stream.
	ls       ipld.LinkSystem
	links    int64 // passed
	sent     voucher.Bytes
	seen     map[cid.Cid]struct{} // sent or skipped
	repeats  int64                // links to what was passed before, for which nobody pays
	repeated voucher.Bytes        // what was sent for them
	batch    []voucher.Block      // sent by count, not yet written
	held     int                  // bytes in it
	news     Progress             // the last block, for progress
	last     bool                 // the last word is said
}

// say leaves a word for the client. x.mu is held.
func (x *sale) say(reply *voucher.DealResponse) {
	if reply != nil {
		x.words = append(x.words, *reply)
	}
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// begin takes the answer to the proposal, which is the first word. The deal's
// goroutine may have been quicker.
func (x *sale) begin(g validation.Grant, reply voucher.DealResponse) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.words = append([]voucher.DealResponse{reply}, x.words...)
	if !x.told {
		x.may = g.May()
	}
}

// run carries the deal until the last word is said or the stream is lost.
func (x *sale) run(ctx context.Context) {
	var reading sync.WaitGroup
	reading.Go(func() { x.payments(ctx) })
	err := x.sell(ctx)
	if err == nil {
		x.end()
		reading.Wait()
		return
	}
	x.cancel(err)
	reading.Wait()
	_ = x.m.Reset() // whatever is on it is void
	x.post(channelNote{kind: noteLost, reason: err.Error()})
}

// end closes the stream behind the last word. It must not be reset: that would
// take the word away from a client that has not read it.
func (x *sale) end() {
	x.mu.Lock()
	x.over = true
	x.mu.Unlock()
	_ = x.m.Close()                     // everything is written; the peer sees the end
	_ = x.m.SetReadDeadline(time.Now()) // ends payments, where closing does not
}

// lost ends the sale because nothing more can be read.
func (x *sale) lost(err error) {
	x.mu.Lock()
	over := x.over
	x.mu.Unlock()
	if !over {
		x.cancel(err)
	}
}

// post tells the deal what happened on the channel.
func (x *sale) post(n channelNote) bool {
	n.chid, n.queued = x.chid, x.sent
	return x.d.inbox.post(n)
}

// payments passes what the client pays on to the deal. A payment behind one by which no
// more may be sent waits for its client's turn: each is verified, and answered.
func (x *sale) payments(ctx context.Context) {
	for limit := voucher.Bytes(0); ; {
		if now := x.d.limit(); limit < now {
			limit = now
		} else if err := x.c.p.idle.wait(ctx, x.d.key.From); err != nil {
			x.lost(err)
			return
		}
		if err := x.m.SetReadDeadline(time.Now().Add(x.c.p.cfg.IdleTimeout + streamIO)); err != nil {
			x.lost(err)
			return
		}
		p, err := x.m.in.Payment()
		if err != nil {
			x.lost(fmt.Errorf("read payment: %w", err))
			return
		}
		node, err := p.Encode()
		if err != nil {
			x.lost(err)
			return
		}
		paid := channelNote{kind: noteVoucher, chid: x.chid, voucher: datatransfer.TypedVoucher{Voucher: node, Type: voucher.PaymentType}}
		if !x.d.inbox.post(paid) {
			x.lost(errors.New("too many payments wait"))
			return
		}
	}
}

var (
	// errLastWord ends a walk whose deal has ended.
	errLastWord = errors.New("the deal has ended")
	// errWrite says that the client is not there any more.
	errWrite = errors.New("write")
)

// sell walks the selection, then says what is left to say.
func (x *sale) sell(ctx context.Context) error {
	err := x.await(ctx, func() bool { return x.may > 0 })
	if err == nil {
		x.ls = interpreted(x.c.p.cfg.Pieces.LinkSystem(x.d.piece.ID))
		err = selectors.Walk(ctx, x.ls, x.proposal.PayloadCID, x.proposal.Params.Selector, 0,
			func(c cid.Cid) ([]byte, error) { return x.feed(ctx, c) })
	}
	switch {
	case errors.Is(err, errLastWord):
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.Is(err, errWrite):
		return err
	case err != nil:
		return x.cannot(ctx, err)
	}
	x.mu.Lock()
	x.walked = true
	x.mu.Unlock()
	x.publish()
	x.post(channelNote{kind: noteEnded})
	if err := x.await(ctx, func() bool { return false }); !errors.Is(err, errLastWord) {
		return err
	}
	return nil
}

// cannot tells the client that the walk cannot go on. The deal waits: the
// operator may mend what is broken.
func (x *sale) cannot(ctx context.Context, cause error) error {
	x.c.p.log.Warn("deal stream", "peer", x.d.key.From, "id", x.d.key.ID, "err", cause)
	_ = x.write(ctx, voucher.DealResponse{
		Status: voucher.DealStatusErrored, ID: x.d.key.ID, Message: voucher.RefusedInternal.Message("a block cannot be read"),
	}) // the stream ends either way
	return cause
}

// feed is the walk's next block, which is sent if it is the client's due.
func (x *sale) feed(ctx context.Context, c cid.Cid) ([]byte, error) {
	x.publish() // there is more: the block before was not the last
	x.links++
	skip := x.proposal.Once && uint64(x.links) <= x.proposal.Skip
	_, repeat := x.seen[c]
	repeat = repeat && x.proposal.Once
	if !skip && !repeat {
		if err := x.permit(ctx); err != nil {
			return nil, err
		}
	}
	data, err := load(ctx, x.ls, c)
	if err == nil {
		err = x.again(ctx, c, len(data))
	}
	if err != nil || repeat {
		return data, err
	}
	if skip {
		x.mu.Lock()
		x.progress.Skipped += uint64(len(data))
		x.progress.Links = x.links
		x.mu.Unlock()
		return data, x.c.skips.wait(ctx, x.d.key.From, len(data))
	}
	x.batch, x.held = append(x.batch, voucher.BlockOf(c, data)), x.held+len(data)
	x.sent = x.sent.Add(voucher.Bytes(len(data)))
	x.news = Progress{Sent: uint64(x.sent), Links: x.links, Started: true}
	return data, nil
}

// again notes a block that is passed. Links to what was passed before, for which
// nobody pays, wait for their turn, and a walk that follows them, or is sent what
// they lead to, without end stands still until the deal has said so.
func (x *sale) again(ctx context.Context, c cid.Cid, size int) error {
	_, repeat := x.seen[c]
	x.seen[c] = struct{}{}
	if !repeat || !x.proposal.Once && !x.proposal.Params.Terms().Free() {
		return nil
	}
	x.repeats++
	if !x.proposal.Once {
		x.repeated = x.repeated.Add(voucher.Bytes(size))
	}
	cfg := x.c.p.cfg
	if x.repeats <= cfg.MaxRepeats && x.repeated <= cfg.ResendAllowance.Add(x.sent.Sub(x.repeated)) {
		return x.c.repeats.wait(ctx, x.d.key.From, 1)
	}
	x.mu.Lock()
	x.progress.Repeats, x.progress.Endless = x.repeats, true
	x.mu.Unlock()
	x.post(channelNote{kind: noteStopped})
	return x.await(ctx, func() bool { return false })
}

// publish lets the deal know of the last block.
func (x *sale) publish() {
	if !x.news.Started {
		return
	}
	x.mu.Lock()
	p := &x.progress
	if !p.Begun {
		p.Begun, p.Base = true, p.Skipped
	}
	p.Sent, p.Latest, p.Links, p.High, p.Started = x.news.Sent, x.news.Sent, x.news.Links, x.news.Links, true
	p.Reached = p.Skipped + p.Sent
	x.mu.Unlock()
	x.news = Progress{}
	x.post(channelNote{kind: noteProgress})
}

// permit waits until one more block may be sent.
func (x *sale) permit(ctx context.Context) error {
	if x.held >= batchBytes || len(x.batch) >= batchBlocks {
		if err := x.flush(ctx); err != nil {
			return err
		}
	}
	may := func() bool { return x.sent < x.may && (x.hold == 0 || x.links <= x.hold) }
	x.mu.Lock()
	ready, words := may(), len(x.words) != 0
	x.mu.Unlock()
	if ready && !words {
		return nil
	}
	if err := x.flush(ctx); err != nil {
		return err
	}
	if !ready {
		x.post(channelNote{kind: noteStopped})
	}
	return x.await(ctx, may)
}

// await says what is to be said until ready, which is called with x.mu held.
func (x *sale) await(ctx context.Context, ready func() bool) error {
	for {
		x.mu.Lock()
		words, ok := x.words, ready()
		x.words = nil
		x.mu.Unlock()
		for _, w := range words {
			if err := x.write(ctx, w); err != nil {
				return err
			}
		}
		switch {
		case x.last:
			return errLastWord
		case ok:
			return nil
		}
		select {
		case <-x.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// flush writes the blocks that wait. They are not the last.
func (x *sale) flush(ctx context.Context) error {
	if len(x.batch) == 0 {
		return nil
	}
	return x.write(ctx, voucher.DealResponse{Status: voucher.DealStatusOngoing, ID: x.d.key.ID})
}

// write says one word, with the blocks that wait unless it ends the deal without
// them.
func (x *sale) write(ctx context.Context, w voucher.DealResponse) error {
	r := voucher.ResponseV0{DealResponse: w}
	switch w.Status {
	case voucher.DealStatusOngoing, voucher.DealStatusFundsNeeded, voucher.DealStatusFundsNeededLastPayment:
		r.Blocks = x.batch
	case voucher.DealStatusCompleted:
		r.Blocks, x.last = x.batch, true
	case voucher.DealStatusRejected, voucher.DealStatusDealNotFound, voucher.DealStatusErrored, voucher.DealStatusCancelled:
		x.last = true
	}
	if pace := x.c.p.cfg.Pace; pace != nil && len(r.Blocks) != 0 {
		if err := pace(ctx, x.d.key.From, x.held); err != nil {
			return fmt.Errorf("%w: %w", errWrite, err)
		}
	}
	if err := x.m.write(r.MarshalCBOR()); err != nil {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	if r.Blocks != nil {
		x.batch, x.held = nil, 0
	}
	return nil
}
