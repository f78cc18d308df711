package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) benchCommand() *cli.Command {
	return &cli.Command{
		Name:      "bench",
		Usage:     "measure how fast this machine, its disk and a provider are",
		ArgsUsage: "[CID[/path]]",
		Description: "Measures how fast this machine hashes, how fast the repo's disk writes and reads, and\n" +
			"how fast a provider and a client on it trade over loopback, free and paid. With a\n" +
			"CID also how far --provider is away and how fast it delivers that; what was received\n" +
			"before is not used, and what arrives is thrown away, but paid. Nothing else stays.",
		Flags: append(selectionFlags(),
			&cli.StringFlag{Name: "size", Value: "256MiB", Usage: "`SIZE` of what is moved on this machine; 0 measures only the provider"},
			&cli.IntFlag{Name: "rounds", Value: 3, Usage: "`N` alternating rounds, after one that does not count"},
			text("budget", "0", "spend at most this many `FIL` at the provider; without it only what is free is fetched"),
			text("max-at-risk", "", "pay at most `SIZE` ahead of what is verified; default as for fetch"),
		),
		Action: a.bench,
	}
}

// benchConfig is what bench was told.
type benchConfig struct {
	purchase
	repo   string
	size   voucher.Bytes // 0: nothing is measured here
	rounds int
	remote bool // there is something to fetch
}

func benchFlags(cmd *cli.Command) (benchConfig, error) {
	r := &reader{Command: cmd}
	c := benchConfig{repo: r.String("repo"), size: r.bytes("size"), rounds: r.Int("rounds"), remote: r.Args().Present()}
	if c.remote {
		c.selection, c.from = r.selection(), r.provider()
	}
	c.budget = r.amount("budget")
	if r.String("max-at-risk") != "" {
		risk := r.bytes("max-at-risk")
		c.atRisk = &risk
	}
	switch {
	case r.err != nil:
		return c, r.err
	case c.rounds < 1:
		return c, usagef("--rounds %d: give 1 or more", c.rounds)
	case c.size == 0 && !c.remote:
		return c, usagef("--size 0 without a CID leaves nothing to measure")
	case !c.remote && (cmd.IsSet("provider") || !c.budget.IsZero()):
		return c, usagef("a provider is measured by what it delivers: name a CID that it has")
	}
	return c, nil
}

// benchmark is what was measured, as JSON. Speeds are in MiB per second.
type benchmark struct {
	Local    *benchLocal  `json:"local,omitempty"`
	Provider *benchRemote `json:"provider,omitempty"`
}

func (a *app) bench(ctx context.Context, cmd *cli.Command) (err error) {
	cfg, err := benchFlags(cmd)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.repo, 0o700); err != nil {
		return fmt.Errorf("repo: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.repo, "bench-") // on the disk that a fetch would write to
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var got benchmark
	if cfg.remote {
		if got.Provider, err = a.benchProvider(ctx, cfg, filepath.Join(dir, "remote")); err != nil {
			return err
		}
	}
	if cfg.size > 0 {
		if got.Local, err = a.benchHere(ctx, cfg, filepath.Join(dir, "local")); err != nil {
			return err
		}
	}
	if cmd.Bool("json") {
		return a.printJSON(got)
	}
	return a.printBenchmark(got)
}

// printBenchmark writes what was measured for people.
func (a *app) printBenchmark(b benchmark) error {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(a.out, "%-28s"+format+"\n", append([]any{what}, args...)...)
	}
	if l := b.Local; l != nil {
		line("SHA-256, one core", "%8.0f MiB/s", l.Hash)
		line(fmt.Sprintf("SHA-256, all %d cores", l.Cores), "%8.0f MiB/s", l.HashAll)
		line("disk, write and sync", "%8.0f MiB/s", l.DiskWrite)
		if l.DiskReadCached {
			line("disk, read (from memory)", "%8.0f MiB/s", l.DiskRead)
		} else {
			line("disk, read", "%8.0f MiB/s", l.DiskRead)
		}
		line("loopback, disk to disk, free", "%8.0f MiB/s", l.Free)
		line("loopback, disk to disk, paid", "%8.0f MiB/s   %.2f of free, %d payments, %d stalls", l.Paid, l.Ratio, l.Payments, l.Stalls)
	}
	if p := b.Provider; p != nil {
		line("provider", "%s", p.Provider)
		line("  dial", "%8.1f ms", p.Dial)
		if p.RTT > 0 {
			line("  round trip", "%8.1f ms", p.RTT)
		}
		line("  query", "%8.1f ms", p.Query)
		line("  price", "%s", p.priceText)
		line("  first byte", "%8.1f ms", p.FirstByte)
		line("  speed", "%8.1f MiB/s   %s, %d payments, %d stalls", p.Speed, voucher.Bytes(p.Bytes).IEC(), p.Payments, p.Stalls)
		line("  paid", "%s", p.paid.FIL())
	}
	return nil
}

// median returns the middle of v, which is not empty.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}
