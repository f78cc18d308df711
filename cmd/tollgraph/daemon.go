package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

func (a *app) daemonCommand() *cli.Command {
	return &cli.Command{
		Name:      "daemon",
		Usage:     "buy in the background, and sell what CAR files hold, if any are given",
		ArgsUsage: "[CAR...]",
		Description: "Runs until it is interrupted, which pauses everything; the next start goes on. The\n" +
			"other commands on the same repo, fetch among them, go through it. It serves an API\n" +
			"over HTTP, for its user alone, on a socket in the repo.",
		Flags: append(shopFlags(),
			&cli.StringSliceFlag{Name: "serve", Usage: "`CAR` file, or directory of them, to sell, as an argument is; may be repeated"},
			text("api", "", "serve the API on this loopback `ADDRESS`, such as 127.0.0.1:4180, to those who show the token in the repo's api/token"),
			&cli.DurationFlag{Name: "patience", Value: 2 * time.Minute, Usage: "let a deal rest after this `TIME` without progress; it is tried again every minute"},
		),
		Action: a.daemon,
	}
}

// daemonConfig is what daemon was told.
type daemonConfig struct {
	serveConfig
	api      string
	patience time.Duration
}

func daemonFlags(cmd *cli.Command) (daemonConfig, error) {
	if err := configure(cmd, "daemon"); err != nil {
		return daemonConfig{}, err
	}
	c := daemonConfig{api: cmd.String("api"), patience: cmd.Duration("patience")}
	var err error
	if c.serveConfig, err = shopConfig(cmd); err != nil {
		return c, err
	}
	c.paths = slices.Concat(c.paths, cmd.StringSlice("serve"))
	if c.api != "" {
		if err := loopback(c.api); err != nil {
			return c, badFlag("api", c.api, err)
		}
	}
	return c, nil
}

func (a *app) daemon(ctx context.Context, cmd *cli.Command) error {
	cfg, err := daemonFlags(cmd)
	if err != nil {
		return err
	}
	listen := cfg.listen
	if len(cfg.paths) == 0 && !cmd.IsSet("listen") {
		listen = nil // it only dials
	}
	n, err := startServing(ctx, cfg.repo, cfg.reach(listen))
	if err != nil {
		return err
	}
	d := &running{node: n, desk: &serveDesk{app: a, json: cmd.Bool("json")}}
	if err = d.buy(ctx, cfg); err == nil {
		err = d.run(ctx, cmd, cfg.serveConfig, cfg.api)
	}
	return errors.Join(err, d.Close())
}

// running is a node with all that it does. Its parts are started one by one,
// and Close ends those that were, in order.
type running struct {
	node   *node
	desk   *serveDesk
	buyer  *buyer
	seller *seller
	office *office
	api    *api
	stop   context.CancelFunc // ends jobs
}

// buy starts the client.
func (d *running) buy(ctx context.Context, cfg daemonConfig) (err error) {
	d.buyer, err = newBuyer(ctx, d.node, market.ClientConfig{Patience: cfg.patience})
	return err
}

// run starts the rest, and returns when ctx ends.
func (d *running) run(ctx context.Context, cmd *cli.Command, cfg serveConfig, api string) error {
	if err := d.sell(ctx, cmd, cfg); err != nil {
		return err
	}
	if err := d.openOffice(ctx, cfg.repo, api); err != nil {
		return err
	}
	if err := d.node.open(); err != nil {
		return err
	}
	if err := d.desk.open(d); err != nil {
		return err
	}
	if d.buyer != nil {
		d.office.jobs.Go(func() { d.office.keep(d.office.life) })
	}
	<-ctx.Done()
	d.desk.sayf("stopping; unfinished deals go on at the next start")
	return nil
}

// sell starts the provider, if there is anything to sell. Terms that are not
// named anywhere are those of ask set.
func (d *running) sell(ctx context.Context, cmd *cli.Command, cfg serveConfig) (err error) {
	if len(cfg.paths) == 0 {
		return nil
	}
	if err := storedAsk(ctx, cmd, settings{d.node.repo.db}, &cfg.ask); err != nil {
		return err
	}
	if d.buyer != nil {
		cfg.client = d.buyer.Client
	}
	d.seller, err = newSeller(ctx, d.node, cfg.shop, d.desk.deal)
	return err
}

// openOffice lets others have a say. A node that only sells does without if its
// repo cannot have a socket.
func (d *running) openOffice(ctx context.Context, dir, listen string) (err error) {
	d.office = newOffice(d.desk.app, d.node, d.buyer, d.seller)
	d.office.stats = newStats()
	d.office.life, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	if d.buyer != nil {
		d.buyer.SubscribeToEvents(d.office.stats.client)
	}
	if d.seller != nil {
		d.seller.SubscribeToEvents(d.office.stats.provider)
	}
	d.api, err = startAPI(context.WithoutCancel(ctx), dir, listen, d.office.handler())
	if err != nil && d.buyer == nil {
		d.desk.sayf("%v; serving all the same, but ask set and deals cancel do not reach this process", err)
		return nil
	}
	return err
}

// Close ends what was started: first what others say, then what runs.
func (d *running) Close() error {
	var errs []error
	if d.api != nil {
		errs = append(errs, d.api.Close())
	}
	if d.stop != nil {
		d.stop()
	}
	if d.buyer != nil {
		errs = append(errs, d.buyer.Close())
	}
	if d.office != nil {
		d.office.jobs.Wait()
	}
	if d.seller != nil {
		errs = append(errs, d.seller.Close())
	}
	return errors.Join(append(errs, d.node.Close())...)
}

// open tells what is done where.
func (d *serveDesk) open(r *running) error {
	if r.seller != nil {
		for _, p := range r.seller.store.Problems() {
			d.problem(p)
		}
		if len(r.seller.store.Pieces()) == 0 {
			return errors.New("nothing to serve: none of the files is a whole CAR; see above, and tollgraph car verify")
		}
	}
	for _, addr := range r.node.host.Addrs() {
		d.listening(fmt.Sprintf("%s/p2p/%s", addr, r.node.host.ID()))
	}
	if r.buyer != nil {
		d.note(event{Event: "api", Addr: r.api.addr}, "api %s", r.api.addr)
	}
	if r.seller == nil {
		d.note(event{Event: "ready"}, "ready to buy")
		return nil
	}
	for _, root := range r.seller.store.Roots() {
		d.root(root)
	}
	d.ready(r.seller)
	return nil
}
