package transport

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// NetworkGuard configures WrapNetwork.
type NetworkGuard struct {
	// MaxRequests is how many requests one message may hold. Default 32.
	MaxRequests int

	// Rate and Burst bound the requests of one peer, cancels and updates included. Every
	// 16 KiB that it is sent allow for one more, up to as many again.
	// What is above them takes a little of what follows, see refusedCost: a peer that
	// goes on four times as fast has nothing let through until it is quiet for a second.
	// Default 50 per second, 200 at once.
	Rate  rate.Limit
	Burst int

	// RestartRate and RestartBurst bound how often one peer may restart a channel:
	// each time something is sent again, for nothing. Default 2 per second, 64 at
	// once.
	RestartRate  rate.Limit
	RestartBurst int

	// ReadRate and ReadBurst bound how many requests of one peer are looked at, also
	// of those that are over a limit. Beyond that its streams are not read: saying no
	// costs time too. Of a peer that asks faster than Rate a fourth of that is looked at.
	// Default 500 per second, as many at once.
	ReadRate  rate.Limit
	ReadBurst int

	// MaxKnown is how many request ids of one peer are remembered; what refers to
	// an older one is dropped. Default 4096.
	MaxKnown int

	// Offences is how many offending requests a peer may send before ClosePeer is
	// called. They are forgotten when the peer disconnects. Default 0: never.
	Offences int

	// ClosePeer closes the connections to a peer. It runs on a goroutine of its own.
	ClosePeer func(peer.ID)

	// Connected says whether there is a connection to a peer. Without it, the
	// connections are counted.
	Connected func(peer.ID) bool

	// Logger is where offences go. Default slog.Default().
	Logger *slog.Logger
}

func (c NetworkGuard) withDefaults() NetworkGuard {
	c.MaxRequests = orDefault(c.MaxRequests, 32)
	c.Rate = orDefault(c.Rate, 50)
	c.Burst = orDefault(c.Burst, 200)
	c.RestartRate = orDefault(c.RestartRate, 2)
	c.RestartBurst = orDefault(c.RestartBurst, 64)
	c.ReadRate = orDefault(c.ReadRate, 500)
	c.ReadBurst = orDefault(c.ReadBurst, 500)
	c.MaxKnown = orDefault(c.MaxKnown, 4096)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// GuardedNetwork is a graphsync network that drops what graphsync must not see.
// It may be used concurrently.
type GuardedNetwork struct {
	gsnet.GraphSyncNetwork

	cfg    NetworkGuard
	counts *counts
	busy   *busyWords

	mu       sync.Mutex // guards the fields below
	receiver gsnet.Receiver
	exchange *Exchange
	closed   bool
	peers    map[peer.ID]*remote
	timers   map[peer.ID]*time.Timer
}

// remote is what is known of a peer.
type remote struct {
	conns    int
	offences int
	limit    *rate.Limiter                // of requests that may pass
	earned   *rate.Limiter                // of those above it that its peer has earned
	over     int                          // requests above the limit that cost nothing yet
	restarts *rate.Limiter                // of those that restart a channel
	reads    *rate.Limiter                // of requests that are looked at
	logged   time.Time                    // when an offence was last told of
	hushed   int                          // offences since then
	known    map[graphsync.RequestID]bool // ids it asked with; true once cancelled
	order    []graphsync.RequestID
	broken   map[graphsync.RequestID]struct{} // responses of which a part was lost
}

// WrapNetwork puts a guard between net and the graphsync that sits on it.
// Requests that could crash or stall graphsync, that interfere with those of
// other peers, or that come too fast are dropped and counted. Of those that are
// over a limit the peer is told: RequestFailedBusy, come again later. A peer that
// goes on all the same is read more slowly: what it sends waits with it. What a
// peer may ask for is decided by the Exchange, not here. Each request is given a
// deduplication key of its own, so that what it is sent is counted for it; an Exchange
// over another network cannot see to that.
func WrapNetwork(net gsnet.GraphSyncNetwork, cfg NetworkGuard) *GuardedNetwork {
	return &GuardedNetwork{
		GraphSyncNetwork: net,
		cfg:              cfg.withDefaults(),
		counts:           newCounts(),
		busy:             newBusyWords(net.SendMessage),
		peers:            make(map[peer.ID]*remote),
		timers:           make(map[peer.ID]*time.Timer),
	}
}

// Dropped returns how many requests and responses were dropped, by reason.
func (n *GuardedNetwork) Dropped() map[Reason]uint64 { return n.counts.all() }

// SetDelegate registers graphsync as the receiver of what passes the guard.
func (n *GuardedNetwork) SetDelegate(r gsnet.Receiver) {
	n.mu.Lock()
	n.receiver = r
	n.mu.Unlock()
	n.GraphSyncNetwork.SetDelegate((*guardedReceiver)(n))
}

// Close makes the network deaf: nothing is delivered any more.
func (n *GuardedNetwork) Close() error {
	n.busy.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for p, t := range n.timers {
		t.Stop()
		delete(n.timers, p)
	}
	return nil
}

func (n *GuardedNetwork) bind(e *Exchange) {
	n.open(e)
	n.mu.Lock()
	n.exchange = e
	n.mu.Unlock()
}

// delegate returns the receiver, or nil if there is none (any more).
func (n *GuardedNetwork) delegate() (gsnet.Receiver, *Exchange) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil
	}
	return n.receiver, n.exchange
}

// cancel makes graphsync believe that p cancelled its request. It returns false
// if there is no graphsync.
func (n *GuardedNetwork) cancel(ctx context.Context, p peer.ID, id graphsync.RequestID) bool {
	r, _ := n.delegate()
	if r == nil {
		return false
	}
	r.ReceiveMessage(ctx, p, requestsMessage(gsmsg.NewCancelRequest(id)))
	return true
}

func requestsMessage(reqs ...gsmsg.GraphSyncRequest) gsmsg.GraphSyncMessage {
	return gsmsg.NewMessage(requestMap(reqs), nil, nil)
}

// remoteOf returns what is known of p. It is called with mu held.
func (n *GuardedNetwork) remoteOf(p peer.ID) *remote {
	r := n.peers[p]
	if r == nil {
		r = &remote{
			limit: rate.NewLimiter(n.cfg.Rate, n.cfg.Burst), earned: rate.NewLimiter(n.cfg.Rate, n.cfg.Burst), restarts: rate.NewLimiter(n.cfg.RestartRate, n.cfg.RestartBurst),
			reads: rate.NewLimiter(n.cfg.ReadRate, n.cfg.ReadBurst),
			known: make(map[graphsync.RequestID]bool), broken: make(map[graphsync.RequestID]struct{}),
		}
		n.peers[p] = r
	}
	return r
}

// forget drops a request id that graphsync has let go of.
func (n *GuardedNetwork) forget(p peer.ID, id graphsync.RequestID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.peers[p]; r != nil {
		delete(r.known, id)
	}
}

// learn remembers id, dropping the oldest beyond limit.
func (r *remote) learn(id graphsync.RequestID, limit int) {
	r.known[id] = false
	delete(r.broken, id)
	r.order = append(r.order, id)
	for len(r.order) > limit {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
}

// guardedReceiver is the network's receiver: it checks and passes on.
type guardedReceiver GuardedNetwork

func (g *guardedReceiver) net() *GuardedNetwork { return (*GuardedNetwork)(g) }

// ReceiveMessage checks a message and passes on what is left of it: first the
// cancels, so that one never ends the request that comes with it, then the
// rest. It runs on the goroutine of the peer's stream and may wait there.
func (g *guardedReceiver) ReceiveMessage(ctx context.Context, p peer.ID, msg gsmsg.GraphSyncMessage) {
	n := g.net()
	r, e := n.delegate()
	if r == nil {
		return
	}
	defer func() {
		if x := recover(); x != nil {
			n.counts.add(ReasonPanic)
			n.cfg.Logger.Error("recovered from a panic", "in", "message", "peer", p, "panic", x, "stack", string(debug.Stack()))
		}
	}()
	reqs, resps := msg.Requests(), msg.Responses()
	if len(reqs) == 0 && !anyNull(resps) {
		r.ReceiveMessage(ctx, p, msg) // data: by far the most
		return
	}
	if !n.slowDown(p, len(reqs)) {
		return
	}
	cancels, rest := n.filter(p, reqs)
	if len(cancels) != 0 {
		r.ReceiveMessage(ctx, p, requestsMessage(cancels...))
	}
	if e != nil {
		n.settleRestarts(ctx, e, p, rest)
		rest = slices.DeleteFunc(rest, func(req gsmsg.GraphSyncRequest) bool { return waits(e, p, req) })
	}
	out := gsmsg.NewMessage(requestMap(rest), n.responses(p, resps), blockMap(msg.Blocks()))
	if !out.Empty() {
		r.ReceiveMessage(ctx, p, out)
	}
}

// settleRestarts ends the old requests of the channels that reqs restart: the exchange
// admits one of a channel at a time.
func (n *GuardedNetwork) settleRestarts(ctx context.Context, e *Exchange, p peer.ID, reqs []gsmsg.GraphSyncRequest) {
	for _, req := range reqs {
		if req.Type() != graphsync.RequestTypeNew {
			continue
		}
		in, err := examine(e.self, p, req)
		if err == nil && in.Restart && !e.settle(ctx, in.Channel) {
			n.cfg.Logger.Warn("old request of a restarted channel did not end in time", "channel", in.Channel)
		}
	}
}

// ReceiveError passes on a network error.
func (g *guardedReceiver) ReceiveError(p peer.ID, err error) {
	if r, _ := g.net().delegate(); r != nil {
		r.ReceiveError(p, err)
	}
}

// Connected passes on a new connection.
func (g *guardedReceiver) Connected(p peer.ID) {
	n := g.net()
	n.mu.Lock()
	n.remoteOf(p).conns++
	if t := n.timers[p]; t != nil {
		t.Stop()
		delete(n.timers, p)
	}
	n.mu.Unlock()
	if r, _ := n.delegate(); r != nil {
		r.Connected(p)
	}
}

// Disconnected passes on a closed connection. After the last one, and a grace,
// the requests of the peer are ended: graphsync keeps a paused one for ever.
func (g *guardedReceiver) Disconnected(p peer.ID) {
	n := g.net()
	r, e := n.delegate()
	if r == nil {
		return
	}
	n.mu.Lock()
	last := n.lastConnection(p)
	switch {
	case !last || n.closed:
	case e == nil:
		delete(n.peers, p)
	case n.timers[p] == nil:
		n.timers[p] = time.AfterFunc(e.cfg.GoneAfter, func() { n.expire(e, p) })
	}
	n.mu.Unlock()
	r.Disconnected(p)
}

// lastConnection notes that a connection to p was closed and reports whether
// none is left. It is called with mu held.
func (n *GuardedNetwork) lastConnection(p peer.ID) bool {
	r := n.remoteOf(p)
	r.conns = max(r.conns-1, 0)
	if n.cfg.Connected != nil {
		return !n.cfg.Connected(p)
	}
	return r.conns == 0
}

// expire ends what a peer that went away has left behind.
func (n *GuardedNetwork) expire(e *Exchange, p peer.ID) {
	n.mu.Lock()
	if n.timers[p] == nil || n.closed {
		n.mu.Unlock()
		return
	}
	delete(n.timers, p)
	if n.cfg.Connected != nil && n.cfg.Connected(p) {
		n.mu.Unlock()
		return
	}
	delete(n.peers, p)
	n.mu.Unlock()
	e.lobby.forget(p)
	e.spawn(func() { e.gone(p) })
}
