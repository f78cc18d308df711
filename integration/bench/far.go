package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// maxFirstByte is how many round trips may pass until the first byte of a deal
// on known terms, on a connection that is there or with a dial over QUIC.
const maxFirstByte = 2.5

// far compares all rivals over a long round trip, and how long the first byte
// takes there.
func (b *bench) far(ctx context.Context, s sizes, c benchCase) error {
	c.MiB, c.Chunk, c.Rounds, c.RTT = s.wan, 256<<10, s.rounds, wanRTT
	fmt.Fprintln(b.out, c)
	entries, pairs := entriesFor(c), pairsFor(c)
	if c.Only == nil || slices.Contains(c.Only, "paid") {
		strange := entry{name: "paid", variant: "to a client that is new each time", c: c}
		strange.c.Strange = true
		entries, pairs = append(entries, strange), append(pairs, pair{"paid, " + strange.variant, "free", 0})
	}
	figures, err := measure(ctx, c, entries, b.dir)
	if b.report("wan", c, figures, pairs); err != nil {
		return err
	}
	return b.firstByte(ctx, c)
}

// firstByte measures the time from the order to the first byte, with a new
// client each time: on a connection that is there and was never used, and with
// the dial included, over TCP and over QUIC.
func (b *bench) firstByte(ctx context.Context, c benchCase) error {
	c.MiB = 1
	g, err := makeGoods(ctx, b.dir, c.MiB<<20, c.Chunk, false)
	if err != nil {
		return err
	}
	defer removeAll(g.car)
	trips := make([][]float64, len(starts))
	for range c.Rounds {
		for i, how := range starts {
			took, err := b.oneFirstByte(ctx, c, g, how)
			if err != nil {
				return fmt.Errorf("first byte, %s: %w", how.figure().label(), err)
			}
			trips[i] = append(trips[i], took.Seconds()/c.RTT.Seconds())
		}
	}
	b.reportFirstByte(c, trips)
	return nil
}

// reportFirstByte prints and keeps what each of starts took in each round, in round trips.
func (b *bench) reportFirstByte(c benchCase, trips [][]float64) {
	fmt.Fprintf(b.out, "Time to the first byte at a round trip of %s, in round trips\n", c.RTT)
	for i, how := range starts {
		f, m, stream := how.figure(), median(trips[i]), i/startsPerStream*startsPerStream
		r := row{
			Section: "wan", Name: f.name, Variant: "first byte, " + f.variant, Chunk: c.Chunk, RTT: c.RTT.Milliseconds(), Rounds: c.Rounds,
			RatioTo: "stream", VariantTo: "first byte, " + starts[stream].figure().variant, Ratio: round(median(trips[stream]) / m),
			Figures: map[string]float64{"first_byte_round_trips": round(m), "first_byte_ms": round(m * c.RTT.Seconds() * 1000)},
		}
		verdict := ""
		if how.known && (how.connected || how.quic) {
			r.Figures["at_most_round_trips"] = maxFirstByte
			verdict = fmt.Sprintf("  (at most %.1f: reached)", maxFirstByte)
			if m > maxFirstByte {
				verdict = fmt.Sprintf("  (at most %.1f: MISSED)", maxFirstByte)
				b.missed = append(b.missed, fmt.Sprintf("wan: the first byte, %s, takes %.2f round trips (at most %.1f: MISSED)", f.variant, m, maxFirstByte))
			}
		}
		b.rows = append(b.rows, r)
		fmt.Fprintf(b.out, "  %s  %.2f%s\n", f.label(), m, verdict)
	}
	fmt.Fprintln(b.out)
}

// start is how a client begins.
type start struct {
	stream    bool // a bare stream, not a deal
	connected bool // to the provider, and nothing else
	known     bool // the provider's terms
	quic      bool // not TCP
}

// starts are those that are measured, of startsPerStream each first the stream that the
// others are compared with.
var starts = []start{
	{stream: true, connected: true}, {connected: true, known: true}, {connected: true},
	{stream: true}, {known: true}, {},
	{stream: true, quic: true}, {known: true, quic: true}, {quic: true},
}

const startsPerStream = 3

// figure is what it is called.
func (s start) figure() figure {
	f := figure{name: "paid", variant: "dials"}
	switch {
	case s.connected:
		f.variant = "connected"
	case s.quic:
		f.variant = "dials over QUIC"
	}
	switch {
	case s.stream:
		f.name = "stream"
	case s.known:
		f.variant += ", terms known"
	default:
		f.variant += ", asks first"
	}
	return f
}

// oneFirstByte measures one beginning between two new hosts.
func (b *bench) oneFirstByte(ctx context.Context, c benchCase, g *goods, how start) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(b.dir, "first-*")
	if err != nil {
		return 0, err
	}
	c.QUIC = how.quic
	f := &field{c: c, goods: g, dir: dir}
	f.atEnd(func() { removeAll(dir) })
	defer f.close()
	ctx, cancel := context.WithTimeout(ctx, f.timeout())
	defer cancel()
	provider, client, err := f.strangers()
	if err != nil {
		return 0, err
	}
	near, err := f.via(provider.Addrs()[0])
	if err != nil {
		return 0, err
	}
	to := peer.AddrInfo{ID: provider.ID(), Addrs: []multiaddr.Multiaddr{near}}
	begin, err := f.beginning(ctx, provider, client, to, how)
	if err != nil {
		return 0, err
	}
	if !how.connected {
		client.Peerstore().AddAddrs(to.ID, to.Addrs, peerstore.TempAddrTTL)
	} else if err := client.Connect(ctx, to); err != nil {
		return 0, err
	}
	began := time.Now()
	at, err := begin()
	return at.Sub(began), err
}

// beginning sets both sides up and returns what begins, which returns when the
// first byte came.
func (f *field) beginning(ctx context.Context, provider, client host.Host, to peer.AddrInfo, how start) (func() (time.Time, error), error) {
	if how.stream {
		f.serveStream(provider)
		return func() (time.Time, error) {
			s, err := client.NewStream(ctx, to.ID, streamProtocol)
			if err != nil {
				return time.Time{}, err
			}
			defer s.Close() // it has done its part
			if _, err := s.Write([]byte{1}); err != nil {
				return time.Time{}, err
			}
			_, err = io.ReadFull(s, make([]byte, 1))
			return time.Now(), err
		}, nil
	}
	payTo, err := f.sell(ctx, provider, paid)
	if err != nil {
		return nil, err
	}
	r := &trade{f: f, terms: paid, to: market.RetrievalPeer{AddrInfo: to, Address: payTo}}
	if r.client, err = f.buy(ctx, client); err != nil {
		return nil, err
	}
	if how.known {
		ask := f.askOf(paid)
		r.ask = &ask
	}
	return func() (at time.Time, err error) {
		var once sync.Once
		f.first = func() { once.Do(func() { at = time.Now() }) }
		return at, errorOf(r.deal(ctx, f.goods.root))
	}, nil
}

// errorOf drops what comes with an error.
func errorOf[T any](_ T, err error) error { return err }
