package main

import (
	"context"
	"errors"
	"time"

	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

func (a *app) fetchCommand() *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "buy a DAG, or a part of it, and write it out",
		ArgsUsage: "CID[/path]",
		Description: "Fetches what CID/path leads to, verifies every block, pays as the bytes arrive, and\n" +
			"writes files. What is in the repo already is neither fetched nor paid again, so the\n" +
			"same command goes on after an interruption.",
		Flags: append(selectionFlags(),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `PATH`, or to standard output with -; default: the path's last name, or the CID"},
			&cli.BoolFlag{Name: "car", Usage: "write a CAR of the blocks instead of files"},
			&cli.BoolFlag{Name: "overwrite", Usage: "replace the output if it exists"},
			&cli.BoolFlag{Name: "any-symlinks", Usage: "make symlinks also where they lead out of the output"},
			text("max-price", "", "pay at most this many `FIL` per GiB, such as 0.02FIL"),
			text("budget", "0", "spend at most this many `FIL` in all; without it only what is free is fetched"),
			text("max-at-risk", "", "pay at most `SIZE` ahead of what is verified; 0 pays strictly after receipt; default: 32MiB, or a hundredth of what the budget buys if that is less"),
			&cli.DurationFlag{Name: "timeout", Usage: "stop after this `TIME`, such as 10m; default: never"},
			&cli.DurationFlag{Name: "patience", Value: 2 * time.Minute, Usage: "stop after this `TIME` without progress"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what it would cost, and whether and why it would be refused"},
			carrierFlag(),
			&cli.BoolFlag{Name: "vouchers-only", Hidden: true, Usage: "pay with data-transfer vouchers"},
		),
		Action: a.fetch,
	}
}

// selectionFlags say what is bought from whom.
func selectionFlags() []cli.Flag {
	return []cli.Flag{
		text("provider", "", "`MULTIADDR` of the provider, with /p2p/ID at its end"),
		&cli.StringFlag{Name: "entity-bytes", Usage: "only bytes `FROM:TO` of the file, both included; * is the end, negative counts from the end"},
		&cli.StringFlag{Name: "dag-scope", Value: "all", Usage: "how much of the target, a `SCOPE`: all, entity or block"},
		&cli.StringFlag{Name: "selector", Usage: "an IPLD selector as DAG-`JSON`, instead of path and scope; its output is a CAR"},
	}
}

// selection is what is bought: a part of the DAG under a root.
type selection struct {
	target
	selector datamodel.Node // nil for the whole DAG
	span     *span          // only these bytes of a file
	whole    bool           // whole files and directories
	raw      bool           // a selector of the user's own: not necessarily files
}

// selection reads the argument and the flags of selectionFlags.
func (r *reader) selection() selection {
	s := selection{target: r.target()}
	if r.err != nil {
		return s
	}
	s, r.err = choice{scope: r.String("dag-scope"), bytes: r.String("entity-bytes"), selector: r.String("selector")}.of(s.target)
	return s
}

// fetchConfig is what fetch was told.
type fetchConfig struct {
	purchase
	repo         string
	timeout      time.Duration
	patience     time.Duration
	vouchersOnly bool
	carrier      string
}

func fetchFlags(cmd *cli.Command) (fetchConfig, error) {
	if err := configure(cmd, "fetch"); err != nil {
		return fetchConfig{}, err
	}
	r := &reader{Command: cmd}
	c := fetchConfig{repo: r.String("repo"), timeout: r.Duration("timeout"), patience: r.Duration("patience"), vouchersOnly: r.Bool("vouchers-only"), carrier: r.carrier()}
	c.selection, c.from, c.budget = r.selection(), r.provider(), r.amount("budget")
	if r.String("max-price") != "" {
		price := r.price("max-price")
		c.maxPrice = &price
	}
	if r.String("max-at-risk") != "" {
		risk := r.bytes("max-at-risk")
		c.atRisk = &risk
	}
	if r.err != nil {
		return c, r.err
	}
	c.output = outputFor(c.selection, r.String("output"), r.Bool("car"), r.Bool("overwrite"))
	c.output.anyLinks = r.Bool("any-symlinks")
	if r.Bool("json") && c.output.path == "-" {
		return c, usagef("-o - and --json both want standard output: give one of them")
	}
	if r.Bool("dry-run") {
		return c, nil
	}
	return c, c.output.check()
}

func (a *app) fetch(ctx context.Context, cmd *cli.Command) error {
	cfg, err := fetchFlags(cmd)
	if err != nil {
		return err
	}
	if cfg.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.timeout, errTimeout)
		defer cancel()
	}
	if cmd.Bool("dry-run") {
		return a.dryRun(ctx, cmd, cfg)
	}
	if r, err := dial(ctx, cfg.repo); err != nil {
		return err
	} else if r != nil {
		return a.fetchRemote(ctx, r, cmd, cfg)
	}
	return a.fetchHere(ctx, cmd, cfg)
}

// fetchHere fetches with a node of its own.
func (a *app) fetchHere(ctx context.Context, cmd *cli.Command, cfg fetchConfig) error {
	n, err := startServing(ctx, cfg.repo, reach{carrier: cfg.carrier})
	if err != nil {
		return err
	}
	if err := underCeiling(ctx, n.repo.db, &cfg.purchase); err != nil {
		return errors.Join(err, n.Close())
	}
	b, err := newBuyer(ctx, n, market.ClientConfig{Patience: cfg.patience, VouchersOnly: cfg.vouchersOnly})
	if err != nil {
		return errors.Join(err, n.Close())
	}
	got, err := a.buy(ctx, b, cfg.purchase)
	if err != nil {
		err = a.advise(ctx, err)
	}
	if err = errors.Join(err, b.Close(), n.Close()); err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(got)
	}
	a.sayf("%s", got)
	return nil
}
