package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// retrieval is a Request on its way: the deals that it takes, one after the
// other, and the goroutine that follows them. It has its root to itself until it
// is over.
type retrieval struct {
	c     *Client
	begun chan struct{} // closed when the first deal runs, or could not be made
	full  chan struct{} // closed when everything is here and the money at the provider, if that is before the end
	over  chan struct{} // closed at the end

	// Guarded by c.mu.
	request Request            // its Budget follows what the user says
	deal    *clientDeal        // the one that runs; nil before the first and between two
	last    DealID             // the latest; 0 before the first
	id      DealID             // of the order; 0 before the first
	turn    chan struct{}      // closed when another deal runs, or none will
	halt    error              // why no further deal is to begin
	ended   bool               // over
	sum     ClientDealState    // of the deals that are over; of all, with the outcome, at the end
	stop    context.CancelFunc // ends the making of the next deal

	// Owned by whoever makes deals: Retrieve, then the goroutine.
	gaps   []gap  // to be bought before anything else
	whole  bool   // what is left is to be bought in one deal
	rounds int    // how often gaps were looked for
	again  bool   // the latest deal took the place of one that its provider forgot
	order  DealID // the id of the order's first deal; 0 if there is none yet
	spent  Amount // by the deals of the order that are over
}

// maxRounds is how often a retrieval looks for gaps: those of an earlier run come
// first, then those of this one, and what they leave is usually nothing.
const maxRounds = 3

// wants reports whether r asks for the same.
func (v *retrieval) wants(r Request) bool {
	return v.request.Root == r.Root && selectors.Equal(v.request.Selector, r.Selector)
}

// receive tells that everything is here and paid. Only the last deal may say so.
func (v *retrieval) receive() { close(v.full) }

// leaving returns the end of the retrieval of root if it is near: everything is
// here, and only the last words are missing. Else it returns nil.
func (c *Client) leaving(root cid.Cid) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.roots[root]
	if v == nil {
		return nil
	}
	select {
	case <-v.full:
		return v.over
	default:
		return nil
	}
}

// untilLeft waits for the end of the retrieval of root if that is near.
func (c *Client) untilLeft(ctx context.Context, root cid.Cid) error {
	for {
		over := c.leaving(root)
		if over == nil {
			return nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// claim keeps the root of r for a new retrieval, which is the caller's to begin,
// or finds the one that r joins.
func (c *Client) claim(r Request) (v *retrieval, mine bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, errClosed
	}
	v, taken := c.roots[r.Root]
	switch {
	case !taken:
		v = &retrieval{c: c, request: r, begun: make(chan struct{}), full: make(chan struct{}), over: make(chan struct{}), turn: make(chan struct{})}
		c.roots[r.Root] = v
		return v, true, nil
	case v != nil && v.wants(r):
		if v.request.Provider.ID == r.Provider.ID {
			c.knows(r.Provider.AddrInfo)
		}
		return v, false, nil
	}
	return nil, false, fmt.Errorf("%w: %s", ErrBusy, r.Root)
}

var errClosed = errors.New("client: closed")

// running returns the retrieval that goes on with the order of a deal, if one
// does, its deal that runs, if one does, and what tells that another one does.
func (c *Client) running(ctx context.Context, id DealID) (*retrieval, *clientDeal, <-chan struct{}) {
	order := id
	if r, err := c.book.get(ctx, id); err == nil { // else it is not known, and so does not run
		order = r.order()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.roots {
		if v != nil && v.id != 0 && v.id == order {
			return v, v.deal, v.turn
		}
	}
	return nil, nil, nil
}

// begin makes the first deal and follows it, aside.
func (v *retrieval) begin(ctx context.Context) (DealID, error) {
	defer close(v.begun)
	d, err := v.next(ctx)
	if err == nil && d == nil {
		d, err = v.nothing(ctx)
	}
	if err == nil {
		err = v.start(d)
	}
	if err != nil {
		v.c.release(v.request.Root)
		return 0, err
	}
	life, stop := context.WithCancel(v.c.ctx)
	v.c.mu.Lock()
	v.stop = stop
	v.c.mu.Unlock()
	v.c.done.Go(func() {
		defer stop()
		v.run(life, d)
	})
	return d.id, nil
}

// start runs d. One that the user stopped meanwhile is stopped at once.
func (v *retrieval) start(d *clientDeal) error {
	c := v.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.Join(errClosed, d.store.Close())
	}
	if len(c.runs) >= keepEnded {
		for id, other := range c.runs { // what they ended as is on disk
			if other.ended {
				delete(c.runs, id)
			}
		}
	}
	c.live[d.id], c.runs[d.id] = d, v
	delete(c.ended, d.id)
	d.of, v.deal, v.last, v.id = v, d, d.id, d.rec.order()
	close(v.turn)
	v.turn = make(chan struct{})
	c.done.Go(func() { d.run(c.ctx) })
	if v.halt != nil {
		d.inbox.post(haltNote{v.halt})
	}
	return nil
}

// run follows the deals until there is none.
func (v *retrieval) run(ctx context.Context, d *clientDeal) {
	var err error
	for d != nil && err == nil {
		<-d.gone
		d, err = v.after(ctx, d)
	}
	v.finish(err)
}

// after takes in how d ended, and makes and starts the next deal if there is to
// be one.
func (v *retrieval) after(ctx context.Context, d *clientDeal) (*clientDeal, error) {
	s := d.snapshot()
	err := outcome(s)
	v.spent = s.SpentBefore.Add(s.FundsSpent)
	v.c.mu.Lock()
	v.request.Budget = s.TotalFunds
	v.sum = s.plus(v.sum)
	v.c.mu.Unlock()
	part := d.rec.Whole != ""
	switch {
	case err == nil && !part:
		return nil, nil
	case err == nil:
		v.again = false
	case errors.Is(err, voucher.RefusedResume) && d.rec.Plain && d.fresh() > 0: // the next deal is for what is missing now
		v.again, v.gaps, v.rounds = true, nil, 0
	case errors.Is(err, voucher.RefusedResume) && !v.again: // it goes on with a new deal, for what is left of the budget
		v.again = true
		if part {
			v.gaps = append([]gap{{root: d.proposal.PayloadCID, node: d.proposal.Params.Selector}}, v.gaps...)
		}
	case part && soldWhole(err):
		v.whole, v.gaps = true, nil
	default:
		return nil, err
	}
	next, err := v.follow(ctx)
	if err != nil || next == nil {
		return nil, err
	}
	return next, v.start(next)
}

// soldWhole reports whether a provider that refused a part of a DAG may sell the
// whole.
func soldWhole(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, voucher.RefusedSelector)
}

// follow is next for a retrieval that runs: a network that is away for a while is
// waited for.
func (v *retrieval) follow(ctx context.Context) (*clientDeal, error) {
	deadline, rest := time.Now().Add(v.c.cfg.Patience), 250*time.Millisecond
	for {
		d, err := v.next(ctx)
		if why := v.halted(); why != nil || ctx.Err() != nil {
			if d != nil {
				err = d.store.Close()
			}
			return nil, errors.Join(orStopped(why), err)
		}
		if !errors.Is(err, ErrUnreachable) && !errors.Is(err, errNoAnswer) {
			return d, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: %w", ErrSuspended, err)
		}
		pause(ctx, rest)
		rest = min(2*rest, maxBackoff)
	}
}

func orStopped(why error) error {
	if why == nil {
		why = fmt.Errorf("%w: stopped", ErrSuspended)
	}
	return why
}

func (v *retrieval) halted() error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	return v.halt
}

// haltNow ends the retrieval for a reason of the user's. It returns when the
// retrieval is over, or with ctx.
func (v *retrieval) haltNow(ctx context.Context, why error) error {
	v.c.mu.Lock()
	v.halt = why
	d, stop := v.deal, v.stop
	v.c.mu.Unlock()
	if stop != nil {
		stop()
	}
	if d != nil {
		d.inbox.post(haltNote{why})
	}
	select {
	case <-v.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish sums up and gives the root free. An order that is fulfilled or given up
// is marked as that: what it spent no longer counts for the same request.
func (v *retrieval) finish(err error) {
	c := v.c
	if !errors.Is(err, ErrSuspended) {
		if kept := c.endOrder(context.WithoutCancel(c.ctx), v.request.Root, v.order, err == nil || errors.Is(err, errCancelled)); kept != nil {
			c.log.Error("order", "id", v.order, "err", kept)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		v.sum.Err = err
		if v.sum.Message == "" {
			v.sum.Message = err.Error()
		}
	}
	v.ended = true
	delete(c.roots, v.request.Root)
	close(v.turn)
	close(v.over)
}

// state is the sum of the deals so far.
func (v *retrieval) state() ClientDealState {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.deal == nil {
		return v.sum
	}
	return v.deal.snapshot().plus(v.sum)
}

// outcome is the error of a deal that ended as s.
func outcome(s ClientDealState) error {
	if s.Err == nil && s.Status != voucher.DealStatusCompleted {
		return fmt.Errorf("%w: %s", ErrSuspended, s.Message)
	}
	return s.Err
}

// plus returns s with what earlier deals of the same retrieval came to added.
func (s ClientDealState) plus(o ClientDealState) ClientDealState {
	if o.ID == 0 {
		return s
	}
	s.TotalReceived, s.Expected = s.TotalReceived.Add(o.TotalReceived), s.Expected.Add(o.Expected)
	s.FundsSpent, s.SpentBefore = s.FundsSpent.Add(o.FundsSpent), o.SpentBefore
	s.Payments, s.Stalls = s.Payments+o.Payments, s.Stalls+o.Stalls
	s.Created, s.FirstByte = o.Created, o.FirstByte
	return s
}
