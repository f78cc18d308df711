package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// clientStreams carries a client's channels on streams.
type clientStreams struct {
	c    *Client
	done sync.WaitGroup // channels that are open

	mu   sync.Mutex
	ids  streamIDs                            // guarded by mu
	buys map[datatransfer.ChannelID]*purchase // guarded by mu; open channels
}

func newClientStreams(c *Client) *clientStreams {
	return &clientStreams{c: c, buys: make(map[datatransfer.ChannelID]*purchase)}
}

func (t *clientStreams) buy(chid datatransfer.ChannelID) *purchase {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buys[chid]
}

func (t *clientStreams) has(chid datatransfer.ChannelID) bool { return t.buy(chid) != nil }

func (t *clientStreams) inBand() bool { return true }

func (t *clientStreams) skips(to peer.ID) bool {
	known, err := t.c.cfg.Host.Peerstore().SupportsProtocols(to, voucher.SkipProtocolV0)
	return err == nil && len(known) != 0
}

func (t *clientStreams) carriable(peer.ID, voucher.Terms, Bytes, Bytes) error { return nil }

// open proposes d on a stream of its own. What is held in front of the walk's
// first gap is not asked for where the provider knows how to leave it out.
func (t *clientStreams) open(ctx context.Context, d *clientDeal) (datatransfer.ChannelID, bool, error) {
	var none datatransfer.ChannelID
	p := voucher.ProposalV0{DealProposal: d.proposal, Once: t.skips(d.provider.ID)}
	if p.Once {
		_, held, err := selectors.Complete(ctx, interpreted(d.store.LinkSystem()), d.proposal.PayloadCID, d.proposal.Params.Selector, maxLocalLinks)
		if err != nil {
			return none, false, fmt.Errorf("look through what is held: %w", err)
		}
		p.Skip = held.Links
	}
	dialCtx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, err := t.c.cfg.Host.NewStream(dialCtx, d.provider.ID, voucher.DealProtocolV0)
	if err != nil {
		return none, !p.Once, fmt.Errorf("open deal stream: %w", err)
	}
	x := &purchase{t: t, d: d, m: newMessages(s), proposal: p, seen: make(map[cid.Cid]struct{})}
	if err := x.m.write(p.MarshalCBOR()); err != nil {
		_ = s.Reset() // nothing was agreed on it
		return none, !p.Once, fmt.Errorf("propose on a stream: %w", err)
	}
	chanCtx, end := context.WithCancel(ctx)
	x.cancel = end
	t.mu.Lock()
	x.chid = t.ids.next(t.c.cfg.Host.ID(), d.provider.ID)
	t.buys[x.chid] = x
	t.mu.Unlock()
	t.done.Go(func() {
		defer end()
		x.run(chanCtx)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.buys, x.chid)
	})
	return x.chid, !p.Once, nil
}

// errNoRestart is why the deal of a stream that broke ends where the provider
// cannot take it up.
var errNoRestart = errors.New("the provider cannot go on with a deal on another stream")

func (t *clientStreams) restart(context.Context, datatransfer.ChannelID) error { return errNoRestart }

func (t *clientStreams) pay(_ context.Context, chid datatransfer.ChannelID, p voucher.DealPayment) error {
	x := t.buy(chid)
	if x == nil {
		return errNoChannel
	}
	return x.m.write(p.MarshalTuple())
}

func (t *clientStreams) close(_ context.Context, chid datatransfer.ChannelID) error {
	x := t.buy(chid)
	if x == nil {
		return errNoChannel
	}
	x.cancel()
	return nil
}

// purchase is the client's end of one stream. Its goroutine walks the selection
// over what the provider sends.
type purchase struct {
	t        *clientStreams
	d        *clientDeal
	m        *messages
	chid     datatransfer.ChannelID
	proposal voucher.ProposalV0
	cancel   context.CancelFunc

	// Owned by run.
	links  uint64 // passed
	blocks int    // of the current answer, that were not taken
	answer *voucher.DealResponse
	seen   map[cid.Cid]struct{} // held by now; not used where repeats are sent
	still  bool                 // the deal was told that the provider stands still
}

// errFault wraps what a provider must not do.
var errFault = errors.New("deal stream")

// run takes blocks and answers until the stream ends.
func (x *purchase) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = x.m.Reset() })()
	defer func() { _ = x.m.Close() }() // nothing more is said; a stream that was reset stays so
	err := x.take(ctx)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errFault), errors.Is(err, voucher.ErrMalformed), errors.Is(err, voucher.ErrTooLarge):
		_ = x.m.Reset() // the provider is told nothing: it knows
		x.post(channelNote{kind: noteFault, err: err})
	default:
		x.post(channelNote{kind: noteLost, reason: fmt.Sprint(err)})
	}
}

func (x *purchase) post(n channelNote) {
	n.chid = x.chid
	x.d.inbox.post(n)
}

// take walks the selection over what comes, and then waits for the last word.
// It never returns nil: the provider ends the stream.
func (x *purchase) take(ctx context.Context) error {
	ls := interpreted(x.d.linkSystem())
	broken := error(nil) // what the walk was told, as it may wrap it away
	err := selectors.Walk(ctx, ls, x.proposal.PayloadCID, x.proposal.Params.Selector, 0, func(c cid.Cid) ([]byte, error) {
		data, err := x.feed(ctx, ls, c)
		broken = err
		return data, err
	})
	switch {
	case broken != nil:
		return broken
	case err != nil:
		return fmt.Errorf("%w: %w", errFault, err) // the data is not what its codec says
	case x.blocks != 0:
		return fmt.Errorf("%w: blocks behind the last one of the selection", errFault)
	}
	x.post(channelNote{kind: noteEnded})
	for {
		x.heed()
		if err := x.next(); err != nil {
			return err
		}
		if x.blocks != 0 {
			return fmt.Errorf("%w: blocks behind the last one of the selection", errFault)
		}
	}
}

// next reads the head of the provider's next answer.
func (x *purchase) next() error {
	if err := x.m.SetReadDeadline(time.Now().Add(x.t.c.cfg.UnsealPatience)); err != nil { // the deal looks after it before
		return err
	}
	r, n, err := x.m.in.Response()
	if err != nil {
		return err
	}
	if r.ID != x.d.id {
		return fmt.Errorf("%w: an answer about deal %d", errFault, r.ID)
	}
	x.answer, x.blocks = &r, n
	return nil
}

// heed tells the deal what the current answer says, once its blocks are taken.
func (x *purchase) heed() {
	if x.answer == nil || x.blocks != 0 {
		return
	}
	r := *x.answer
	x.answer = nil
	switch r.Status {
	case voucher.DealStatusAccepted:
		x.post(channelNote{kind: noteAccepted})
	case voucher.DealStatusFundsNeeded:
		x.post(channelNote{kind: noteStopped})
		x.still = true
	case voucher.DealStatusBlocksComplete, voucher.DealStatusFinalizing:
		return // the walk says so itself
	}
	node, err := r.Encode()
	if err != nil { // it was decoded a moment ago
		x.t.c.log.Error("answer", "id", x.d.id, "err", err)
		return
	}
	x.post(channelNote{kind: noteReply, voucher: datatransfer.TypedVoucher{Voucher: node, Type: voucher.ResponseType}})
}
