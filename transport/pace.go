package transport

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// repeatRate and repeatBurst bound the links per second to blocks that were
// passed before, for one peer, and totalRepeats and totalBurst for all: each is read
// and walked again, which takes some 50 µs, and paid for by nobody. Every repeatEarned
// bytes that are sent allow for one more.
const (
	repeatRate   = 1 << 10
	repeatBurst  = 8 << 10
	totalRepeats = 2 << 10
	totalBurst   = 16 << 10
	repeatEarned = 16 << 10
)

// leastWait is what is not worth waiting for on a goroutine of one's own, and leastStand
// what is not worth standing still for: a request is paused for that, which takes a
// message and a turn. It stands still for leastRest longer than it must, so that many
// links follow each other when it goes on. leastRead is what a link counts for at least
// where bytes that are read count.
const (
	leastWait  = 10 * time.Millisecond
	leastStand = 100 * time.Millisecond
	leastRest  = 400 * time.Millisecond
	leastRead  = 4 << 10
)

// Every requestEarned bytes that are sent to a peer allow for one more request, cancels
// and updates included, and requestsKept of these are remembered: who was sent much long
// ago is to be no flood either.
const (
	requestEarned = 16 << 10
	requestsKept  = 200
)

// skipBurst is how many seconds' worth of skipped blocks are read at once: a client
// that comes back is not to be taken for slow. skipPeers is how many peers' worth of
// that there is for all together, and skipEarned how many bytes may be skipped at
// full speed for each that was sent.
const (
	skipBurst  = 16
	skipPeers  = 2
	skipEarned = 2
)

// pace keeps what is read and not sent from taking the processor and the disk.
type pace struct {
	peers *peerLimits
	total *rate.Limiter

	skips     *peerLimits
	skipTotal *rate.Limiter

	mu   sync.Mutex
	sent map[peer.ID]*earned // guarded by mu
}

func newPace(skip uint64) *pace {
	per := min(skip, 1<<50)
	return &pace{
		peers: newPeerLimits(repeatRate, repeatBurst), total: rate.NewLimiter(totalRepeats, totalBurst),
		skips:     newPeerLimits(rate.Limit(per), int(skipBurst*per)),
		skipTotal: rate.NewLimiter(rate.Limit(skipPeers*per), int(skipPeers*skipBurst*per)),
		sent:      make(map[peer.ID]*earned),
	}
}

// earned is what a peer may have at full speed, in bytes.
type earned struct{ skips, repeats, requests uint64 }

// send counts bytes that were sent to a peer.
func (p *pace) send(to peer.ID, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.sent[to]
	if e == nil {
		if len(p.sent) >= maxLimits {
			clear(p.sent)
		}
		e = new(earned)
		p.sent[to] = e
	}
	e.skips, e.repeats = min(e.skips+skipEarned*n, 1<<50), min(e.repeats+n, 1<<50)
	e.requests = min(e.requests+n, requestsKept*requestEarned)
}

// spend takes what it can of n bytes from what a peer has earned for skips, and
// returns the rest.
func (p *pace) spend(by peer.ID, n uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.sent[by]
	if e == nil {
		return n
	}
	has := min(n, e.skips)
	e.skips -= has
	return n - has
}

// take reports whether a peer has earned n bytes of a kind, and takes them.
func (p *pace) take(by peer.ID, kind func(*earned) *uint64, n uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.sent[by]
	if e == nil || *kind(e) < n {
		return false
	}
	*kind(e) -= n
	return true
}

// spendRepeat reports whether a peer has earned a repetition, and takes it.
func (p *pace) spendRepeat(by peer.ID) bool {
	return p.take(by, func(e *earned) *uint64 { return &e.repeats }, repeatEarned)
}

// spendRequest reports whether a peer has earned a request above its rate, and takes it:
// one that buys small things one after the other is not held up, and a request that was
// answered with that much is no flood.
func (p *pace) spendRequest(by peer.ID) bool {
	return p.take(by, func(e *earned) *uint64 { return &e.requests }, requestEarned)
}

// skip counts a block that was read for a peer and is left out, and returns how long
// the request is to stand still for that. What the peer was sent before it may skip at
// full speed: for anybody else a skip is reading that nobody pays for.
func (p *pace) skip(by peer.ID, size uint64) time.Duration {
	n := int(p.spend(by, max(size, leastRead)))
	if n == 0 {
		return 0
	}
	own := p.skips.of(by)
	return rest(own.ReserveN(time.Now(), min(n, own.Burst())), p.skipTotal.ReserveN(time.Now(), min(n, p.skipTotal.Burst())))
}

// repeat counts a repetition, and returns how long the request is to stand still.
func (p *pace) repeat(by peer.ID) time.Duration {
	if p.spendRepeat(by) {
		return 0
	}
	return rest(p.peers.of(by).Reserve(), p.total.Reserve())
}

// rest is how long a request stands still until both turns have come.
func rest(own, all *rate.Reservation) time.Duration {
	wait := max(own.Delay(), all.Delay())
	if wait < leastStand {
		return 0
	}
	return wait + leastRest
}

// standStill lets s stand aside for a while. It does not wait: what does holds one of
// graphsync's workers, of which there are not so many.
func (e *Exchange) standStill(s *served, d time.Duration) {
	if d == 0 {
		return
	}
	s.standAside()
	e.spawn(func() {
		pause(e.ctx, s.done, d)
		e.recall(s)
	})
}

// endless stops a request for good. It stands still for SettleTimeout, so that
// whoever watches the channel can say why, and is ended.
func (e *Exchange) endless(s *served) {
	e.counts.add(ReasonEndless)
	e.log.Info("request follows repeated links without end", "peer", s.peer, "channel", s.channel, "repeats", e.cfg.MaxRepeats)
	s.mu.Lock()
	s.held, s.endless = true, true
	s.mu.Unlock()
	e.spawn(func() {
		pause(e.ctx, s.done, e.cfg.SettleTimeout)
		e.settle(e.ctx, s.channel)
	})
}
