package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// bench is one run: where its files, its tables and its rows go.
type bench struct {
	dir     string
	out     io.Writer
	program string // the tollgraph binary; empty: not built yet
	rows    []row
	missed  []string // what is held to something else than a ratio, and is not so
}

// wanRTT is the round trip of the far connection.
const wanRTT = 100 * time.Millisecond

// sizes are how much the suite measures.
type sizes struct {
	rounds     int
	loopback   int64 // MiB
	wan        int64 // MiB
	disk       int64 // MiB
	payments   int64 // MiB
	deals      int   // small deals one after another
	load       int64 // MiB of each of the concurrent deals
	clients    int   // processes that make them
	growth     []size
	growthMiB  int64
	growthAsks int // queries and, tenfold, lookups in each round
}

// size is how much a provider has behind it and at hand.
type size struct{ deals, blocks int }

func (s size) String() string {
	return fmt.Sprintf("%s deals and %s blocks", power(s.deals), power(s.blocks))
}

// power writes 100000 as 10^5.
func power(n int) string {
	zeros := 0
	for rest := n; rest > 1 && rest%10 == 0; rest /= 10 {
		zeros++
	}
	if s := fmt.Sprintf("10^%d", zeros); zeros > 2 && n == pow10(zeros) {
		return s
	}
	return fmt.Sprint(n)
}

func pow10(n int) int {
	p := 1
	for range n {
		p *= 10
	}
	return p
}

// full is what the project is held to.
func full() sizes {
	return sizes{
		rounds: 5, loopback: 512, wan: 256, disk: 4096, payments: 1024, deals: 1000, load: 32, clients: 16,
		growth: []size{{1e4, 1e5}, {1e5, 1e6}, {1e6, 1e7}}, growthMiB: 256, growthAsks: 1000,
	}
}

// quick is the same in small.
func quick() sizes {
	return sizes{
		rounds: 2, loopback: 64, wan: 16, disk: 128, payments: 64, deals: 40, load: 2, clients: 16,
		growth: []size{{1e2, 1e3}, {1e4, 1e5}}, growthMiB: 32, growthAsks: 100,
	}
}

// section is one part of the suite.
type section struct {
	name  string
	title string
	run   func(*bench, context.Context, sizes, benchCase) error
}

// suite is every section, in order. It is filled in below, because parse names
// them.
var suite []section

func init() {
	suite = []section{
		{"loopback", "Loopback, from memory to memory", (*bench).loopback},
		{"wan", "A far connection", (*bench).far},
		{"disk", "From CAR to CAR, between two processes", (*bench).onDisk},
		{"payments", "Few and many payments", (*bench).payments},
		{"small", "Small deals, one after another on one connection", (*bench).small},
		{"load", "Concurrent deals from 16 client processes", (*bench).load},
		{"growth", "A provider with a long history and large pieces", (*bench).growth},
	}
}

func sectionNames() string {
	var names []string
	for _, s := range suite {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// sizes are how much the suite measures with these options.
func (o options) sizes() sizes {
	s := full()
	if o.quick {
		s = quick()
	}
	if o.sized {
		s.loopback, s.wan, s.disk, s.payments, s.load, s.growthMiB = o.base.MiB, o.base.MiB, o.base.MiB, o.base.MiB, o.base.MiB, o.base.MiB
	}
	if o.rounds > 0 {
		s.rounds = o.rounds
	}
	if o.deals > 0 {
		s.deals = o.deals
	}
	if o.growth != nil {
		s.growth = o.growth
	}
	return s
}

// runSuite runs the sections that o asks for. One that fails does not stop the
// rest.
func (b *bench) runSuite(ctx context.Context, o options) error {
	s := o.sizes()
	began := time.Now()
	var errs []error
	for _, sec := range suite {
		if o.sections != nil && !contains(o.sections, sec.name) {
			continue
		}
		start := time.Now()
		fmt.Fprintf(b.out, "## %s (%s)\n\n", sec.title, sec.name)
		if err := b.bounded(ctx, sec, s, o.base); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", sec.name, err))
			fmt.Fprintf(b.out, "%s failed: %v\n\n", sec.name, err)
		}
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(b.out, "(%s took %s)\n\n", sec.name, time.Since(start).Round(time.Second))
	}
	b.verdict()
	fmt.Fprintf(b.out, "All took %s.\n", time.Since(began).Round(time.Second))
	return errors.Join(errs...)
}

// sectionTimeout bounds one section, so that the rest is measured whatever hangs.
const sectionTimeout = 12 * time.Minute

// bounded runs one section.
func (b *bench) bounded(ctx context.Context, sec section, s sizes, c benchCase) error {
	ctx, cancel := context.WithTimeout(ctx, sectionTimeout)
	defer cancel()
	err := sec.run(b, ctx, s, c)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("not over after %s: %w", sectionTimeout, err)
	}
	return err
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// verdict names every ratio that is not what it is held to.
func (b *bench) verdict() {
	held, missed := 0, 0
	for _, r := range b.rows {
		if r.Target == 0 {
			continue
		}
		if held++; r.Ratio >= r.Target {
			continue
		}
		if missed++; missed == 1 {
			fmt.Fprintln(b.out, "Not reached:")
		}
		a, to := figure{name: r.Name, variant: r.Variant}, figure{name: r.RatioTo, variant: r.VariantTo}
		fmt.Fprintf(b.out, "  %s: %s ÷ %s is %.2f, held to at least %.2f\n", r.Section, a.label(), to.label(), r.Ratio, r.Target)
	}
	fmt.Fprintf(b.out, "%d of %d ratios are what they are held to.\n", held-missed, held)
	if len(b.missed) > 0 {
		fmt.Fprintf(b.out, "Not reached besides:\n  %s\n", strings.Join(b.missed, "\n  "))
	}
}

// loopback compares all rivals in memory.
func (b *bench) loopback(ctx context.Context, s sizes, c benchCase) error {
	for _, chunk := range []int64{1 << 20, 256 << 10} {
		c.MiB, c.Chunk, c.Rounds = s.loopback, chunk, s.rounds
		if err := b.compare(ctx, "loopback", c, pairsFor(c)); err != nil {
			return err
		}
	}
	return nil
}

// payments lets the same goods be paid in few and in many steps.
func (b *bench) payments(ctx context.Context, s sizes, c benchCase) error {
	const few, many, atRisk = 16, 16384, 1 << 20
	c.MiB, c.Chunk, c.Rounds = s.payments, 64<<10, s.rounds // every block may have a payment of its own
	wide, narrow := c, c
	wide.Interval = c.MiB << 20 / few
	narrow.Interval = max(c.MiB<<20/many, 4<<10)
	close := narrow
	close.Risk = atRisk
	entries := []entry{
		{"paid", fmt.Sprintf("%d intervals", few), wide},
		{"paid", fmt.Sprintf("%d intervals", c.MiB<<20/narrow.Interval), narrow},
		{"paid", fmt.Sprintf("%d intervals, %s at risk", c.MiB<<20/narrow.Interval, sizeText(atRisk)), close},
	}
	fmt.Fprintf(b.out, "%d MiB in chunks of %s, %d rounds\n", c.MiB, sizeText(c.Chunk), c.Rounds)
	figures, err := measure(ctx, c, entries, b.dir)
	if len(figures) == len(entries) {
		first := figures[0].label()
		b.report("payments", c, figures, []pair{{figures[1].label(), first, 0.9}, {figures[2].label(), first, 0}})
	}
	return err
}
