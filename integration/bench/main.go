// Command bench measures how fast the market moves content, against the ways to
// do the same without it: a bare stream, HTTP, graphsync, data-transfer and
// bitswap. All run in one process, over loopback TCP or a delayed link, in
// alternation, so that whatever else the machine does hits all alike.
//
//	go run ./integration/bench -quick
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
	"strconv"
	"strings"
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
	Rounds   int
	Only     []string
	stacks   bool // print all goroutines when a rival fails
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	base    benchCase
	chunks  string
	rtts    string
	only    string
	quick   bool
	suite   bool
	out     string
	dir     string
	profile string
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.Int64Var(&o.base.MiB, "mib", 512, "size of the goods")
	fs.StringVar(&o.chunks, "chunks", "1MiB,256KiB", "sizes of chunks, each a case")
	fs.StringVar(&o.rtts, "rtt", "0s", "round trips, each a case")
	fs.Float64Var(&o.base.Rate, "rate", 0, "bandwidth per direction in MiB/s; 0: unlimited")
	fs.BoolVar(&o.base.Deep, "deep", false, "a tree of folders in folders, not one file")
	fs.BoolVar(&o.base.Disk, "disk", false, "from CAR to CAR, not from memory to memory")
	interval := fs.String("interval", "1MiB", "payment interval")
	risk := fs.String("risk", "", "how far ahead of receipt paid pays; default the market's own")
	fs.IntVar(&o.base.Rounds, "rounds", 5, "alternated rounds, after one that does not count")
	fs.StringVar(&o.only, "only", "", "rivals, separated by commas; default all")
	fs.BoolVar(&o.quick, "quick", false, "small sizes and few rounds: under two minutes")
	fs.BoolVar(&o.suite, "suite", false, "the cases that the project is held to")
	fs.StringVar(&o.out, "out", "build/bench.json", "where the figures go; empty: nowhere")
	fs.StringVar(&o.dir, "dir", "", "folder for files; default a temporary one")
	fs.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the counted rounds")
	fs.BoolVar(&o.base.stacks, "stacks", false, "print all goroutines when a rival fails")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.base.Rate *= 1 << 20
	var err error
	if *risk != "" {
		if o.base.Risk, err = parseSize(*risk); err != nil {
			return o, err
		}
	}
	o.base.Interval, err = parseSize(*interval)
	if o.only != "" {
		o.base.Only = strings.Split(o.only, ",")
	}
	return o, err
}

// cases are what the options ask for.
func (o options) cases() ([]benchCase, error) {
	var out []benchCase
	add := func(mib int64, chunk int64, rtt time.Duration, rounds int) {
		c := o.base
		c.MiB, c.Chunk, c.RTT, c.Rounds = mib, chunk, rtt, rounds
		out = append(out, c)
	}
	switch {
	case o.quick:
		add(64, 1<<20, 0, 3)
		add(64, 256<<10, 0, 3)
		add(32, 256<<10, 50*time.Millisecond, 1)
		return out, nil
	case o.suite:
		add(512, 1<<20, 0, o.base.Rounds)
		add(512, 256<<10, 0, o.base.Rounds)
		add(256, 256<<10, 100*time.Millisecond, o.base.Rounds)
		return out, nil
	}
	for _, r := range strings.Split(o.rtts, ",") {
		rtt, err := time.ParseDuration(r)
		if err != nil {
			return nil, err
		}
		for _, s := range strings.Split(o.chunks, ",") {
			chunk, err := parseSize(s)
			if err != nil {
				return nil, err
			}
			add(o.base.MiB, chunk, rtt, o.base.Rounds)
		}
	}
	return out, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	cases, err := o.cases()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "bench-*")
	if err != nil {
		return err
	}
	defer removeAll(dir)
	rows := []row{}
	for _, c := range cases {
		fmt.Println(c)
		figures, err := measure(ctx, c, dir, o.profile)
		printTable(os.Stdout, figures)
		if err != nil {
			return err
		}
		rows = append(rows, compare(c, figures)...)
	}
	return writeRows(o.out, rows)
}

func writeRows(path string, rows []row) error {
	if path == "" {
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
