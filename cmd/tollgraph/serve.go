package main

import (
	"context"
	"errors"
	"slices"

	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) serveCommand() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "sell what CAR files hold",
		ArgsUsage: "CAR...",
		Description: "Serves CAR files, and directories of them, until it is interrupted. Prints\n" +
			"\"listening ADDRESS\" per address and \"root CID\" per root on standard output.",
		Flags:  shopFlags(),
		Action: a.serve,
	}
}

// shopFlags say what is sold, where and on which terms.
func shopFlags() []cli.Flag {
	return append(askFlags("0", "1MiB", "0", "0"),
		&cli.StringSliceFlag{Name: "listen", Value: []string{"/ip4/0.0.0.0/tcp/0"}, Usage: "`MULTIADDR` to listen on; may be repeated", Sources: cli.EnvVars(envName("listen"))},
		&cli.StringSliceFlag{Name: "free", Usage: "`CAR`, or directory of them, to give away at no price; may be repeated"},
		text("unseal-command", "", "shell `COMMAND` that makes the CAR {out} of the sealed file {in}"),
		carrierFlag(),
		text("credit", "0", "`FIL` that any payer may owe on account; what has a price needs it"),
		text("earned-credit", "16MiB", "`SIZE` that a client which has paid for 32 times as much before may be sent beyond an interval; 0 lends nothing"),
		text("egress", "", "most `BYTES` of blocks to send per second, to all together; default as fast as it goes"),
		text("egress-per-peer", "", "the same to one peer"),
	)
}

// serveConfig is what serve was told.
type serveConfig struct {
	shop
	repo    string
	listen  []string
	egress  transport.EgressConfig
	carrier string
}

// leastEgress is one of graphsync's messages in the time after which a client
// gives up on a provider that sends nothing, and some.
const leastEgress = 64 << 10

// checkEgress refuses a limit at which nobody could be served.
func checkEgress(flag string, limit uint64) error {
	if limit != 0 && limit < leastEgress {
		return usagef("--%s %d: clients would give up; give at least 64KiB, or leave it out for no limit", flag, limit)
	}
	return nil
}

// reach is how a node that listens there deals.
func (c serveConfig) reach(listen []string) reach {
	return reach{listen: listen, carrier: c.carrier, egress: c.egress}
}

func serveFlags(cmd *cli.Command) (serveConfig, error) {
	if err := configure(cmd, "serve"); err != nil {
		return serveConfig{}, err
	}
	c, err := shopConfig(cmd)
	if err == nil && len(c.paths) == 0 {
		err = usagef("name at least one CAR file or directory of them; make one with tollgraph car create")
	}
	return c, err
}

// shopConfig reads shopFlags.
func shopConfig(cmd *cli.Command) (serveConfig, error) {
	r := reader{Command: cmd}
	c := serveConfig{repo: r.String("repo"), listen: r.StringSlice("listen"), carrier: r.carrier(), shop: shop{
		paths: slices.Concat(r.Args().Slice(), r.StringSlice("free")), free: r.StringSlice("free"),
		ask: voucher.Ask{
			PricePerByte: r.price("price"), UnsealPrice: r.amount("unseal-price"),
			PaymentInterval: r.bytes("payment-interval"), PaymentIntervalIncrease: r.bytes("payment-interval-increase"),
		},
		credit: r.amount("credit"), earned: r.bytes("earned-credit"), unsealCommand: r.String("unseal-command"),
	}}
	c.egress = transport.EgressConfig{Total: uint64(r.bytes("egress")), PerPeer: uint64(r.bytes("egress-per-peer"))}
	switch {
	case r.err != nil:
		return c, r.err
	case errors.Is(c.ask.Validate(), voucher.ErrNoInterval):
		return c, usagef("--payment-interval 0 with a price: give an interval above zero, such as 1MiB, or --price 0")
	}
	for _, addr := range c.listen {
		if _, err := multiaddr.NewMultiaddr(addr); err != nil {
			return c, usagef("--listen %q: %w: give an address such as /ip4/0.0.0.0/tcp/4100", addr, err)
		}
	}
	return c, errors.Join(checkEgress("egress", c.egress.Total), checkEgress("egress-per-peer", c.egress.PerPeer))
}

func (a *app) serve(ctx context.Context, cmd *cli.Command) error {
	cfg, err := serveFlags(cmd)
	if err != nil {
		return err
	}
	n, err := startServing(ctx, cfg.repo, cfg.reach(cfg.listen))
	if err != nil {
		return err
	}
	d := &running{node: n, desk: &serveDesk{app: a, json: cmd.Bool("json")}}
	return errors.Join(d.run(ctx, cmd, cfg, ""), d.Close())
}
