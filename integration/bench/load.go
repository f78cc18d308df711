package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	loadDeals  = 8 // of each client at most
	loadTarget = 0.9
	loadFair   = 0.9
)

// crowd is a provider and its clients, each a process.
type crowd struct {
	provider *child
	clients  []*child
	g        *goods
	mib      int64
}

// wave is so many deals at the same time.
type wave struct {
	clients, deals int // deals of each client at once
	repeat         int // one after another: a single deal is too short to measure
	speed          []float64
	fair           []float64 // of the rates while all run
	fairStart      []float64 // of those from the order on
	fairEnd        []float64 // of the rates over each deal's whole time
	first          []float64 // seconds to the first byte of every deal
	memory         []float64 // MiB of the provider per deal
	cpu            []float64 // seconds of processor per GiB, both sides
	sold           []float64 // the provider's part of those
}

func (w *wave) label() string { return fmt.Sprintf("%d at once", w.clients*w.deals) }

// load lets many deals run at once.
func (b *bench) load(ctx context.Context, s sizes, c benchCase) (err error) {
	c.MiB, c.Chunk, c.Rounds = s.load, 256<<10, s.rounds
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &crowd{mib: c.MiB}
	if k.g, err = makeFiles(ctx, b.dir, loadDeals, c.MiB<<20, c.Chunk); err != nil {
		return err
	}
	defer removeAll(k.g.car)
	defer func() { err = errors.Join(err, k.close()) }()
	if err := k.gather(ctx, b.dir, c, s.clients); err != nil {
		return err
	}
	waves := []*wave{{clients: 1, deals: 1, repeat: 16}, {clients: s.clients, deals: 1, repeat: 1}, {clients: s.clients, deals: loadDeals, repeat: 1}}
	err = k.rounds(waves, c.Rounds)
	if len(waves[len(waves)-1].speed) == 0 {
		return err
	}
	fmt.Fprintf(b.out, "%d MiB each in chunks of %s from a provider on disk to clients in memory, %d rounds\n", c.MiB, sizeText(c.Chunk), c.Rounds)
	b.reportLoad(c, waves)
	return err
}

// rounds lets every wave run in turn.
func (k *crowd) rounds(waves []*wave, n int) error {
	for i := range n + 1 {
		for _, w := range waves {
			if err := k.run(w, i > 0); err != nil {
				return fmt.Errorf("%s, round %d: %w", w.label(), i, err)
			}
		}
	}
	return nil
}

func (b *bench) reportLoad(c benchCase, waves []*wave) {
	var figures []figure
	for _, w := range waves {
		figures = append(figures, figure{name: "paid", variant: w.label(), speed: w.speed, cpu: w.cpu, extra: map[string]float64{
			"jain": round(median(w.fair)), "jain_from_the_order": round(median(w.fairStart)), "jain_to_the_end": round(median(w.fairEnd)), "first_byte_p99_ms": round(percentile(w.first, 99) * 1000), "provider_mib_per_deal": round(median(w.memory)), "provider_cpu_s_per_gib": round(median(w.sold)),
		}})
	}
	one := figures[0].label()
	for _, k := range []string{"jain", "jain_from_the_order", "jain_to_the_end"} { // one at a time has nobody to be fair to
		delete(figures[0].extra, k)
	}
	b.report("load", c, figures, []pair{{figures[1].label(), one, loadTarget}, {figures[2].label(), one, loadTarget}, {one, figures[1].label(), 0}})
	fmt.Fprintln(b.out, "  jain is over the rates while all deals run: from when the last has its first MiB to when the first has everything")
	for _, f := range figures[1:] {
		if f.extra["jain"] < loadFair {
			n := fmt.Sprintf("%s: fairness %.2f (at least %.2f: MISSED)", f.label(), f.extra["jain"], loadFair)
			fmt.Fprintf(b.out, "  %s\n\n", n)
			b.missed = append(b.missed, "load: "+n)
		}
	}
}

// gather starts the provider and connects the clients.
func (k *crowd) gather(ctx context.Context, dir string, c benchCase, clients int) error {
	own, err := os.MkdirTemp(dir, "load-*")
	if err != nil {
		return err
	}
	spec := childSpec{Rival: "paid", Dir: filepath.Join(own, "provider"), Case: c, CAR: k.g.car, Bytes: k.g.bytes}
	spec.Case.Disk = true
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return err
	}
	var ready childAnswer
	if k.provider, ready, err = startChild(ctx, spec); err != nil {
		return err
	}
	spec.Case.Disk, spec.Provider = false, ready.Addr
	spec.Case.MiB *= int64(loadDeals * clients) // which the time that it may take depends on
	for i := range clients {
		spec.Dir = filepath.Join(own, fmt.Sprint(i))
		if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
			return err
		}
		client, _, err := startChild(ctx, spec)
		if err != nil {
			return err
		}
		k.clients = append(k.clients, client)
	}
	return nil
}

// run lets all deals of w begin at once and waits for the last.
func (k *crowd) run(w *wave, counts bool) error {
	before, err := k.provider.tell(childOrder{}) // its peak begins anew
	if err != nil {
		return err
	}
	began := time.Now()
	deals, bought, err := k.buy(w)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	after, err := k.provider.tell(childOrder{})
	if err != nil || !counts {
		return err
	}
	durations := make([]float64, len(deals))
	for i, d := range deals {
		durations[i] = 1 / d.Seconds
		w.first = append(w.first, d.FirstByte)
	}
	mib := float64(len(deals)) * float64(k.mib)
	w.speed = append(w.speed, mib/took)
	w.cpu, w.sold = append(w.cpu, (bought+after.CPU)/mib*1024), append(w.sold, after.CPU/mib*1024)
	order := began.UnixNano()
	from, to := running(deals, order)
	w.fair, w.fairEnd = append(w.fair, jain(shares(deals, order, from, to))), append(w.fairEnd, jain(durations))
	w.fairStart = append(w.fairStart, jain(shares(deals, order, order, to)))
	w.memory = append(w.memory, (float64(after.Peak)-float64(before.RSS))/float64(w.clients*w.deals)/(1<<20))
	return nil
}

// buy lets the clients of w make their deals, and returns all of them, and the
// seconds of processor that they took.
func (k *crowd) buy(w *wave) ([]childDeal, float64, error) {
	deals, cpu := make([][]childDeal, w.clients), make([]float64, w.clients)
	var group errgroup.Group
	for i, client := range k.clients[:w.clients] {
		group.Go(func() error {
			for n := range w.repeat {
				o := childOrder{}
				for j := range w.deals {
					o.Roots = append(o.Roots, k.g.roots[(i+n+j)%loadDeals].String())
				}
				a, err := client.tell(o)
				if err != nil {
					return err
				}
				deals[i] = append(deals[i], a.Deals...)
				cpu[i] += a.CPU
			}
			return nil
		})
	}
	err := group.Wait()
	used := 0.0
	for _, c := range cpu {
		used += c
	}
	return slices.Concat(deals...), used, err
}

// running is the time in which all deals ran, of those that were ordered at began:
// from when the last had its first MiB to when the first had everything, in Unix
// nanoseconds. If there is no such time it begins with the order.
func running(deals []childDeal, began int64) (from, to int64) {
	from, to = began, math.MaxInt64
	for _, d := range deals {
		if len(d.Marks) == 0 {
			return began, began // one never began
		}
		from, to = max(from, d.Marks[0]), min(to, d.Marks[len(d.Marks)-1])
	}
	if from >= to {
		from = began
	}
	return from, to
}

// shares are how much each deal got between two times, in MiB.
func shares(deals []childDeal, began, from, to int64) []float64 {
	out := make([]float64, len(deals))
	for i, d := range deals {
		out[i] = d.held(began, to) - d.held(began, from)
	}
	return out
}

// held is how much of a deal was there at a time, in MiB: each came evenly, as far
// as is known.
func (d childDeal) held(began, at int64) float64 {
	for i, mark := range d.Marks {
		if mark > at {
			return float64(i) + float64(at-began)/float64(mark-began)
		}
		began = mark
	}
	return float64(len(d.Marks))
}

func (k *crowd) close() error {
	var errs []error
	for _, c := range k.clients {
		errs = append(errs, c.close())
	}
	if k.provider != nil {
		errs = append(errs, k.provider.close())
	}
	return errors.Join(errs...)
}
