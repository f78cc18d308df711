package transport

import (
	"time"

	"golang.org/x/time/rate"
)

// repeatRate and repeatBurst bound the links per second to blocks that were
// passed before, for one peer, and totalRepeats for all: each is read and walked
// again, and paid for by nobody.
const (
	repeatRate   = 16 << 10
	repeatBurst  = 64 << 10
	totalRepeats = 32 << 10
)

// leastWait is what is not worth waiting for.
const leastWait = 10 * time.Millisecond

// pace keeps the links for which nothing is sent from taking the processor.
type pace struct {
	peers *peerLimits
	total *rate.Limiter
}

func newPace() *pace {
	return &pace{peers: newPeerLimits(repeatRate, repeatBurst), total: rate.NewLimiter(totalRepeats, repeatBurst)}
}

// repeat counts a repetition of s and waits for its turn, until s ends or quit
// is closed. It runs on the worker that serves s.
func (p *pace) repeat(s *served, quit <-chan struct{}) {
	wait := max(p.peers.of(s.peer).Reserve().Delay(), p.total.Reserve().Delay())
	if wait < leastWait {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.done:
	case <-quit:
	}
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
