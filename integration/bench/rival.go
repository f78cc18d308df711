package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/tollgraph/tollgraph/transport"
)

// A rival is one way to move the goods. It is set up once per case; fetch moves
// all of them once, to a place that is empty, and verifies what it claims to
// verify. What a rival needs anew for every fetch it makes in a method prepare,
// which is not measured.
type rival interface {
	fetch(ctx context.Context) error
	close()
}

// field is what a case gives to its rivals.
type field struct {
	c     benchCase
	goods *goods
	dir   string    // for the rival's files
	first func()    // called when the first block of a deal comes into memory; may be nil
	sinks *sync.Map // the latest *sink of each root, in memory; nil: nobody asks
	bare  bool      // the market goes without the guard
	ends  []func()
}

func (f *field) atEnd(undo func()) { f.ends = append(f.ends, undo) }

// close undoes everything, the last first. What hangs is left behind.
func (f *field) close() {
	for i := len(f.ends) - 1; i >= 0; i-- {
		_, _ = bounded(2*stopTimeout, func() (any, error) { f.ends[i](); return nil, nil })
	}
	f.ends = nil
}

// makers set up the rivals, in the order of the table.
var makers = []struct {
	name string
	make func(ctx context.Context, f *field) (rival, error)
}{
	{"stream", makeStream},
	{"stream-sha256", makeStreamHashed},
	{"http", makeHTTP},
	{"graphsync", makeGraphsync},
	{"data-transfer", makeDataTransfer},
	{"bitswap", makeBitswap},
	{"free", func(ctx context.Context, f *field) (rival, error) { return makeMarket(ctx, f, free) }},
	{"paid", func(ctx context.Context, f *field) (rival, error) { return makeMarket(ctx, f, paid) }},
	{bareName, makeBare},
	{"paid-strict", func(ctx context.Context, f *field) (rival, error) { return makeMarket(ctx, f, strict) }},
}

// maker returns what sets up the rival of a name, which is one of makers.
func maker(name string) func(ctx context.Context, f *field) (rival, error) {
	for _, m := range makers {
		if m.name == name {
			return m.make
		}
	}
	return func(context.Context, *field) (rival, error) { return nil, fmt.Errorf("%w: %s", errNoRival, name) }
}

// hosts returns a provider that listens and a client that is connected to it,
// over the delay if there is one.
func (f *field) hosts(ctx context.Context) (provider, client host.Host, err error) {
	if provider, client, err = f.strangers(); err != nil {
		return nil, nil, err
	}
	return provider, client, f.connect(ctx, client, provider)
}

// strangers returns the two hosts, not connected.
func (f *field) strangers() (provider, client host.Host, err error) {
	listen := "/ip4/127.0.0.1/tcp/0"
	if f.c.QUIC {
		listen = "/ip4/127.0.0.1/udp/0/quic-v1"
	}
	if provider, err = f.host(listen); err != nil {
		return nil, nil, err
	}
	client, err = f.host("")
	return provider, client, err
}

func (f *field) connect(ctx context.Context, client, provider host.Host) error {
	addr, err := f.via(provider.Addrs()[0])
	if err != nil {
		return err
	}
	return client.Connect(ctx, peer.AddrInfo{ID: provider.ID(), Addrs: []multiaddr.Multiaddr{addr}})
}

func (f *field) host(listen string) (host.Host, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	cfg := transport.HostConfig{Key: key}
	if listen != "" {
		cfg.Listen = []string{listen}
	}
	h, err := transport.NewHost(cfg)
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { _ = h.Close() })
	return h, nil
}

// via returns the address to dial for addr.
func (f *field) via(addr multiaddr.Multiaddr) (multiaddr.Multiaddr, error) {
	if f.c.QUIC {
		return f.viaUDP(addr)
	}
	a, err := manet.ToNetAddr(addr)
	if err != nil {
		return nil, err
	}
	near, err := f.viaTCP(a.String())
	if err != nil {
		return nil, err
	}
	tcp, err := net.ResolveTCPAddr("tcp", near)
	if err != nil {
		return nil, err
	}
	return manet.FromNetAddr(tcp)
}

// viaUDP is via for QUIC.
func (f *field) viaUDP(addr multiaddr.Multiaddr) (multiaddr.Multiaddr, error) {
	if f.c.RTT == 0 {
		return addr, nil
	}
	udp, quic := multiaddr.SplitLast(addr)
	a, err := manet.ToNetAddr(udp)
	if err != nil {
		return nil, err
	}
	r, err := newRelay(a.String(), f.c.RTT)
	if err != nil {
		return nil, err
	}
	f.atEnd(r.close)
	near, err := manet.FromNetAddr(r.addr())
	if err != nil {
		return nil, err
	}
	return near.Encapsulate(quic.Multiaddr()), nil
}

func (f *field) viaTCP(target string) (string, error) {
	if f.c.RTT == 0 && f.c.Rate == 0 {
		return target, nil
	}
	p, err := newProxy(target, f.c.RTT, f.c.Rate)
	if err != nil {
		return "", err
	}
	f.atEnd(p.close)
	return p.addr().String(), nil
}

// fresh returns an empty folder.
func (f *field) fresh(name string) (string, error) {
	dir := filepath.Join(f.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// complete fails if not all of the goods arrived.
func (f *field) complete(got uint64) error {
	if got != f.goods.bytes {
		return fmt.Errorf("%d of %d bytes arrived", got, f.goods.bytes)
	}
	return nil
}

var silent = slog.New(slog.DiscardHandler)

// timeout bounds one fetch: whoever is slower than that has hung.
func (f *field) timeout() time.Duration {
	return 60*time.Second + time.Duration(f.c.MiB)*time.Second/8
}
