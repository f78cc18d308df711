package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

// repeatRate and repeatBurst bound the links per second to blocks that were
// passed before, and skipRate and skipBurst the bytes per second of blocks that are
// left out, for all clients; for one it is half of that. Each is read and walked, and
// nobody pays for it.
const (
	repeatRate  = 8 << 10
	repeatBurst = 64 << 10
	skipRate    = 512 << 20
	skipBurst   = 8 << 30
)

// providerStreams carries a provider's channels on streams.
type providerStreams struct {
	p       *Provider
	done    sync.WaitGroup // streams that are served
	repeats *shared        // of links for which nobody pays
	skips   *shared        // of bytes for which nobody pays

	mu     sync.Mutex
	ids    streamIDs                        // guarded by mu
	sales  map[datatransfer.ChannelID]*sale // guarded by mu; until their deal forgets them
	from   map[peer.ID]int                  // guarded by mu: streams of each client
	closed bool                             // guarded by mu
}

func newProviderStreams(p *Provider) *providerStreams {
	return &providerStreams{p: p, repeats: newShared(repeatRate, repeatBurst), skips: newShared(skipRate, skipBurst), sales: make(map[datatransfer.ChannelID]*sale), from: make(map[peer.ID]int)}
}

// shared is a rate for all peers, of which none has more than half.
type shared struct {
	peers *throttle
	total *rate.Limiter
}

func newShared(r rate.Limit, burst int) *shared {
	return &shared{newThrottle(r/2, burst/2), rate.NewLimiter(r, burst)}
}

// wait returns when it is p's turn for n, at most half of the burst, or with ctx. Its
// own turn comes first, so that it does not hold the others'.
func (s *shared) wait(ctx context.Context, p peer.ID, n int) error {
	if err := s.peers.of(p).WaitN(ctx, n); err != nil {
		return err
	}
	return s.total.WaitN(ctx, n)
}

func (c *providerStreams) sale(chid datatransfer.ChannelID) *sale {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sales[chid]
}

func (c *providerStreams) has(chid datatransfer.ChannelID) bool { return c.sale(chid) != nil }

func (c *providerStreams) meter() Meter {
	return func(chid datatransfer.ChannelID) (Progress, bool) {
		x := c.sale(chid)
		if x == nil {
			return Progress{}, false
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.progress, true
	}
}

// bound does nothing: a stream's blocks are sent in order, as far as they may be.
func (c *providerStreams) bound(datatransfer.ChannelID, int64, uint64, uint64) {}

func (c *providerStreams) hold(chid datatransfer.ChannelID, link int64) bool {
	if x := c.sale(chid); x != nil {
		x.mu.Lock()
		x.hold = link
		x.say(nil) // it may go on
		x.mu.Unlock()
	}
	return true
}

// opening is nil: what a sale is told before it begins stands, see begin.
func (c *providerStreams) opening(datatransfer.ChannelID) <-chan struct{} { return nil }

// grant passes a grant and a word on to the goroutine of the stream. While a
// walk goes on nothing but the limit asks for money; when it has ended only a
// word that says so may, since older clients expect it with the last block.
func (c *providerStreams) grant(_ context.Context, chid datatransfer.ChannelID, g validation.Grant, reply *voucher.DealResponse) error {
	x := c.sale(chid)
	if x == nil {
		return errNoChannel
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if reply != nil && reply.Status == voucher.DealStatusFundsNeeded && x.walked {
		return errors.New("everything is sent: ask for the last payment")
	}
	x.may, x.told = g.May(), true
	x.say(reply)
	return nil
}

func (c *providerStreams) reject(_ context.Context, chid datatransfer.ChannelID, reply *voucher.DealResponse) error {
	x := c.sale(chid)
	if x == nil {
		return errNoChannel
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.may, x.told = 0, true
	x.say(reply)
	return nil
}

func (c *providerStreams) close(_ context.Context, chid datatransfer.ChannelID) error {
	x := c.sale(chid)
	if x == nil {
		return errNoChannel
	}
	x.cancel(errClosedHere)
	c.forget(chid)
	return nil
}

func (c *providerStreams) forget(chid datatransfer.ChannelID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sales, chid)
}

// errClosedHere ends a stream that nobody needs any more.
var errClosedHere = errors.New("closed by this node")

// wait ends when every stream has ended, and takes no more. Their context must
// end first.
func (c *providerStreams) wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.done.Wait()
}

// enter counts a stream of a client, or refuses it.
func (c *providerStreams) enter(from peer.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("%w: shutting down", voucher.RefusedBusy)
	case c.from[from] >= c.p.cfg.MaxDealsPerPeer:
		return fmt.Errorf("%w: %d of your streams are open", voucher.RefusedBusy, c.from[from])
	}
	c.from[from]++
	c.done.Add(1)
	return nil
}

func (c *providerStreams) exit(from peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from[from]--; c.from[from] == 0 {
		delete(c.from, from)
	}
	c.done.Done()
}

// serve makes and carries the deal of one stream.
func (c *providerStreams) serve(s network.Stream) {
	m, from := newMessages(s), s.Conn().RemotePeer()
	if err := c.enter(from); err != nil {
		c.refuse(m, 0, err)
		return
	}
	defer c.exit(from)
	defer func() {
		if r := recover(); r != nil {
			c.p.log.Error("deal stream panicked", "peer", from, "err", r)
			_ = s.Reset() // the peer sees a broken stream
		}
	}()
	c.p.mu.Lock()
	life := c.p.ctx
	c.p.mu.Unlock()
	ctx, cancel := context.WithCancelCause(life)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })() // ends what waits for the peer
	if err := s.SetReadDeadline(time.Now().Add(streamIO)); err != nil {
		_ = s.Reset() // no deadline, no service
		return
	}
	proposal, err := m.in.Proposal()
	switch {
	case errors.Is(err, voucher.ErrMalformed):
		c.refuse(m, 0, fmt.Errorf("%w: %w", voucher.RefusedTerms, err))
	case err != nil:
		_ = s.Reset() // nothing to answer to
	default:
		c.deal(ctx, cancel, m, from, proposal)
	}
}

// refuse says why there is no deal.
func (c *providerStreams) refuse(m *messages, id voucher.DealID, cause error) {
	c.p.log.Debug("stream refused", "peer", m.Conn().RemotePeer(), "err", cause)
	if err := m.write(voucher.ResponseV0{DealResponse: validation.Refusal(id, cause)}.MarshalCBOR()); err != nil {
		return
	}
	_ = m.Close() // everything is written; the peer sees the end
}

// deal opens the deal that is proposed, or takes it up, and runs its channel.
func (c *providerStreams) deal(ctx context.Context, cancel context.CancelCauseFunc, m *messages, from peer.ID, p voucher.ProposalV0) {
	x := &sale{c: c, m: m, proposal: p, cancel: cancel, wake: make(chan struct{}, 1), seen: make(map[cid.Cid]struct{})}
	x.progress.SkipLinks = int64(min(p.Skip, 1<<62))
	c.mu.Lock()
	x.chid = c.ids.next(from, c.p.cfg.Host.ID())
	c.sales[x.chid] = x // the deal measures the channel before it takes it
	c.mu.Unlock()
	grant, reply, err := validation.Accept(c.p, x.chid, from, p.DealProposal, p.PayloadCID, p.Params.Selector)
	if err != nil {
		c.forget(x.chid)
		c.refuse(m, p.ID, err)
		return
	}
	c.p.mu.Lock()
	x.d = c.p.byChan[x.chid]
	c.p.mu.Unlock()
	if x.d == nil { // replaced, or ended, by now
		c.forget(x.chid)
		_ = m.Reset() // the peer comes again
		return
	}
	x.begin(grant, reply)
	x.run(ctx)
}
