package integration

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// netproxy is a TCP proxy on the loopback that does to connections what
// networks do: delays them, cuts them, or lets them go silent. It may be used
// concurrently.
type netproxy struct {
	listener net.Listener
	target   string
	ctx      context.Context
	stop     context.CancelFunc
	work     sync.WaitGroup

	mu    sync.Mutex
	delay func() time.Duration  // guarded by mu; of each piece of data, each way; it is called with mu held
	pairs map[net.Conn]net.Conn // guarded by mu; by the accepted side
	mute  bool                  // guarded by mu; swallow everything
	deaf  bool                  // guarded by mu; let no new connection in
}

// newProxy starts a proxy to target, host:port. It stops with the test.
func newProxy(t testing.TB, target string) *netproxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &netproxy{listener: l, target: target, pairs: make(map[net.Conn]net.Conn)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.work.Go(p.accept)
	t.Cleanup(func() {
		p.stop()
		_ = l.Close()
		p.cut()
		p.work.Wait()
	})
	return p
}

// hiddenHost is a host that listens and tells nobody where: peers reach it
// through proxies alone.
func hiddenHost(t testing.TB, key crypto.PrivKey) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.AddrsFactory(func([]multiaddr.Multiaddr) []multiaddr.Multiaddr { return nil }))
	must(t, err)
	return h
}

// proxyTo puts a proxy in front of a hidden host and returns how to reach it.
func proxyTo(t testing.TB, h host.Host) (*netproxy, peer.AddrInfo) {
	t.Helper()
	_, target, err := manet.DialArgs(h.Network().ListenAddresses()[0])
	must(t, err)
	p := newProxy(t, target)
	a, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p.listener.Addr().(*net.TCPAddr).Port))
	must(t, err)
	return p, peer.AddrInfo{ID: h.ID(), Addrs: []multiaddr.Multiaddr{a}}
}

// latency delays everything from now on by d each way.
func (p *netproxy) latency(d time.Duration) { p.jitter(func() time.Duration { return d }) }

// jitter delays everything from now on by what f returns, in order all the
// same.
func (p *netproxy) jitter(f func() time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = f
}

// cut closes every connection; new ones are let in.
func (p *netproxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, b := range p.pairs {
		_, _ = a.Close(), b.Close()
	}
}

// silence swallows everything while on, without closing a connection, and
// leaves out nothing but what came meanwhile: after it, connections of before
// are broken.
func (p *netproxy) silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = on
}

// refuse lets no new connection in while on.
func (p *netproxy) refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = on
}

func (p *netproxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		deaf := p.deaf
		p.mu.Unlock()
		out, err := net.DialTimeout("tcp", p.target, 5*time.Second)
		if err != nil || deaf {
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
			continue
		}
		p.mu.Lock()
		p.pairs[in] = out
		p.mu.Unlock()
		p.work.Go(func() { p.pipe(in, out) })
	}
}

// pipe carries both ways until one side closes.
func (p *netproxy) pipe(in, out net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { p.carry(in, out) })
	both.Go(func() { p.carry(out, in) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, in)
	p.mu.Unlock()
}

// parcel is data on its way.
type parcel struct {
	data []byte
	due  time.Time
}

// carry moves data from one side to the other, each piece after its delay. Data
// on its way does not hold up what follows.
func (p *netproxy) carry(from, to net.Conn) {
	way := make(chan parcel, 4096)
	var sender sync.WaitGroup
	sender.Go(func() { p.deliver(way, from, to) })
	defer sender.Wait()
	defer close(way)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if d, mute := p.fate(); !mute {
				way <- parcel{append([]byte(nil), buf[:n]...), time.Now().Add(d)}
			}
		}
		if err != nil {
			return
		}
	}
}

// fate is what happens to a piece of data.
func (p *netproxy) fate() (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delay == nil {
		return 0, p.mute
	}
	return p.delay(), p.mute
}

// deliver writes parcels when they are due, and closes both sides behind the
// last or when one cannot be written.
func (p *netproxy) deliver(way <-chan parcel, from, to net.Conn) {
	for x := range way {
		if wait := time.Until(x.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-p.ctx.Done():
			}
		}
		if _, err := to.Write(x.data); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	for range way { // the reader must not wait
	}
}
