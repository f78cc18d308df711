package transport

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// guardedTransport is data-transfer's graphsync transport without its deadlocks.
type guardedTransport struct {
	*dtgs.Transport
	gate  gate           // before data-transfer
	work  sync.WaitGroup // cleanups
	begin sync.Mutex     // held to start a cleanup and to shut down
	down  bool           // guarded by begin; no cleanup starts any more
	ahead *ByteBudget    // what peers may be ahead of their channels' stores; may be nil
	on    *Exchange      // what it was made with; nil if that is not guarded
}

var _ datatransfer.PauseableTransport = (*guardedTransport)(nil)

// WrapTransport guards data-transfer's graphsync transport, which was made with on. The
// result is what to give to the manager. With nil for an exchange that is not one of
// WrapExchange, a peer that cancels a channel while it is served is served all of it.
func WrapTransport(t *dtgs.Transport, on *Exchange) datatransfer.PauseableTransport {
	return &guardedTransport{Transport: t, on: on}
}

// SetEventHandler sets data-transfer as the handler of events.
func (t *guardedTransport) SetEventHandler(h datatransfer.EventsHandler) error {
	return t.Transport.SetEventHandler(&gatedEvents{h, &t.gate})
}

// closeTimeout bounds the closing of a channel. The cancelling of a request takes
// no network and so no time.
const closeTimeout = 5 * time.Second

// CloseChannel cancels the request of a channel. For a channel without one, which
// any peer can make by cancelling what it never asked for, data-transfer waits
// until ctx is done, and the context of a message that came in never is.
func (t *guardedTransport) CloseChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return t.Transport.CloseChannel(ctx, chid)
}

// CleanupChannel forgets a channel. It returns at once. data-transfer calls it
// from the channel's state machine, or from a request hook that holds the
// channel's lock, and it takes that lock, while the hook may be waiting for the
// state machine: done in place, either stops the node for good.
func (t *guardedTransport) CleanupChannel(chid datatransfer.ChannelID) {
	t.abandon(chid)
	t.begin.Lock()
	defer t.begin.Unlock()
	if !t.down { // or there is nothing left to clean up, and Shutdown may be waiting
		t.work.Go(func() { t.Transport.CleanupChannel(chid) })
	}
}

// abandon ends the requests of a channel before anything forgets how far they may go.
func (t *guardedTransport) abandon(chid datatransfer.ChannelID) {
	if t.on != nil {
		t.on.abandon(chid)
	}
}

// TransferGuard configures WrapTransferNetwork.
type TransferGuard struct {
	// Rate and Burst bound the messages of one peer. Default 200 per second, 400
	// at once.
	Rate  rate.Limit
	Burst int

	// Logger is where drops and recovered panics go. Default slog.Default().
	Logger *slog.Logger
}

// guardedTransferNet is a data-transfer network that drops what may not come
// on its streams.
type guardedTransferNet struct {
	dtnet.DataTransferNetwork
	cfg    TransferGuard
	counts *counts
	gate   gate // before data-transfer
	sends  lingers
	limits *peerLimits
}

// WrapTransferNetwork puts a guard between net and the manager that sits on it.
// Requests that open or restart a channel are dropped: a pull travels with its
// graphsync request, and alone it would make the provider keep a record of a
// channel that serves nothing; a push is not served. A panic while a message is
// handled drops the message; unguarded it ends the process. Outbound responses
// that say nothing new are not sent.
func WrapTransferNetwork(net dtnet.DataTransferNetwork, cfg TransferGuard) dtnet.DataTransferNetwork {
	return newTransferNet(net, cfg)
}

func newTransferNet(net dtnet.DataTransferNetwork, cfg TransferGuard) *guardedTransferNet {
	cfg.Rate = orDefault(cfg.Rate, 200)
	cfg.Burst = orDefault(cfg.Burst, 400)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &guardedTransferNet{DataTransferNetwork: net, cfg: cfg, counts: newCounts(), limits: newPeerLimits(cfg.Rate, cfg.Burst)}
}

// SetDelegate registers the manager as the receiver of what passes the guard.
func (n *guardedTransferNet) SetDelegate(r dtnet.Receiver) {
	n.DataTransferNetwork.SetDelegate(&transferReceiver{r, n})
}

// SendMessage sends a message. It returns when that is written. One without news
// is not sent.
func (n *guardedTransferNet) SendMessage(ctx context.Context, p peer.ID, m datatransfer.Message) error {
	if noNews(m) {
		return nil
	}
	key := lingerKey{peer: p, transfer: m.TransferID(), request: m.IsRequest()}
	return n.sends.send(ctx, key, func(ctx context.Context) error { return n.DataTransferNetwork.SendMessage(ctx, p, m) })
}

// noNews says that a response tells its receiver nothing: accepted and not paused,
// as the channel was before. data-transfer makes one for every limit that is
// raised before it is reached; each would cost both sides a stream, and the next
// raise would wait for the answer to it.
func noNews(m datatransfer.Message) bool {
	r, ok := m.(datatransfer.Response)
	return ok && !r.IsRequest() && r.IsValidationResult() && r.Accepted() && r.EmptyVoucherResult() &&
		!r.IsPaused() && !r.IsNew() && !r.IsRestart() && !r.IsComplete() && !r.IsCancel()
}

// pass says whether a message of p comes slowly enough.
func (n *guardedTransferNet) pass(p peer.ID) bool {
	if n.limits.of(p).Allow() {
		return true
	}
	n.counts.add(ReasonRate)
	return false
}

func (n *guardedTransferNet) recovered(p peer.ID) {
	if r := recover(); r != nil {
		n.counts.add(ReasonPanic)
		n.cfg.Logger.Error("recovered from a panic", "in", "data-transfer message", "peer", p, "panic", r, "stack", string(debug.Stack()))
	}
}

type transferReceiver struct {
	dtnet.Receiver
	net *guardedTransferNet
}

// through calls f unless the peer is too fast or the node stops.
func (r *transferReceiver) through(p peer.ID, f func()) {
	defer r.net.recovered(p)
	if !r.net.pass(p) || !r.net.gate.enter() {
		return
	}
	defer r.net.gate.leave()
	f()
}

func (r *transferReceiver) ReceiveRequest(ctx context.Context, p peer.ID, m datatransfer.Request) {
	if m.IsNew() || m.IsRestart() {
		r.net.counts.add(ReasonTransfer)
		r.net.cfg.Logger.Info("data-transfer request dropped", "peer", p, "reason", "channels are opened by graphsync requests")
		return
	}
	r.through(p, func() { r.Receiver.ReceiveRequest(ctx, p, m) })
}

func (r *transferReceiver) ReceiveResponse(ctx context.Context, p peer.ID, m datatransfer.Response) {
	r.through(p, func() { r.Receiver.ReceiveResponse(ctx, p, m) })
}

func (r *transferReceiver) ReceiveRestartExistingChannelRequest(ctx context.Context, p peer.ID, m datatransfer.Request) {
	r.through(p, func() { r.Receiver.ReceiveRestartExistingChannelRequest(ctx, p, m) })
}

// Shutdown disconnects the transport from graphsync and waits for cleanups, at
// most until ctx is done.
func (t *guardedTransport) Shutdown(ctx context.Context) error {
	err := t.Transport.Shutdown(ctx)
	t.begin.Lock()
	t.down = true
	t.begin.Unlock()
	clean := make(chan struct{})
	go func() {
		t.work.Wait()
		close(clean)
	}()
	select {
	case <-clean:
	case <-ctx.Done():
	}
	return err
}
