package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) serveCommand() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "sell what CAR files hold",
		ArgsUsage: "CAR...",
		Description: "Serves CAR files, and directories of them, until it is interrupted. Prints\n" +
			"\"listening ADDRESS\" per address and \"root CID\" per root on standard output.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "listen", Value: []string{"/ip4/0.0.0.0/tcp/0"}, Usage: "`MULTIADDR` to listen on; may be repeated", Sources: cli.EnvVars(envName("listen"))},
			text("price", "0", "`FIL` per GiB, such as 0.01FIL; rounded up to whole attoFIL per byte"),
			text("payment-interval", "1MiB", "`SIZE` that may be sent before the first payment"),
			text("payment-interval-increase", "0", "`SIZE` by which each further interval is longer"),
			text("unseal-price", "0", "`FIL` for unsealing a sealed piece, paid before it starts"),
			text("unseal-command", "", "shell `COMMAND` that makes the CAR {out} of the sealed file {in}"),
			text("credit", "0", "`FIL` that any payer may owe on account; what has a price needs it"),
		},
		Action: a.serve,
	}
}

// serveConfig is what serve was told.
type serveConfig struct {
	shop
	repo   string
	listen []string
}

func serveFlags(cmd *cli.Command) (serveConfig, error) {
	if err := configure(cmd, "serve"); err != nil {
		return serveConfig{}, err
	}
	r := reader{Command: cmd}
	c := serveConfig{repo: r.String("repo"), listen: r.StringSlice("listen"), shop: shop{
		paths: r.Args().Slice(),
		ask: voucher.Ask{
			PricePerByte: r.price("price"), UnsealPrice: r.amount("unseal-price"),
			PaymentInterval: r.bytes("payment-interval"), PaymentIntervalIncrease: r.bytes("payment-interval-increase"),
		},
		credit: r.amount("credit"), unsealCommand: r.String("unseal-command"),
	}}
	switch {
	case r.err != nil:
		return c, r.err
	case len(c.paths) == 0:
		return c, usagef("name at least one CAR file or directory of them; make one with tollgraph car create")
	case errors.Is(c.ask.Validate(), voucher.ErrNoInterval):
		return c, usagef("--payment-interval 0 with a price: give an interval above zero, such as 1MiB, or --price 0")
	}
	return c, nil
}

func (a *app) serve(ctx context.Context, cmd *cli.Command) error {
	cfg, err := serveFlags(cmd)
	if err != nil {
		return err
	}
	n, err := startNode(ctx, cfg.repo, cfg.listen)
	if err != nil {
		return err
	}
	desk := &serveDesk{app: a, json: cmd.Bool("json")}
	s, err := newSeller(ctx, n, cfg.shop, desk.deal)
	if err != nil {
		return errors.Join(err, n.Close())
	}
	if err = desk.open(n, s); err == nil {
		<-ctx.Done()
		a.sayf("stopping; unfinished deals go on at the next start")
	}
	return errors.Join(err, s.Close(), n.Close())
}

// open tells what is served where. Nothing to serve is an error.
func (d *serveDesk) open(n *node, s *seller) error {
	for _, p := range s.store.Problems() {
		d.problem(p)
	}
	if len(s.store.Pieces()) == 0 {
		return errors.New("nothing to serve: none of the files is a whole CAR; see above, and tollgraph car verify")
	}
	for _, addr := range n.host.Addrs() {
		d.listening(fmt.Sprintf("%s/p2p/%s", addr, n.host.ID()))
	}
	for _, root := range s.store.Roots() {
		d.root(root)
	}
	d.ready(s)
	return nil
}
