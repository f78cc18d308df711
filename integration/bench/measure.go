package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"
)

// entry is a rival in one setting.
type entry struct {
	name    string // one of makers
	variant string // sets it apart from others of the name
	c       benchCase
}

// ours are the rivals that may not fail; another that does is left out.
var ours = []string{"free", "paid", "paid-strict"}

// contender is an entry in the ring.
type contender struct {
	rival
	field  *field
	failed bool
	figure figure
}

// entriesFor are all rivals that a case lets in.
func entriesFor(c benchCase) []entry {
	var out []entry
	for _, m := range makers {
		if c.Only == nil && m.name == bareName || c.Only != nil && !slices.Contains(c.Only, m.name) || c.Disk && m.name == "bitswap" { // it has no store on disk here
			continue
		}
		if tcp := c; c.QUIC && m.name != "http" {
			out = append(out, entry{name: m.name, variant: "over QUIC", c: c})
			tcp.QUIC = false
			out = append(out, entry{name: m.name, c: tcp})
			continue
		}
		out = append(out, entry{name: m.name, c: c})
	}
	return out
}

// compare lets the rivals of a case run and reports.
func (b *bench) compare(ctx context.Context, section string, c benchCase, pairs []pair) error {
	fmt.Fprintln(b.out, c)
	figures, err := measure(ctx, c, entriesFor(c), b.dir)
	b.report(section, c, figures, pairs)
	return err
}

// report prints figures and keeps their rows.
func (b *bench) report(section string, c benchCase, figures []figure, pairs []pair) {
	rows := compare(section, c, figures, pairs)
	printTable(b.out, figures, rows)
	b.rows = append(b.rows, rows...)
}

// measure lets entries fetch goods of the size of c in turns.
func measure(ctx context.Context, c benchCase, entries []entry, dir string) (figures []figure, err error) {
	if len(entries) == 0 {
		return nil, errNoRival
	}
	g, err := makeGoods(ctx, dir, c.MiB<<20, c.Chunk, c.Deep)
	if err != nil {
		return nil, fmt.Errorf("make goods: %w", err)
	}
	defer removeAll(g.car)
	ring, err := gather(ctx, entries, g, dir)
	defer func() {
		for _, k := range ring {
			figures = append(figures, k.figure)
			if k.rival != nil {
				_, _ = bounded(stopTimeout, func() (any, error) { k.rival.close(); return nil, nil }) // what hangs is left behind
			}
			k.field.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	for n := range c.Rounds + 1 {
		if n == 1 && c.profile != "" {
			stop, perr := startProfile(c.profile)
			if perr != nil {
				return nil, perr
			}
			defer stop()
		}
		for i := range ring {
			if err := ring[(i+n)%len(ring)].turn(ctx, n); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// gather sets up entries. One that cannot be set up is out.
func gather(ctx context.Context, entries []entry, g *goods, dir string) ([]*contender, error) {
	var ring []*contender
	for _, e := range entries {
		own, err := os.MkdirTemp(dir, e.name+"-*")
		if err != nil {
			return ring, err
		}
		f := &field{c: e.c, goods: g, dir: own}
		f.atEnd(func() { removeAll(own) })
		k := &contender{field: f, figure: figure{name: e.name, variant: e.variant}}
		ring = append(ring, k)
		if k.rival, err = bounded(setupTimeout, func() (rival, error) { return maker(e.name)(ctx, f) }); err != nil {
			if err := k.out(ctx, 0, err); err != nil {
				return ring, err
			}
		}
	}
	return ring, nil
}

// setupTimeout bounds the setting up of one rival.
const setupTimeout = 2 * time.Minute

// turn is one round of a contender; round 0 does not count. An error ends the
// whole run; a contender that is not ours is only out of it.
func (k *contender) turn(ctx context.Context, n int) error {
	if k.failed {
		return nil
	}
	limit := k.field.timeout()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	did, err := bounded(limit+stopTimeout, func() (lap, error) { return k.once(ctx) })
	if err == nil {
		k.figure.note = did.note
		if n > 0 {
			k.figure.speed, k.figure.cpu = append(k.figure.speed, did.speed), append(k.figure.cpu, did.cpu)
		}
		return nil
	}
	if k.field.c.stacks {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
	}
	return k.out(ctx, n, err)
}

// out takes a contender out of the ring after err, and returns an error if it
// is one that must not fail.
func (k *contender) out(ctx context.Context, n int, err error) error {
	k.failed = true
	if slices.Contains(ours, k.figure.name) || errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s, round %d: %w", k.figure.label(), n, err)
	}
	k.figure.note = fmt.Sprintf("out in round %d: %v", n, err)
	return nil
}

// errHung means that something did not end although it was told to.
var errHung = errors.New("hung, and did not even end when it was told to")

// bounded runs f, and after d gives up on it: what hangs must not hang the rest.
// What is given up goes on until it ends or the process does.
func bounded[T any](d time.Duration, f func() (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	go func() { v, err := f(); done <- outcome{v, err} }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.v, o.err
	case <-timer.C:
		return *new(T), errHung
	}
}

// lap is what one fetch came to.
type lap struct {
	speed float64 // MiB/s
	cpu   float64 // seconds of processor per GiB
	note  string
}

// once lets a rival fetch the goods.
func (k *contender) once(ctx context.Context) (lap, error) {
	if p, ok := k.rival.(interface{ prepare(context.Context) error }); ok {
		if err := p.prepare(ctx); err != nil {
			return lap{}, err
		}
	}
	runtime.GC() // the next one pays for its own garbage
	cpu, start := cpuTime(), time.Now()
	if err := k.fetch(ctx); err != nil {
		return lap{}, err
	}
	took, spent := time.Since(start), cpuTime()-cpu
	mib := float64(k.field.goods.bytes) / (1 << 20)
	did := lap{speed: mib / took.Seconds(), cpu: spent.Seconds() / mib * 1024}
	if n, ok := k.rival.(interface{ note() string }); ok {
		did.note = n.note()
	}
	return did, nil
}

func startProfile(path string) (func(), error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a cut profile does not open
	}, nil
}
