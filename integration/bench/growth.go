package main

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
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
)

// veteran is a provider, the program itself, with a history and large pieces.
type veteran struct {
	size
	field   *field
	repo    string
	program *program
	trade   *trade
	store   *piece.Store // its pieces, opened beside it
	figure  figure
	index   time.Duration // how long the first start took, which reads the piece
	starts  []float64     // seconds, cold
	lookups spread        // microseconds
	reads   spread        // microseconds
	queries spread        // milliseconds
}

// spread is how long something took, round by round: what disturbs the machine in
// one round should not say how slow the slowest hundredth is.
type spread struct{ p50, p99 []float64 }

func (s *spread) add(round []float64) {
	s.p50, s.p99 = append(s.p50, median(round)), append(s.p99, percentile(round, 99))
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
	if err == nil {
		v.field.atEnd(func() { _ = v.store.Close() })
	}
	return v, err
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

// round starts the program with nothing of its files in memory; with all of the
// piece and its index there, it lets it sell and answer, and looks blocks up.
func (v *veteran) round(ctx context.Context, path string, asks int, counts bool) error {
	if err := v.stop(); err != nil {
		return err
	}
	if err := forget(v.repo, v.field.goods.car); err != nil {
		return err
	}
	began := time.Now()
	var err error
	if v.program, err = startProgram(ctx, path, v.repo, v.field.goods.car, v.field.c.Interval); err != nil {
		return err
	}
	started := time.Since(began)
	if err := recall(filepath.Join(v.repo, "index"), v.field.goods.car); err != nil {
		return err
	}
	if err := v.sellOnce(ctx); err != nil { // it connects
		return err
	}
	began = time.Now()
	if err := v.trade.fetch(ctx); err != nil {
		return err
	}
	speed := float64(v.field.goods.bytes) / (1 << 20) / time.Since(began).Seconds()
	queries, err := v.ask(ctx, asks)
	if err != nil {
		return err
	}
	lookups, reads, err := v.lookUp(asks * 10)
	if err != nil || !counts {
		return err
	}
	v.starts = append(v.starts, started.Seconds())
	v.figure.speed = append(v.figure.speed, speed)
	v.queries.add(queries)
	v.lookups.add(lookups)
	v.reads.add(reads)
	return nil
}

// ask puts n queries for blocks of the piece, one after another.
func (v *veteran) ask(ctx context.Context, n int) (took []float64, err error) {
	for range n {
		c := fillerCID(mrand.IntN(v.blocks))
		began := time.Now()
		resp, err := v.trade.client.Query(ctx, v.trade.to, c, market.QueryParams{})
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(began).Seconds()*1000)
		if resp.ExpectedPayloadSize == nil || *resp.ExpectedPayloadSize != fillerSize {
			return nil, fmt.Errorf("query for %s: %s", c, resp.Message)
		}
	}
	return took, nil
}

// lookUp finds n blocks in the index, and reads as many.
func (v *veteran) lookUp(n int) (lookups, reads []float64, err error) {
	for range n {
		c, other := fillerCID(mrand.IntN(v.blocks)), fillerCID(mrand.IntN(v.blocks))
		began := time.Now()
		size, ok := v.store.Size(c)
		between := time.Now()
		data, err := v.store.Get(other)
		ended := time.Now()
		if err != nil || !ok || size != fillerSize || len(data) != fillerSize {
			return nil, nil, fmt.Errorf("block %s or %s is not there: %w", c, other, err)
		}
		lookups = append(lookups, float64(between.Sub(began).Nanoseconds())/1000)
		reads = append(reads, float64(ended.Sub(between).Nanoseconds())/1000)
	}
	return lookups, reads, nil
}

func (v *veteran) stop() error {
	if v.program == nil {
		return nil
	}
	p := v.program
	v.program = nil
	return p.stop()
}

// reportGrowth compares every age with the youngest.
func (b *bench) reportGrowth(c benchCase, all []*veteran) {
	var figures []figure
	var pairs []pair
	var notes []string
	for i, v := range all {
		v.figure.extra = map[string]float64{
			"start_s": round(median(v.starts)), "query_p99_ms": round(median(v.queries.p99)), "query_p50_ms": round(median(v.queries.p50)),
			"lookup_p99_us": round(median(v.lookups.p99)), "lookup_p50_us": round(median(v.lookups.p50)), "read_p99_us": round(median(v.reads.p99)),
			"index_s": round(v.index.Seconds()),
		}
		figures = append(figures, v.figure)
		if s := v.figure.extra["start_s"]; s > growthStart.Seconds() {
			notes = append(notes, fmt.Sprintf("%s: a start takes %.2f s (at most %s: MISSED)", v.size, s, growthStart))
		}
		if i == 0 {
			continue
		}
		pairs = append(pairs, pair{v.figure.label(), all[0].figure.label(), round(1 / growthMost)})
		for _, k := range []string{"start_s", "query_p99_ms", "lookup_p99_us", "read_p99_us"} {
			grown := v.figure.extra[k] / all[0].figure.extra[k]
			verdict := "reached"
			if grown > growthMost {
				verdict = "MISSED"
			}
			notes = append(notes, fmt.Sprintf("%s: %s is %.2f times that of %s (at most %.1f: %s)", v.size, k, grown, all[0].size, growthMost, verdict))
			v.figure.extra[k+"_growth"] = round(grown)
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
