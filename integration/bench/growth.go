package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

const (
	growthMost  = 1.3         // how much worse a figure of the largest may be than that of the smallest
	growthStart = time.Second // that a start may take
	growthTimes = 3           // starts and sales in each round

	growthPasses = 5  // over all providers, with lookups, in each round
	growthHeap   = 10 // percent by which the heap may grow meanwhile before it is collected

	// growthBurst is how many queries one peer asks of a provider that has just
	// started: fewer than the 200 that it answers at once. Beyond those it answers 50
	// each second, and what is measured is that. So others ask the rest.
	growthBurst = 190
)

// veteran is a provider, the program itself, with a history and large pieces.
type veteran struct {
	size
	field   *field
	repo    string
	program *program
	trade   *trade
	askers  []*market.Client // each a peer of its own
	store   *piece.Store     // its pieces, opened beside it
	figure  figure
	index   time.Duration // how long the first start took, which reads the piece
	starts  []float64     // seconds, cold
	lookups spread        // microseconds
	reads   spread        // microseconds
	queries spread        // milliseconds
	memory  []byte        // as much as the index has
	touches spread        // microseconds, one byte of it
}

// spread is how long something took, round by round: what disturbs the machine in
// one round should not say how slow the slowest hundredth is.
type spread struct{ p50, p99 []float64 }

func (s *spread) add(round []float64) {
	s.p50, s.p99 = append(s.p50, median(round)), append(s.p99, percentile(round, 99))
}

// grown is how many times as long as first the slowest hundredth took, pass by pass:
// what is measured one right after the other has the same machine.
func (s *spread) grown(first *spread) float64 {
	var ratios []float64
	for i := range s.p99 {
		ratios = append(ratios, s.p99[i]/first.p99[i])
	}
	return median(ratios)
}

// growth compares providers of different age.
func (b *bench) growth(ctx context.Context, s sizes, c benchCase) (err error) {
	c.MiB, c.Chunk, c.Rounds = s.growthMiB, 256<<10, s.rounds
	if err := b.build(ctx); err != nil {
		return err
	}
	g, err := makeFiles(ctx, b.dir, 1, c.MiB<<20, c.Chunk)
	if err != nil {
		return err
	}
	defer removeAll(g.car)
	var all []*veteran
	defer func() {
		for _, v := range all {
			err = errors.Join(err, v.stop())
			v.field.close()
		}
	}()
	for _, size := range s.growth {
		v, err := b.newVeteran(ctx, size, c, g)
		if v != nil {
			all = append(all, v)
		}
		if err == nil {
			err = v.findAskers(ctx, s.growthAsks)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", size, err)
		}
	}
	for n := range c.Rounds + 1 {
		for _, v := range all {
			if err := v.round(ctx, b.program, s.growthAsks, n > 0); err != nil {
				return fmt.Errorf("%s, round %d: %w", v.size, n, err)
			}
		}
		if err := lookUpAll(all, s.growthAsks*10, n > 0); err != nil {
			return err
		}
	}
	fmt.Fprintln(b.out, c)
	b.reportGrowth(c, all)
	return nil
}

// newVeteran makes a provider of the given age: it serves and sells once, so
// that there is a deal and an index, and then gets its history.
func (b *bench) newVeteran(ctx context.Context, size size, c benchCase, g *goods) (*veteran, error) {
	dir, err := os.MkdirTemp(b.dir, "growth-*")
	if err != nil {
		return nil, err
	}
	own := &goods{car: filepath.Join(dir, "goods.car"), root: g.root, bytes: g.bytes}
	v := &veteran{size: size, repo: filepath.Join(dir, "repo"), field: &field{c: c, goods: own, dir: dir}, figure: figure{name: "paid", variant: size.String()}}
	v.field.atEnd(func() { removeAll(dir) })
	if err := pad(filepath.Join(g.car, "0.car"), own.car, size.blocks); err != nil {
		return v, err
	}
	began := time.Now()
	if v.program, err = startProgram(ctx, b.program, v.repo, own.car, c.Interval); err != nil {
		return v, err
	}
	v.index = time.Since(began)
	var client host.Host
	if client, err = v.field.host(""); err != nil {
		return v, err
	}
	buyer, err := v.field.buy(ctx, client)
	if err != nil {
		return v, err
	}
	v.trade = &trade{f: v.field, terms: paid, client: buyer}
	if err := v.sellOnce(ctx); err != nil {
		return v, err
	}
	if err := v.stop(); err != nil {
		return v, err
	}
	began = time.Now()
	if err := seedHistory(ctx, filepath.Join(v.repo, "tollgraph.db"), size.deals); err != nil {
		return v, err
	}
	fmt.Fprintf(b.out, "%s: indexed in %s, seeded in %s\n", size, v.index.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	v.store, err = piece.Open(ctx, piece.Config{Paths: []string{own.car}, IndexDir: filepath.Join(v.repo, "index"), Logger: silent})
	if err != nil {
		return v, err
	}
	v.field.atEnd(func() { _ = v.store.Close() })
	index, _ := v.store.IndexPath(v.store.Pieces()[0].ID)
	info, err := os.Stat(index)
	if err != nil {
		return v, err
	}
	v.memory = bytes.Repeat([]byte{1}, int(info.Size()))
	return v, nil
}

// sellOnce fetches the goods from the program.
func (v *veteran) sellOnce(ctx context.Context) error {
	to, err := peer.AddrInfoFromString(v.program.addr)
	if err != nil {
		return err
	}
	v.trade.to = market.RetrievalPeer{AddrInfo: *to}
	ctx, cancel := context.WithTimeout(ctx, v.field.timeout())
	defer cancel()
	return v.trade.fetch(ctx)
}

func (v *veteran) stop() error {
	if v.program == nil {
		return nil
	}
	p := v.program
	v.program = nil
	return p.stop()
}

// extra is what is measured beside the throughput.
func (v *veteran) extra() map[string]float64 {
	return map[string]float64{
		"start_s": round(median(v.starts)), "query_p99_ms": round(median(v.queries.p99)), "query_p50_ms": round(median(v.queries.p50)),
		"lookup_p99_us": round(median(v.lookups.p99)), "lookup_p50_us": round(median(v.lookups.p50)),
		"read_p99_us": round(median(v.reads.p99)), "read_p50_us": round(median(v.reads.p50)),
		"memory_p99_us": round(median(v.touches.p99)), "memory_p50_us": round(median(v.touches.p50)),
		"index_s": round(v.index.Seconds()),
	}
}

// outgrown says how much worse v is than first, and what of it is too much.
func (v *veteran) outgrown(first *veteran) (notes []string) {
	passes := map[string]float64{
		"lookup_p99_us": v.lookups.grown(&first.lookups), "read_p99_us": v.reads.grown(&first.reads), "memory_p99_us": v.touches.grown(&first.touches),
	}
	grown := func(k string) float64 {
		ratio, ok := passes[k]
		if !ok {
			ratio = v.figure.extra[k] / first.figure.extra[k]
		}
		v.figure.extra[k+"_growth"] = round(ratio)
		return ratio
	}
	for _, k := range []string{"start_s", "query_p99_ms", "lookup_p99_us", "read_p99_us"} {
		verdict := "reached"
		if grown(k) > growthMost {
			verdict = "MISSED"
		}
		notes = append(notes, fmt.Sprintf("%s: %s is %.2f times that of %s (at most %.1f: %s)", v.size, k, grown(k), first.size, growthMost, verdict))
	}
	return append(notes, fmt.Sprintf("%s: of one byte of as much memory as the index has, p99 is %.2f times that of %s", v.size, grown("memory_p99_us"), first.size))
}

// reportGrowth compares every age with the youngest.
func (b *bench) reportGrowth(c benchCase, all []*veteran) {
	var figures []figure
	var pairs []pair
	var notes []string
	for i, v := range all {
		v.figure.extra = v.extra()
		figures = append(figures, v.figure)
		if s := v.figure.extra["start_s"]; s > growthStart.Seconds() {
			notes = append(notes, fmt.Sprintf("%s: a start takes %.2f s (at most %s: MISSED)", v.size, s, growthStart))
		}
		if i > 0 {
			pairs = append(pairs, pair{v.figure.label(), all[0].figure.label(), round(1 / growthMost)})
			notes = append(notes, v.outgrown(all[0])...)
		}
	}
	pairs = append(pairs, pair{all[0].figure.label(), all[len(all)-1].figure.label(), 0})
	b.report("growth", c, figures, pairs)
	for _, n := range notes {
		fmt.Fprintln(b.out, " ", n)
		if strings.Contains(n, "MISSED") {
			b.missed = append(b.missed, "growth: "+n)
		}
	}
	fmt.Fprintln(b.out)
}
