package transport

import (
	"github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The hooks below are those that data-transfer registers. Graphsync calls them
// on goroutines that recover from nothing, so each recovers from a panic.

// RegisterIncomingRequestHook registers h for admitted requests.
func (e *Exchange) RegisterIncomingRequestHook(h graphsync.OnIncomingRequestHook) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterIncomingRequestHook(func(p peer.ID, req graphsync.RequestData, ha graphsync.IncomingRequestHookActions) {
		defer e.decided(req.ID())
		s := e.table.get(req.ID())
		if s == nil {
			ha.TerminateWithError(refuse(ReasonNotAdmitted, "request %s was not admitted", req.ID()))
			return
		}
		w := &requestActions{IncomingRequestHookActions: ha}
		// A resume may come as soon as h has released its lock on the channel, before
		// it is noted here that there is something to resume: it waits.
		s.enterHook()
		defer func() {
			if w.failed || !w.valid {
				e.table.reject(s)
			}
			s.leaveRequestHook(w)
		}()
		defer e.recovered("request hook", w.TerminateWithError)
		h(p, req, w)
	})
}

// requestActions notes what a hook decided.
type requestActions struct {
	graphsync.IncomingRequestHookActions
	valid, paused, failed bool
}

func (a *requestActions) ValidateRequest() {
	a.valid = true
	a.IncomingRequestHookActions.ValidateRequest()
}

func (a *requestActions) PauseResponse() {
	a.paused = true
	a.IncomingRequestHookActions.PauseResponse()
}

func (a *requestActions) TerminateWithError(err error) {
	a.failed = true
	a.IncomingRequestHookActions.TerminateWithError(err)
}

// RegisterOutgoingBlockHook registers h for the blocks of admitted requests. A
// pause that was asked for with Pause happens after h, so that h sees the block.
func (e *Exchange) RegisterOutgoingBlockHook(h graphsync.OnOutgoingBlockHook) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterOutgoingBlockHook(func(p peer.ID, req graphsync.RequestData, b graphsync.BlockData, ha graphsync.OutgoingBlockHookActions) {
		s := e.table.get(req.ID())
		if s == nil {
			ha.TerminateWithError(refuse(ReasonNotAdmitted, "request %s was not admitted", req.ID()))
			return
		}
		if s.isOrphan() {
			ha.TerminateWithError(refuse(ReasonNotAdmitted, "channel of request %s is gone", req.ID()))
			return
		}
		w := &blockActions{OutgoingBlockHookActions: ha}
		s.enterHook()
		defer func() {
			if s.leaveHook(w, b.Index()) {
				ha.PauseResponse()
			}
		}()
		defer e.recovered("block hook", w.TerminateWithError)
		h(p, req, b, w)
	})
}

// blockActions notes what a hook decided.
type blockActions struct {
	graphsync.OutgoingBlockHookActions
	paused, failed bool
}

func (a *blockActions) PauseResponse() {
	a.paused = true
	a.OutgoingBlockHookActions.PauseResponse()
}

func (a *blockActions) TerminateWithError(err error) {
	a.failed = true
	a.OutgoingBlockHookActions.TerminateWithError(err)
}

// enterHook notes that the request or a block of it is being decided on.
func (s *served) enterHook() {
	s.mu.Lock()
	s.hookEnd = make(chan struct{})
	s.mu.Unlock()
}

// leaveHook notes what was decided at a link. It returns true if the request must
// be paused because Pause or Hold asked for it, its pace, or its peer that does not
// read.
func (s *served) leaveHook(w *blockActions, link int64) (pause bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.hookEnd)
	s.hookEnd = nil
	if w.failed {
		return false
	}
	s.paused = w.paused || s.wantPause
	s.wantPause = false
	s.held, s.standing = s.meter.held(s.id, link), s.aside
	return (s.paused || s.stands()) && !w.paused
}

// leaveRequestHook notes what was decided on the request itself.
func (s *served) leaveRequestHook(w *requestActions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.hookEnd)
	s.hookEnd = nil
	s.paused = w.paused && !w.failed
}

// RegisterRequestorCancelledListener registers l for cancelled requests, except
// for one that a newer request of the same channel has replaced: data-transfer
// would take that for the cancellation of the newer one and never resume it.
func (e *Exchange) RegisterRequestorCancelledListener(l graphsync.OnRequestorCancelledListener) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterRequestorCancelledListener(func(p peer.ID, req graphsync.RequestData) {
		defer e.recovered("cancelled listener", nil)
		if in, err := examine(e.self, p, req); err == nil {
			if m := e.table.meterOf(in.Channel); m != nil && !m.isLatest(req.ID()) {
				return
			}
		}
		l(p, req)
	})
}

// RegisterRequestUpdatedHook registers h for updates that carry a voucher. Any
// other data-transfer message has no business in an update.
func (e *Exchange) RegisterRequestUpdatedHook(h graphsync.OnRequestUpdatedHook) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterRequestUpdatedHook(func(p peer.ID, req, update graphsync.RequestData, ha graphsync.RequestUpdatedHookActions) {
		defer e.recovered("update hook", ha.TerminateWithError)
		if err := checkUpdate(update); err != nil {
			e.counts.add(reasonOf(err, ReasonUpdate))
			return
		}
		h(p, req, update, ha)
	})
}

// checkUpdate refuses an update that does not carry just a voucher.
func checkUpdate(update graphsync.RequestData) error {
	if err := checkExtensions(update); err != nil {
		return err
	}
	m, err := transferRequest(update)
	if err != nil {
		return err
	}
	if !m.IsVoucher() || m.IsNew() || m.IsRestart() {
		return refuse(ReasonUpdate, "update does not carry a voucher")
	}
	return nil
}

// RegisterIncomingBlockHook registers h for received blocks.
func (e *Exchange) RegisterIncomingBlockHook(h graphsync.OnIncomingBlockHook) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterIncomingBlockHook(func(p peer.ID, r graphsync.ResponseData, b graphsync.BlockData, ha graphsync.IncomingBlockHookActions) {
		defer e.recovered("incoming block hook", ha.TerminateWithError)
		h(p, r, b, ha)
	})
}

// RegisterIncomingResponseHook registers h for responses.
func (e *Exchange) RegisterIncomingResponseHook(h graphsync.OnIncomingResponseHook) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterIncomingResponseHook(func(p peer.ID, r graphsync.ResponseData, ha graphsync.IncomingResponseHookActions) {
		defer e.recovered("response hook", ha.TerminateWithError)
		h(p, r, ha)
	})
}

// RegisterOutgoingRequestHook registers h for this node's own requests.
func (e *Exchange) RegisterOutgoingRequestHook(h graphsync.OnOutgoingRequestHook) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterOutgoingRequestHook(func(p peer.ID, req graphsync.RequestData, ha graphsync.OutgoingRequestHookActions) {
		defer e.recovered("outgoing request hook", nil)
		h(p, req, ha)
	})
}

// RegisterCompletedResponseListener registers l for responses that were sent.
func (e *Exchange) RegisterCompletedResponseListener(l graphsync.OnResponseCompletedListener) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterCompletedResponseListener(func(p peer.ID, req graphsync.RequestData, status graphsync.ResponseStatusCode) {
		defer e.recovered("completed listener", nil)
		l(p, req, status)
	})
}

// RegisterBlockSentListener registers l for blocks handed to the network.
func (e *Exchange) RegisterBlockSentListener(l graphsync.OnBlockSentListener) graphsync.UnregisterHookFunc {
	return e.GraphExchange.RegisterBlockSentListener(func(p peer.ID, req graphsync.RequestData, b graphsync.BlockData) {
		defer e.recovered("block sent listener", nil)
		l(p, req, b)
	})
}
