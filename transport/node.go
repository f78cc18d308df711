package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Config configures a Node.
type Config struct {
	// Host is what the node speaks through. Required. Close does not close it.
	Host host.Host

	// StateDir is where data-transfer's records are kept. It is made if missing.
	// Default: they are in memory only, and no transfer outlives the node.
	StateDir string

	// Network is a graphsync network on Host. The node guards it. Default:
	// NewNetwork with IdleTimeout and a budget of ReceiveAhead.
	Network gsnet.GraphSyncNetwork

	// ReceiveAhead is how many bytes of blocks one peer may be ahead of the store
	// that UseStore gives its channel. It bounds memory when a disk is slow, and
	// the part of a paid transfer that is paid for but not yet on disk. It is not
	// used if Network is set. Default 4 MiB.
	ReceiveAhead int

	// IdleTimeout is how long an inbound graphsync stream may be silent. It is not
	// used if Network is set. Default 5 minutes.
	IdleTimeout time.Duration

	// MaxInProgress is how many requests of others have a goroutine at once to walk
	// their DAGs. The others wait for one; those whose peers do not read give theirs
	// up. Half as many of this node's own run at once. Default 256.
	MaxInProgress uint64

	// MaxInProgressPerPeer is how many requests of one peer are served at once.
	// Default 20.
	MaxInProgressPerPeer uint64

	// MemoryPerPeer is how many bytes are queued for one peer beyond what the
	// operating system and libp2p hold. It is also how far a provider runs ahead
	// of its client, whom that costs risk when it pays ahead. Default 4 MiB.
	MemoryPerPeer uint64

	// Memory is how many bytes are queued for all peers. At that point each gets one
	// block at a time, so it should be MemoryPerPeer times the number of slow peers
	// to be served. Default 1 GiB.
	Memory uint64

	// MaxLinks is how many links one request may traverse, of others' and of this
	// node's own. Default 32 Mi.
	MaxLinks uint64

	// SendTimeout is how long a graphsync message may take to be sent, and
	// SendRetries how many more times it is tried. Default 20 s and 1.
	SendTimeout time.Duration
	SendRetries int

	// KeepFinished is how long the record of a finished channel is kept. One that
	// was finished when the node started counts from then. Default 24 h.
	KeepFinished time.Duration

	// Egress bounds how fast blocks leave the node. Default: as fast as they go.
	Egress EgressConfig

	// Quiet says how much progress is gathered before data-transfer hears of it.
	Quiet QuietConfig

	// Guard and NetworkGuard set the limits of the two guards. The windows, MaxWaiting, Network,
	// Connected, ClosePeer and Logger are filled in by the node if not set.
	Guard        GuardConfig
	NetworkGuard NetworkGuard

	// Logger is where the node tells what it refused and recovered from. Default
	// slog.Default().
	Logger *slog.Logger
}

// fill checks c and sets the defaults.
func (c Config) fill() (Config, error) {
	if c.Host == nil {
		return c, errors.New("transport has no host: set Config.Host, such as with NewHost")
	}
	c.MaxInProgress = orDefault(c.MaxInProgress, 256)
	c.MaxInProgressPerPeer = orDefault(c.MaxInProgressPerPeer, 20)
	c.MemoryPerPeer = orDefault(c.MemoryPerPeer, 4<<20)
	c.Memory = orDefault(c.Memory, 1<<30)
	c.MaxLinks = orDefault(c.MaxLinks, 32<<20)
	c.ReceiveAhead = orDefault(c.ReceiveAhead, 4<<20)
	c.SendTimeout = orDefault(c.SendTimeout, 20*time.Second)
	c.SendRetries = orDefault(c.SendRetries, 1)
	c.KeepFinished = orDefault(c.KeepFinished, 24*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Guard.Window = orDefault(c.Guard.Window, c.MemoryPerPeer)
	c.Guard.TotalWindow = orDefault(c.Guard.TotalWindow, c.Memory)
	c.Guard.MaxWaiting = orDefault(c.Guard.MaxWaiting, max(1, int(c.MaxInProgress*3/4)))
	if c.Guard.Logger == nil {
		c.Guard.Logger = c.Logger
	}
	ng := &c.NetworkGuard
	if ng.Logger == nil {
		ng.Logger = c.Logger
	}
	if ng.Connected == nil {
		ng.Connected = func(p peer.ID) bool { return c.Host.Network().Connectedness(p) == network.Connected }
	}
	if ng.ClosePeer == nil {
		ng.ClosePeer = func(p peer.ID) { _ = c.Host.Network().ClosePeer(p) }
	}
	return c, nil
}

// stopTimeout bounds each step of Close.
const stopTimeout = 5 * time.Second

// A Node is the whole stack, running. It may be used concurrently.
type Node struct {
	// Meter counts what the node serves.
	Meter *Exchange
	// Egress is the limit on what is sent, for what else sends blocks on the host;
	// nil if there is none.
	Egress *Egress

	cfg       Config
	host      *GuardedHost
	network   *GuardedNetwork
	transport *guardedTransport
	quiet     *Quiet
	messages  *guardedTransferNet
	raw       datatransfer.Manager // unguarded; for Stop
	manager   datatransfer.Manager
	state     *stateStore
	gc        *collector
	stopGS    context.CancelFunc

	closing sync.Once
	closed  error
}

// New starts a node. It returns when data-transfer is ready; ctx bounds the
// start only. Voucher types may be registered on the result, before peers are
// told of it.
func New(ctx context.Context, cfg Config) (*Node, error) {
	cfg, err := cfg.fill()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, quiet: NewQuiet(cfg.Quiet)}
	if n.state, err = openState(ctx, cfg.StateDir); err != nil {
		return nil, err
	}
	n.assemble()
	if err := n.startTransfers(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.gc = newCollector(n.manager, n.state, cfg.KeepFinished)
	return n, nil
}

// assemble builds graphsync and what guards it.
func (n *Node) assemble() {
	c := n.cfg
	n.host = WrapHost(c.Host, HostGuard{Idle: c.IdleTimeout})
	panicked := func(r any, stack string) {
		c.Logger.Error("graphsync recovered from a panic", "panic", r, "stack", stack)
	}
	net := c.Network
	var ahead *ByteBudget
	if net == nil {
		ahead = NewByteBudget(c.ReceiveAhead, 0)
		net = NewNetwork(c.Host, NetworkConfig{IdleTimeout: c.IdleTimeout, Budget: ahead, OnPanic: panicked})
	}
	n.Egress = NewEgress(c.Egress)
	n.network = WrapNetwork(n.Egress.wrap(net), c.NetworkGuard)
	gsctx, stop := context.WithCancel(context.Background())
	n.stopGS = stop
	// The guard's windows hold the blocks. Graphsync counts messages too, and never
	// gives their bytes back while the peer is connected, so any limit of its own is
	// reached by whoever stays long enough, and stops them for good.
	const unlimited = 1 << 62
	gs := gsimpl.New(gsctx, n.network, denyAll(),
		gsimpl.RejectAllRequestsByDefault(),
		gsimpl.MaxInProgressIncomingRequests(c.MaxInProgress),
		gsimpl.MaxInProgressIncomingRequestsPerPeer(c.MaxInProgressPerPeer),
		gsimpl.MaxInProgressOutgoingRequests(max(1, c.MaxInProgress/2)),
		gsimpl.MaxMemoryPerPeerResponder(unlimited),
		gsimpl.MaxMemoryResponder(unlimited),
		gsimpl.MaxLinksPerIncomingRequests(c.MaxLinks),
		gsimpl.MaxLinksPerOutgoingRequests(c.MaxLinks),
		gsimpl.MessageSendRetries(c.SendRetries+1), // it counts the first time too
		gsimpl.SendMessageTimeout(c.SendTimeout),
		gsimpl.PanicCallback(panicked),
	)
	guard := c.Guard
	guard.Network = n.network
	n.Meter = WrapExchange(gs, c.Host.ID(), guard)
	n.transport = &guardedTransport{Transport: dtgs.NewTransport(c.Host.ID(), n.Meter), ahead: ahead, on: n.Meter}
}

// startTransfers builds data-transfer on top and waits until it is ready.
func (n *Node) startTransfers(ctx context.Context) error {
	net := dtnet.NewFromLibp2pHost(n.host.plain(),
		dtnet.RetryParameters(time.Second, 5*time.Second, 3, 2),
		dtnet.SendMessageParameters(5*time.Second, 5*time.Second))
	n.messages = newTransferNet(net, TransferGuard{Logger: n.cfg.Logger})
	m, err := dtimpl.NewDataTransfer(n.state.store, n.messages, n.quiet.Transport(n.transport))
	if err != nil {
		return fmt.Errorf("data-transfer: %w", err)
	}
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("start data-transfer: %w", err)
	}
	n.raw, n.manager = m, n.quiet.Manager(&guardedManager{m, n.cfg.Logger})
	select {
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("start data-transfer: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start data-transfer: %w", ctx.Err())
	}
}

// Transfers returns data-transfer's manager, guarded.
func (n *Node) Transfers() datatransfer.Manager { return n.manager }

// GraphExchange returns the graphsync exchange, guarded.
func (n *Node) GraphExchange() graphsync.GraphExchange { return n.Meter }

// Dropped returns how many messages of peers were dropped or refused, by reason.
func (n *Node) Dropped() map[Reason]uint64 {
	all := n.network.Dropped()
	for r, c := range n.Meter.Refused() {
		all[r] += c
	}
	return all
}

// Close stops the node and writes its records to disk. Transfers in progress are
// not failed: they can be restarted by the next node. The host stays open.
//
// First nothing is let in any more, from the network or into data-transfer, then
// graphsync goes, this node's own requests first, then data-transfer. In any other order blocks in flight meet a
// data-transfer that has stopped: the peer is told that its request failed, and
// a goroutine waits for ever.
func (n *Node) Close() error {
	n.closing.Do(func() { n.closed = n.shut() })
	return n.closed
}

func (n *Node) shut() error {
	_ = n.network.Close()
	quiet := n.transport.gate.close(stopTimeout)
	if n.messages != nil {
		quiet = n.messages.gate.close(stopTimeout) && quiet
	}
	if !quiet {
		n.cfg.Logger.Warn("stopping while data-transfer is at work: a message takes long to be sent")
	}
	n.quiet.Close()
	errs := []error{n.Meter.Close()}
	n.stopGS()
	if n.gc != nil {
		n.gc.close()
	}
	if n.raw != nil {
		n.stopTransfers()
		n.messages.sends.close()
	}
	n.host.Release()
	errs = append(errs, n.state.close())
	return errors.Join(errs...)
}

// stopTransfers stops data-transfer, or leaves it behind if that takes too long:
// it does not always keep to its context.
func (n *Node) stopTransfers() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- n.raw.Stop(ctx) }()
	select {
	case err := <-stopped:
		if err != nil { // nothing depends on it: requests that graphsync has forgotten
			n.cfg.Logger.Debug("data-transfer stopped", "error", err)
		}
	case <-ctx.Done():
		n.cfg.Logger.Warn("data-transfer did not stop in time")
	}
}

// stateStore is data-transfer's datastore and what is under it.
type stateStore struct {
	store datastore.Batching
	cache *WriteBehind // nil: in memory only
	file  *StateLog
}

// openState opens the records in dir, or none if dir is "".
func openState(ctx context.Context, dir string) (*stateStore, error) {
	if dir == "" {
		return &stateStore{store: dssync.MutexWrap(datastore.NewMapDatastore())}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("transfer state: %w", err)
	}
	file, err := OpenStateLog(filepath.Join(dir, "transfers"))
	if err != nil {
		return nil, err
	}
	cache, err := NewWriteBehind(ctx, file, 0)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &stateStore{store: cache, cache: cache, file: file}, nil
}

func (s *stateStore) close() error {
	if s.cache == nil {
		return nil
	}
	return errors.Join(s.cache.Close(), s.file.Close())
}
