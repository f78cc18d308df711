package transport

import (
	"context"
	"errors"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// failed is called when something of a request could not be sent. Graphsync
// ends such a request without telling, a running one at its next block.
func (e *Exchange) failed(id graphsync.RequestID) {
	s := e.table.get(id)
	if s == nil {
		return
	}
	s.mu.Lock()
	first := !s.dying
	s.dying = true
	s.mu.Unlock()
	e.flow.drop(s)
	if first {
		e.spawn(func() { e.settle(e.ctx, s.channel) })
	}
}

// abandon ends what is live of a channel that data-transfer lets go of. A peer brings
// that about by cancelling the channel in a message of data-transfer's own: graphsync
// knows nothing of it and goes on with the request, which nothing limits any more. It
// waits for nobody.
func (e *Exchange) abandon(chid datatransfer.ChannelID) {
	for _, s := range e.table.live(chid) {
		s.mu.Lock()
		first := !s.dying
		s.orphan, s.dying = true, true
		s.mu.Unlock()
		e.flow.drop(s)
		if first {
			e.spawn(func() { e.dismiss(s) })
		}
	}
}

// dismiss ends a request and has its peer told, if that takes no time.
func (e *Exchange) dismiss(s *served) {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.SettleTimeout)
	defer cancel()
	_ = e.GraphExchange.Cancel(ctx, s.id) // it fails if it is about to end anyway
	if !await(ctx, []*served{s}) {
		e.settleAll(e.ctx, []*served{s})
	}
}

func (s *served) isOrphan() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orphan
}

// settle ends the live requests of a channel and waits until graphsync has let
// go of them, at most SettleTimeout. It must not be called on a goroutine of
// graphsync.
func (e *Exchange) settle(ctx context.Context, chid datatransfer.ChannelID) bool {
	return e.settleAll(ctx, e.table.live(chid))
}

func (e *Exchange) settleAll(ctx context.Context, ss []*served) bool {
	if len(ss) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.SettleTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		// Each turn anew: graphsync loses a cancel that comes while it takes note of
		// a pause.
		for _, s := range ss {
			if e.table.get(s.id) != nil {
				e.cancel(ctx, s)
			}
		}
		turn, done := context.WithTimeout(ctx, wait)
		over := await(turn, ss)
		done()
		if over || ctx.Err() != nil {
			return over
		}
		e.sweep(ss)
		for _, s := range ss {
			select {
			case <-s.done:
			default: // graphsync forgets the end of a request that is being paused
				e.cancel(ctx, s)
			}
		}
	}
}

// cancel ends a request as if its peer had cancelled it: nothing needs to be
// sent for that to take effect.
func (e *Exchange) cancel(ctx context.Context, s *served) {
	if e.cfg.Network != nil && e.cfg.Network.cancel(ctx, s.peer, s.id) {
		return
	}
	if err := e.GraphExchange.Cancel(ctx, s.id); errors.As(err, new(graphsync.RequestNotFoundErr)) {
		e.ended(s.id)
	}
}

// sweep ends the requests that graphsync no longer runs. It asks, because
// graphsync does not tell of a request that ended after a send failed.
func (e *Exchange) sweep(ss []*served) {
	gs, ok := e.GraphExchange.(stater)
	if !ok {
		return
	}
	for _, s := range ss {
		state, has := gs.PeerState(s.peer).IncomingState.RequestStates[s.id]
		if !has || state == graphsync.CompletingSend {
			e.ended(s.id)
		}
	}
}

// gone ends the requests of a peer that went away.
func (e *Exchange) gone(p peer.ID) {
	if ss := e.table.ofPeer(p); len(ss) != 0 {
		e.log.Info("ending the requests of a peer that went away", "peer", p, "requests", len(ss))
		e.settleAll(e.ctx, ss)
	}
}
