// Command bench measures how fast the market moves content, against the ways to
// do the same without it: a bare stream, HTTP, graphsync, data-transfer and
// bitswap. Rivals run over loopback TCP or a delayed link, in alternation, so
// that whatever else the machine does hits all alike.
//
//	go run ./integration/bench -quick
//	go run ./integration/bench -suite -section growth,load
//	go run ./integration/bench -mib 256 -chunks 256KiB -rtt 100ms -only stream,free,paid
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	golog "github.com/ipfs/go-log/v2"
)

// benchCase is one setting in which the rivals are compared.
type benchCase struct {
	MiB      int64
	Chunk    int64
	Deep     bool
	Disk     bool
	RTT      time.Duration
	Rate     float64 // bytes per second; 0: unlimited
	Interval int64   // bytes per payment
	Risk     int64   // bytes that paid pays ahead; 0: the market's default
	Strange  bool    // a provider of the market lends nothing to clients that have paid before
	Rounds   int
	Spare    uint64 // MiB of heap that the garbage collector waits for
	Only     []string
	QUIC     bool   // over QUIC, not TCP; no delay and no limit then
	stacks   bool   // print all goroutines when a rival fails
	profile  string // where a profile of the counted rounds goes; empty: nowhere
}

func (c benchCase) String() string {
	s := fmt.Sprintf("%d MiB in chunks of %s", c.MiB, sizeText(c.Chunk))
	if c.Deep {
		s += ", deep"
	}
	if c.Disk {
		s += ", on disk"
	}
	if c.RTT > 0 {
		s += fmt.Sprintf(", round trip %s", c.RTT)
	}
	if c.Rate > 0 {
		s += fmt.Sprintf(", %.0f MiB/s", c.Rate/(1<<20))
	}
	return s + fmt.Sprintf(", payment interval %s, %d rounds", sizeText(c.Interval), c.Rounds)
}

func main() {
	golog.SetAllLoggers(golog.LevelFatal) // the libraries log what is normal as errors
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(asChild) != "" {
		runChild(ctx)
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	base     benchCase
	chunks   string
	rtts     string
	quick    bool
	suite    bool
	sections []string // of the suite; nil: all
	rounds   int      // 0: what the suite has
	deals    int      // of section small; 0: what the suite has
	sized    bool     // base.MiB holds for the sections too
	out      string
	dir      string
	growth   []size // of the providers that are compared; nil: what the suite has
	program  string // the tollgraph binary; empty: it is built
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.Int64Var(&o.base.MiB, "mib", 512, "size of the goods; with -section in the place of what the suite has")
	fs.StringVar(&o.chunks, "chunks", "1MiB,256KiB", "sizes of chunks, each a case")
	fs.StringVar(&o.rtts, "rtt", "0s", "round trips, each a case")
	fs.Float64Var(&o.base.Rate, "rate", 0, "bandwidth per direction in MiB/s; 0: unlimited")
	fs.BoolVar(&o.base.Deep, "deep", false, "a tree of folders in folders, not one file")
	fs.BoolVar(&o.base.QUIC, "quic", false, "each rival on libp2p over QUIC too, without -rtt and -rate")
	fs.BoolVar(&o.base.Disk, "disk", false, "from CAR to CAR, not from memory to memory")
	fs.Uint64Var(&o.base.Spare, "spare", 64, "MiB of heap of each process that the garbage collector waits for, as tollgraph's does; 0: Go's default")
	interval := fs.String("interval", "1MiB", "payment interval")
	risk := fs.String("risk", "", "how far ahead of receipt paid pays; default the market's own")
	fs.IntVar(&o.rounds, "rounds", 0, "alternated rounds, after one that does not count; default 5, of -quick 2")
	fs.IntVar(&o.deals, "deals", 0, "deals in section small; default what the suite has")
	only := fs.String("only", "", "rivals, separated by commas; default all")
	fs.BoolVar(&o.quick, "quick", false, "the suite with small sizes and few rounds: under two minutes")
	fs.BoolVar(&o.suite, "suite", false, "what the project is held to")
	sections := fs.String("section", "", "sections of the suite, separated by commas: "+sectionNames()+"; default all")
	growth := fs.String("growth", "", "DEALS/BLOCKS of the providers in section growth, separated by commas, such as 1e4/1e5,1e6/1e5")
	fs.StringVar(&o.out, "out", "build/bench.json", "where the figures go; empty: nowhere")
	fs.StringVar(&o.dir, "dir", "", "folder for files; default a temporary one")
	fs.StringVar(&o.program, "program", "", "the tollgraph binary for what is measured on it; default: it is built")
	fs.StringVar(&o.base.profile, "cpuprofile", "", "write a CPU profile of the counted rounds")
	fs.BoolVar(&o.base.stacks, "stacks", false, "print all goroutines when a rival fails")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.base.Rate *= 1 << 20
	fs.Visit(func(f *flag.Flag) { o.sized = o.sized || f.Name == "mib" })
	if *only != "" {
		o.base.Only = strings.Split(*only, ",")
	}
	var err error
	if *risk != "" {
		if o.base.Risk, err = parseSize(*risk); err != nil {
			return o, err
		}
	}
	if o.base.Interval, err = parseSize(*interval); err != nil {
		return o, err
	}
	if o.growth, err = parseGrowth(*growth); err != nil {
		return o, err
	}
	return o, o.choose(*sections)
}

// parseGrowth reads 1e4/1e5,1e6/1e7.
func parseGrowth(s string) (out []size, err error) {
	if s == "" {
		return nil, nil
	}
	for _, one := range strings.Split(s, ",") {
		deals, blocks, _ := strings.Cut(one, "/")
		d, err1 := strconv.ParseFloat(deals, 64)
		b, err2 := strconv.ParseFloat(blocks, 64)
		if err1 != nil || err2 != nil || d < 1 || b < 1 || d > 1e8 || b > 1e8 {
			return nil, fmt.Errorf("growth %q: give DEALS/BLOCKS, each from 1 to 1e8, such as 1e6/1e7", one)
		}
		out = append(out, size{int(d), int(b)})
	}
	return out, nil
}

// choose reads which sections of the suite are wanted.
func (o *options) choose(names string) error {
	if names == "" {
		return nil
	}
	o.sections = strings.Split(names, ",")
	for _, n := range o.sections {
		if !slices.ContainsFunc(suite, func(s section) bool { return s.name == n }) {
			return fmt.Errorf("there is no section %q; there are %s", n, sectionNames())
		}
	}
	o.suite = !o.quick
	return nil
}

// cases are what the options ask for without a suite.
func (o options) cases() ([]benchCase, error) {
	var out []benchCase
	for _, r := range strings.Split(o.rtts, ",") {
		rtt, err := time.ParseDuration(r)
		if err != nil {
			return nil, err
		}
		for _, s := range strings.Split(o.chunks, ",") {
			c := o.base
			c.RTT = rtt
			if c.Chunk, err = parseSize(s); err != nil {
				return nil, err
			}
			if c.Rounds = o.rounds; c.Rounds == 0 {
				c.Rounds = 5
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// run measures what was asked for. What was measured is written also if the
// rest failed.
func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "bench-*")
	if err != nil {
		return err
	}
	defer removeAll(dir)
	heap := make([]byte, o.base.Spare<<20) // counts for the collector, and is never touched
	defer runtime.KeepAlive(heap)
	b := &bench{dir: dir, out: os.Stdout, program: o.program}
	if o.quick || o.suite {
		err = b.runSuite(ctx, o)
	} else {
		err = b.runCases(ctx, o)
	}
	return errors.Join(err, writeRows(o.out, b.rows))
}

// runCases compares the rivals in cases of the user's own.
func (b *bench) runCases(ctx context.Context, o options) error {
	cases, err := o.cases()
	if err != nil {
		return err
	}
	for _, c := range cases {
		if err := b.compare(ctx, "", c, pairsFor(c)); err != nil {
			return err
		}
	}
	return nil
}

func writeRows(path string, rows []row) error {
	if path == "" || len(rows) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// parseSize reads 256KiB, 1MiB or a number of bytes.
func parseSize(s string) (int64, error) {
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = n, u
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("size %q: give a number of bytes, KiB, MiB or GiB", s)
	}
	return n * unit, nil
}

func sizeText(n int64) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
