package interop

import (
	"context"
	"crypto/rand"
	"os"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestMain(m *testing.M) {
	if os.Getenv("TOLLGRAPH_TEST_LOG") == "" {
		golog.SetAllLoggers(golog.LevelFatal) // the libraries log every invalid transition as an error
	}
	os.Exit(m.Run())
}

// stock is a node as programs of the existing network build it: go-libp2p,
// go-graphsync and go-data-transfer with their defaults, nothing of ours.
type stock struct {
	t      testing.TB
	key    crypto.PrivKey
	ds     datastore.Batching // what such a program has on disk
	blocks *blocks

	host   host.Host
	dt     datatransfer.Manager
	cancel context.CancelFunc
	addrs  []string
}

func newStock(t testing.TB, b *blocks) *stock {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	s := &stock{t: t, key: key, ds: dssync.MutexWrap(datastore.NewMapDatastore()), blocks: b, addrs: []string{"/ip4/127.0.0.1/tcp/0"}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *stock) start() {
	s.t.Helper()
	var err error
	s.host, err = libp2p.New(libp2p.Identity(s.key), libp2p.ListenAddrStrings(s.addrs...))
	must(s.t, err)
	s.addrs = nil
	for _, a := range s.host.Addrs() {
		s.addrs = append(s.addrs, a.String()) // the same after a restart
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	gs := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(s.host), s.blocks.links())
	s.dt, err = dtimpl.NewDataTransfer(s.ds, dtnet.NewFromLibp2pHost(s.host), dtgs.NewTransport(s.host.ID(), gs))
	must(s.t, err)
	ready := make(chan error, 1)
	s.dt.OnReady(func(err error) { ready <- err })
	must(s.t, s.dt.Start(ctx))
	select {
	case err := <-ready:
		must(s.t, err)
	case <-time.After(10 * time.Second):
		s.t.Fatal("data-transfer is not ready")
	}
}

func (s *stock) stop() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	stopped := make(chan struct{})
	go func() {
		_ = s.dt.Stop(context.Background()) // it may wait for itself, whatever its deadline
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(2 * time.Second):
	}
	must(s.t, s.host.Close())
}

func (s *stock) addr() peer.AddrInfo { return peer.AddrInfo{ID: s.host.ID(), Addrs: s.host.Addrs()} }

// cut breaks every connection of h to p, as a network that fails does.
func cut(t testing.TB, h host.Host, p peer.ID) {
	t.Helper()
	for _, c := range h.Network().ConnsToPeer(p) {
		_ = c.CloseWithError(network.ConnErrorCode(1)) // it may be gone already
	}
}

// event is a data-transfer event and the channel as it was then.
type event struct {
	datatransfer.Event
	st datatransfer.ChannelState
}

// events is an unbounded queue from data-transfer's one goroutine to a deal's.
type events struct {
	mu   sync.Mutex
	list []event // guarded by mu
	wake chan struct{}
}

func newEvents() *events { return &events{wake: make(chan struct{}, 1)} }

func (q *events) put(e datatransfer.Event, st datatransfer.ChannelState) {
	q.mu.Lock()
	q.list = append(q.list, event{e, st})
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *events) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// within bounds a test's waiting.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
