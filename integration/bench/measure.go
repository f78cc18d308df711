package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"text/tabwriter"
	"time"
)

// figure is what the rounds of one rival came to.
type figure struct {
	name  string
	speed []float64 // MiB/s, one per round
	cpu   []float64 // seconds of processor per GiB, both sides
	note  string
}

// row is one line of bench.json: a rival, and what it is compared with.
type row struct {
	Name    string  `json:"name"`
	Chunk   int64   `json:"chunk"`
	MiB     int64   `json:"mib"`
	RTT     int64   `json:"rtt_ms"`
	Disk    bool    `json:"disk,omitempty"`
	MiBps   float64 `json:"mib_per_s"`
	RatioTo string  `json:"ratio_to"`
	Ratio   float64 `json:"ratio"`
}

// pairs are compared in bench.json and the table.
var pairs = [][2]string{
	{"stream", "stream-sha256"}, {"stream-sha256", "stream"}, {"http", "stream-sha256"}, {"graphsync", "stream-sha256"},
	{"data-transfer", "graphsync"}, {"bitswap", "stream-sha256"},
	{"free", "stream"}, {"free", "graphsync"}, {"free", "bitswap"},
	{"paid", "free"}, {"paid", "graphsync"}, {"paid", "data-transfer"}, {"paid", "bitswap"}, {"paid", "http"}, {"paid", "stream-sha256"},
	{"paid-strict", "free"},
}

// ours are the rivals that may not fail; another that does is left out.
var ours = []string{"free", "paid", "paid-strict"}

// contender is a rival in the ring.
type contender struct {
	rival
	field  *field
	failed bool
	figure figure
}

// measure lets the rivals of a case run in turns.
func measure(ctx context.Context, c benchCase, dir, profile string) (figures []figure, err error) {
	g, err := makeGoods(ctx, dir, c.MiB<<20, c.Chunk, c.Deep)
	if err != nil {
		return nil, fmt.Errorf("make goods: %w", err)
	}
	defer removeAll(g.car)
	ring, err := gather(ctx, c, g, dir)
	defer func() {
		for _, k := range ring {
			figures = append(figures, k.figure)
			k.rival.close()
			k.field.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	for n := range c.Rounds + 1 {
		if n == 1 && profile != "" {
			stop, perr := startProfile(profile)
			if perr != nil {
				return nil, perr
			}
			defer stop()
		}
		for i := range ring {
			k := ring[(i+n)%len(ring)]
			if k.failed {
				continue
			}
			if err := k.once(ctx, c, n > 0); err != nil {
				if c.stacks {
					_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
				}
				if slices.Contains(ours, k.figure.name) || ctx.Err() != nil {
					return nil, fmt.Errorf("%s, round %d: %w", k.figure.name, n, err)
				}
				k.failed, k.figure.note = true, fmt.Sprintf("out in round %d: %v", n, err)
			}
		}
	}
	return nil, nil
}

// gather sets up the rivals that the case asks for.
func gather(ctx context.Context, c benchCase, g *goods, dir string) ([]*contender, error) {
	var ring []*contender
	for _, m := range makers {
		if c.Only != nil && !slices.Contains(c.Only, m.name) || c.Disk && m.name == "bitswap" { // it has no store on disk here
			continue
		}
		own, err := os.MkdirTemp(dir, m.name+"-*")
		if err != nil {
			return ring, err
		}
		f := &field{c: c, goods: g, dir: own}
		f.atEnd(func() { removeAll(own) })
		r, err := m.make(ctx, f)
		if err != nil {
			f.close()
			return ring, fmt.Errorf("%s: %w", m.name, err)
		}
		ring = append(ring, &contender{rival: r, field: f, figure: figure{name: m.name}})
	}
	if len(ring) == 0 {
		return nil, errNoRival
	}
	return ring, nil
}

// once lets a rival fetch the goods, and notes how long it took if it counts.
func (k *contender) once(ctx context.Context, c benchCase, counts bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if p, ok := k.rival.(interface{ prepare(context.Context) error }); ok {
		if err := p.prepare(ctx); err != nil {
			return err
		}
	}
	runtime.GC() // the next one pays for its own garbage
	cpu, start := cpuTime(), time.Now()
	if err := k.fetch(ctx); err != nil {
		return err
	}
	took, spent := time.Since(start), cpuTime()-cpu
	if counts {
		mib := float64(k.field.goods.bytes) / (1 << 20)
		k.figure.speed = append(k.figure.speed, mib/took.Seconds())
		k.figure.cpu = append(k.figure.cpu, spent.Seconds()/mib*1024)
	}
	if n, ok := k.rival.(interface{ note() string }); ok {
		k.figure.note = n.note()
	}
	return nil
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

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// ratio is how much faster a is than b: the medians compared.
func ratio(a, b figure) float64 {
	if m := median(b.speed); m > 0 {
		return median(a.speed) / m
	}
	return 0
}

func byName(figures []figure) map[string]figure {
	out := make(map[string]figure, len(figures))
	for _, f := range figures {
		if len(f.speed) > 0 {
			out[f.name] = f
		}
	}
	return out
}

// compare makes the rows of a case.
func compare(c benchCase, figures []figure) []row {
	all := byName(figures)
	var rows []row
	for _, p := range pairs {
		a, hasA := all[p[0]]
		b, hasB := all[p[1]]
		if hasA && hasB {
			rows = append(rows, row{
				Name: p[0], Chunk: c.Chunk, MiB: c.MiB, RTT: c.RTT.Milliseconds(), Disk: c.Disk,
				MiBps: round(median(a.speed)), RatioTo: p[1], Ratio: round(ratio(a, b)),
			})
		}
	}
	return rows
}

func round(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }

func printTable(w io.Writer, figures []figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tmedian MiB/s\tmin\tmax\tCPU s/GiB\t\n")
	for _, f := range figures {
		if len(f.speed) == 0 {
			fmt.Fprintf(t, "%s\t\t\t\t\t  %s\n", f.name, f.note)
			continue
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.2f\t  %s\n", f.name, median(f.speed), slices.Min(f.speed), slices.Max(f.speed), median(f.cpu), f.note)
	}
	_ = t.Flush() // to a terminal
	all := byName(figures)
	for _, p := range pairs {
		a, hasA := all[p[0]]
		b, hasB := all[p[1]]
		if hasA && hasB {
			fmt.Fprintf(w, "  %s ÷ %s  %.2f\n", p[0], p[1], ratio(a, b))
		}
	}
	fmt.Fprintln(w)
}
