package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/voucher"
)

// askFlags are the terms of sale, with their defaults if they have any.
func askFlags(price, interval, increase, unseal string) []cli.Flag {
	return []cli.Flag{
		text("price", price, "`FIL` per GiB, such as 0.01FIL; rounded up to whole attoFIL per byte"),
		text("payment-interval", interval, "`SIZE` that may be sent before the first payment"),
		text("payment-interval-increase", increase, "`SIZE` by which each further interval is longer"),
		text("unseal-price", unseal, "`FIL` for unsealing a sealed piece, paid before it starts"),
	}
}

func (a *app) askCommand() *cli.Command {
	return &cli.Command{
		Name:   "ask",
		Usage:  "look at, or set, what this repo's node charges",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{Name: "get", Usage: "show what is charged", Action: a.getAsk},
			{Name: "set", Usage: "change what is named, for deals that begin from now on: in the node that runs, and at later starts where no flag says otherwise",
				Action: a.setAsk, Flags: askFlags("", "", "", "")},
		},
	}
}

func (a *app) getAsk(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("ask get takes no arguments; to change it: tollgraph ask set --price 0.01FIL")
	}
	return a.changeAsk(ctx, cmd, nil)
}

func (a *app) setAsk(ctx context.Context, cmd *cli.Command) error {
	v, named, err := askChange(cmd)
	if err != nil {
		return err
	}
	if cmd.Args().Present() || !named {
		return usagef("name what to change, such as tollgraph ask set --price 0.01FIL; see tollgraph ask set --help")
	}
	return a.changeAsk(ctx, cmd, &v)
}

// askChange reads the terms that are named.
func askChange(cmd *cli.Command) (v askView, named bool, err error) {
	r := &reader{Command: cmd}
	price, interval, increase, unseal := r.price("price"), r.bytes("payment-interval"), r.bytes("payment-interval-increase"), r.amount("unseal-price")
	if r.IsSet("price") {
		v.Price = &price
	}
	if r.IsSet("payment-interval") {
		v.Interval = &interval
	}
	if r.IsSet("payment-interval-increase") {
		v.IntervalIncrease = &increase
	}
	if r.IsSet("unseal-price") {
		v.UnsealPrice = &unseal
	}
	return v, v != askView{}, r.err
}

// changeAsk changes what v names, if it is not nil, and prints what is charged.
func (a *app) changeAsk(ctx context.Context, cmd *cli.Command, v *askView) error {
	dir := cmd.String("repo")
	r, err := dial(ctx, dir)
	if err != nil {
		return err
	}
	var now askView
	switch {
	case r != nil && v != nil:
		err = r.put(ctx, "/v1/ask", v, &now)
	case r != nil:
		err = r.get(ctx, "/v1/ask", &now)
	default:
		err = withDatabase(ctx, dir, func(db *sql.DB) error {
			now, err = changeStoredAsk(ctx, settings{db}, v)
			return err
		})
	}
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(now)
	}
	ask, err := now.over(voucher.Ask{})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "price %s\nunsealing %s\nfirst interval %s, each further one %s longer\n",
		priceText(ask.PricePerByte), ask.UnsealPrice.FIL(), ask.PaymentInterval.IEC(), ask.PaymentIntervalIncrease.IEC())
	return err
}

// defaultAsk is what is charged where nothing else is said: nothing.
var defaultAsk = voucher.Ask{PaymentInterval: voucher.MiB}

// changeStoredAsk changes what v names, if it is not nil, while no node runs.
func changeStoredAsk(ctx context.Context, s settings, v *askView) (askView, error) {
	ask := defaultAsk
	if _, err := s.get(ctx, settingAsk, &ask); err != nil {
		return askView{}, err
	}
	if v == nil {
		return viewOfAsk(ask), nil
	}
	ask, err := v.over(ask)
	if err != nil {
		return askView{}, err
	}
	return viewOfAsk(ask), s.set(ctx, settingAsk, ask)
}

// storedAsk puts the terms of ask set where neither the command line nor the
// environment nor config.toml names others.
func storedAsk(ctx context.Context, cmd *cli.Command, s settings, ask *voucher.Ask) error {
	var stored voucher.Ask
	if found, err := s.get(ctx, settingAsk, &stored); err != nil || !found {
		return err
	}
	named, _, err := askChange(cmd)
	if err != nil {
		return err
	}
	*ask, err = named.over(stored)
	return err
}
