package transport

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
)

// GuardConfig configures an Exchange.
type GuardConfig struct {
	// Network is the guarded network that the exchange sits on. With it, the old
	// request of a channel is ended before its restart, and the requests of peers
	// that went away are ended. Without it, a restart is refused until the old
	// request has ended.
	Network *GuardedNetwork

	// Admit may refuse what has passed all other checks. It runs on graphsync's
	// one response goroutine: it must not block and must not call graphsync or
	// data-transfer. Default: everything is admitted.
	Admit func(Incoming) error

	// MaxLivePerPeer is how many requests a peer may have at once. Default 64.
	MaxLivePerPeer int

	// MaxResent is how many bytes one request may have sent again, and all requests
	// of a channel beyond as much as was sent to it for the first time.
	// data-transfer does not count them, so this is what a peer can get for nothing.
	// It is what can be lost when a connection breaks: what is queued here (Window),
	// what libp2p has under way (up to 16 MiB), what the system's sockets hold and
	// what the peer has not written yet. Default Window and 40 MiB.
	MaxResent uint64

	// MaxRepeats is how many links to blocks that it has passed before one request
	// may follow. Nothing is sent for such a link, so nobody pays for it, and a DAG
	// whose nodes share their children has more of them than anybody can follow.
	// Default 1 Mi.
	MaxRepeats int64

	// SkipRate is how many bytes of blocks that a peer asks to leave out are read for
	// it each second, beyond twice what was sent to it; 16 seconds' worth at once, and
	// twice that for all peers. They are read to find the links in them, and nobody
	// pays for it. Default 256 MiB.
	SkipRate uint64

	// Window is how many block bytes may be queued for a peer and not yet be
	// handed to the network. The traversal waits there. It must be well below
	// graphsync's MaxMemoryPerPeerResponder: graphsync waits for that memory on
	// the one goroutine that serves all peers, and takes the messages that travel with
	// blocks, some 140 bytes for each payment, off it until the peer disconnects.
	// With this guard it needs no limit: give it 1<<62. Default 16 MiB.
	Window uint64

	// TotalWindow is the same for all peers together. At that point each still gets
	// one block at a time. It must be well below graphsync's MaxMemoryResponder.
	// Default 1 GiB.
	TotalWindow uint64

	// MaxWaiting is how many requests may wait at once for their peers to read. Each
	// holds one of graphsync's workers; beyond that, those of the peer that has read
	// nothing for longest are paused until it reads. It should be three quarters of
	// graphsync's MaxInProgressIncomingRequests. Default 100.
	MaxWaiting int

	// KeepChannels is how many channels Progress remembers. Default 65536.
	KeepChannels int

	// GoneAfter is how long after its last connection a peer's requests are
	// ended. Default 30 s.
	GoneAfter time.Duration

	// SettleTimeout is how long a restart waits for the old request of its channel
	// to end. Default 5 s.
	SettleTimeout time.Duration

	// Logger is where refusals and recovered panics go. Default slog.Default().
	Logger *slog.Logger
}

func (c GuardConfig) withDefaults() GuardConfig {
	c.MaxLivePerPeer = orDefault(c.MaxLivePerPeer, 64)
	c.Window = orDefault(c.Window, 16<<20)
	c.MaxResent = orDefault(c.MaxResent, c.Window+40<<20)
	c.MaxRepeats = orDefault(c.MaxRepeats, 1<<20)
	c.SkipRate = orDefault(c.SkipRate, 256<<20)
	c.TotalWindow = orDefault(c.TotalWindow, 1<<30)
	c.MaxWaiting = orDefault(c.MaxWaiting, 100)
	c.KeepChannels = orDefault(c.KeepChannels, 1<<16)
	c.GoneAfter = orDefault(c.GoneAfter, 30*time.Second)
	c.SettleTimeout = orDefault(c.SettleTimeout, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// orDefault returns v, or def if v is zero.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Exchange is a graphsync exchange that admits only honest requests, counts
// what it serves, and can be paused and resumed without holding anything up. It
// is what to give to data-transfer's graphsync transport. It may be used
// concurrently.
type Exchange struct {
	graphsync.GraphExchange // everything that is not guarded

	cfg      GuardConfig
	self     peer.ID
	table    *table
	flow     *flow
	pace     *pace
	arrivals *arrivals
	lobby    *lobby
	counts   *counts
	log      *slog.Logger

	asking sync.Mutex           // guards asked
	asked  map[peer.ID]struct{} // peers that this node sent requests to

	ctx      context.Context // ends when the exchange is closed
	stop     context.CancelFunc
	spawning sync.Mutex     // held to start a goroutine and to close
	work     sync.WaitGroup // goroutines that resume and settle requests
}

var _ graphsync.GraphExchange = (*Exchange)(nil)

// WrapExchange puts the guard around gs, the exchange of the node self. gs must
// reject requests by default, and nothing but the Exchange may register hooks
// on it. Close it before gs is stopped.
func WrapExchange(gs graphsync.GraphExchange, self peer.ID, cfg GuardConfig) *Exchange {
	cfg = cfg.withDefaults()
	ctx, stop := context.WithCancel(context.Background())
	e := &Exchange{
		GraphExchange: gs,
		cfg:           cfg,
		self:          self,
		table:         newTable(cfg.KeepChannels),
		pace:          newPace(cfg.SkipRate),
		arrivals:      newArrivals(),
		counts:        newCounts(),
		asked:         make(map[peer.ID]struct{}),
		log:           cfg.Logger,
		ctx:           ctx,
		stop:          stop,
	}
	e.lobby = newLobby(e.table.liveOf)
	e.flow = newFlow(cfg.Window, cfg.TotalWindow, cfg.MaxWaiting, e.recall)
	// These come first, so that they see every request and block: graphsync stops
	// at the first hook that pauses or refuses.
	gs.RegisterIncomingRequestHook(e.admit)
	gs.RegisterOutgoingBlockHook(e.count)
	gs.RegisterBlockSentListener(e.written)
	gs.RegisterCompletedResponseListener(func(_ peer.ID, r graphsync.RequestData, _ graphsync.ResponseStatusCode) { e.ended(r.ID()) })
	gs.RegisterRequestorCancelledListener(func(_ peer.ID, r graphsync.RequestData) { e.ended(r.ID()) })
	gs.RegisterNetworkErrorListener(func(_ peer.ID, r graphsync.RequestData, _ error) { e.failed(r.ID()) })
	if cfg.Network != nil {
		cfg.Network.bind(e)
	}
	return e
}

// Close cancels this node's own requests and stops the goroutines of the
// exchange. What it serves goes on until graphsync is stopped, which is to be
// done next: graphsync leaves goroutines behind that wait for answers to its
// requests.
func (e *Exchange) Close() error {
	if e.cfg.Network != nil {
		_ = e.cfg.Network.Close()
	}
	e.cancelOwn()
	e.spawning.Lock()
	e.stop()
	e.spawning.Unlock()
	e.flow.close()
	idle := make(chan struct{})
	go func() {
		e.work.Wait()
		close(idle)
	}()
	// A call that graphsync has not taken up returns when graphsync is stopped.
	pause(context.Background(), idle, e.cfg.SettleTimeout)
	return nil
}

// Request asks p for data.
func (e *Exchange) Request(ctx context.Context, p peer.ID, root ipld.Link, sel ipld.Node, ext ...graphsync.ExtensionData) (<-chan graphsync.ResponseProgress, <-chan error) {
	e.asking.Lock()
	e.asked[p] = struct{}{}
	e.asking.Unlock()
	return e.GraphExchange.Request(ctx, p, root, sel, ext...)
}

// cancelOwn cancels this node's own requests and waits for their end, at most
// SettleTimeout.
func (e *Exchange) cancelOwn() {
	gs, ok := e.GraphExchange.(stater)
	if !ok {
		return
	}
	e.asking.Lock()
	peers := slices.Collect(maps.Keys(e.asked))
	e.asking.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.SettleTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range peers {
		for id := range gs.PeerState(p).OutgoingState.RequestStates {
			wg.Go(func() { _ = e.GraphExchange.Cancel(ctx, id) }) // fails if it has just ended
		}
	}
	wg.Wait()
}

// stater is graphsync's own exchange, which tells what it is doing.
type stater interface {
	PeerState(peer.ID) gsimpl.PeerState
}

// Refused returns how many requests were refused, by reason, and how many
// panics were recovered from.
func (e *Exchange) Refused() map[Reason]uint64 { return e.counts.all() }

// spawn runs f unless the exchange is closed.
func (e *Exchange) spawn(f func()) {
	e.spawning.Lock()
	defer e.spawning.Unlock()
	if e.ctx.Err() == nil {
		e.work.Go(f)
	}
}

// admit is the first hook that an incoming request meets.
func (e *Exchange) admit(p peer.ID, req graphsync.RequestData, ha graphsync.IncomingRequestHookActions) {
	defer e.recovered("admission of a request", ha.TerminateWithError)
	in, err := examine(e.self, p, req)
	if err == nil && e.cfg.Admit != nil {
		if aerr := e.cfg.Admit(in); aerr != nil {
			err = fmt.Errorf("%w: %w", &Refusal{ReasonNotAdmitted, "not admitted"}, aerr)
		}
	}
	if err == nil {
		_, err = e.table.admit(in, e.cfg.MaxLivePerPeer)
	}
	if err == nil {
		return
	}
	e.decided(req.ID())
	why := reasonOf(err, ReasonMalformed)
	e.counts.add(why)
	e.log.Info("request refused", "peer", p, "request", req.ID(), "root", req.Root(), "error", err)
	if why == ReasonLive {
		e.spawn(func() { e.settle(e.ctx, in.Channel) })
	}
	// No extension is sent along: its memory would be waited for by the goroutine
	// that serves all peers.
	ha.TerminateWithError(err)
}

// count meets every block of a response before data-transfer does.
func (e *Exchange) count(_ peer.ID, req graphsync.RequestData, b graphsync.BlockData, ha graphsync.OutgoingBlockHookActions) {
	s := e.table.get(req.ID())
	if s == nil {
		ha.TerminateWithError(refuse(ReasonNotAdmitted, "request %s was not admitted", req.ID()))
		return
	}
	wire := b.BlockSizeOnWire()
	again, outside := s.meter.block(s.id, b)
	switch {
	case outside:
		e.counts.add(ReasonBound)
		ha.TerminateWithError(refuse(ReasonBound, "channel %s was sent what lies outside of what it may have", s.channel))
		return
	case s.meter.resentTooMuch(e.cfg.MaxResent):
		e.counts.add(ReasonResent)
		ha.TerminateWithError(refuse(ReasonResent, "channel %s had more sent again than %d bytes", s.channel, e.cfg.MaxResent))
		return
	case again && s.meter.endless(s.id, e.cfg.MaxRepeats):
		e.endless(s)
		ha.PauseResponse()
		return
	case again:
		e.standStill(s, e.pace.repeat(s.peer))
	case wire == 0:
		e.standStill(s, e.pace.skip(s.peer, b.BlockSize()))
	default:
		e.arrivals.first(e.ctx)
		e.pace.send(s.peer, wire)
		e.flow.queue(s, wire)
	}
}

// written meets every block that was handed to the network.
func (e *Exchange) written(_ peer.ID, req graphsync.RequestData, b graphsync.BlockData) {
	if s := e.table.get(req.ID()); s != nil {
		s.meter.written(b.BlockSizeOnWire())
		e.flow.release(s, b.BlockSizeOnWire())
	}
}

// decided notes that a request has begun, or never will.
func (e *Exchange) decided(id graphsync.RequestID) {
	e.arrivals.decided(id)
	e.lobby.decided(id)
}

// Prove says of a peer that it is no stranger: that it has paid for something, or taken
// it. While such peers are served, others may begin only some requests each second.
// Whoever sells calls it; where nobody does, no request is held back.
func (e *Exchange) Prove(p peer.ID) { e.lobby.prove(p) }

// ended is called when graphsync has let go of a request.
func (e *Exchange) ended(id graphsync.RequestID) {
	e.decided(id)
	s := e.table.get(id)
	if s == nil {
		return
	}
	e.table.end(id)
	e.flow.drop(s)
	if e.cfg.Network != nil {
		e.cfg.Network.forget(s.peer, id)
	}
}

// recovered turns a panic of a hook into the failure of what it was called for.
// It must be deferred directly.
func (e *Exchange) recovered(what string, fail func(error)) {
	r := recover()
	if r == nil {
		return
	}
	e.counts.add(ReasonPanic)
	e.log.Error("recovered from a panic", "in", what, "panic", r, "stack", string(debug.Stack()))
	if fail != nil {
		// The text goes into data-transfer's record: no stack.
		fail(refuse(ReasonPanic, "panic in %s", what))
	}
}
