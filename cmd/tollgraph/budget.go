package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/voucher"
)

// budget is what a repo may spend, of all its deals together; zero is no limit.
// The ceiling holds when a deal is begun, the rest at every signature.
type budget struct {
	PerDeal        voucher.Amount `json:"per_deal_atto"`
	PerProviderDay voucher.Amount `json:"per_provider_day_atto"`
	PerDay         voucher.Amount `json:"per_day_atto"`
	Total          voucher.Amount `json:"total_atto"`
	MaxPrice       voucher.Price  `json:"max_price_atto_per_byte,string"`
}

func (a *app) budgetCommand() *cli.Command {
	return &cli.Command{
		Name:   "budget",
		Usage:  "look at, or set, what this repo may spend in all its deals",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{Name: "show", Usage: "show the limits", Action: a.showBudget},
			{Name: "set", Usage: "change the limits that are named; 0 is no limit", Action: a.setBudget, Flags: []cli.Flag{
				&cli.StringFlag{Name: "per-deal", Usage: "`FIL` for one purchase, over all deals that it takes"},
				&cli.StringFlag{Name: "per-provider-day", Usage: "`FIL` to one provider on one day (UTC)"},
				&cli.StringFlag{Name: "per-day", Usage: "`FIL` to anyone on one day (UTC)"},
				&cli.StringFlag{Name: "total", Usage: "`FIL` to anyone, for ever"},
				&cli.StringFlag{Name: "max-price", Usage: "`FIL` per GiB, which no deal may cost more than"},
			}},
		},
	}
}

func (a *app) showBudget(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("budget show takes no arguments; to change limits: tollgraph budget set --per-day 1FIL")
	}
	var b budget
	err := withDatabase(ctx, cmd.String("repo"), func(db *sql.DB) (err error) {
		b, err = readBudget(ctx, cmd.String("repo"), db)
		return err
	})
	if err != nil {
		return err
	}
	return a.printBudget(cmd, b)
}

func (a *app) setBudget(ctx context.Context, cmd *cli.Command) error {
	change, err := budgetFlags(cmd)
	if err != nil {
		return err
	}
	dir := cmd.String("repo")
	var b budget
	if remote, err := dial(ctx, dir); err != nil {
		return err
	} else if remote != nil {
		if err := remote.get(ctx, "/v1/budget", &b); err != nil {
			return err
		}
		change(&b)
		if err := remote.put(ctx, "/v1/budget", b, &b); err != nil {
			return err
		}
		return a.printBudget(cmd, b)
	}
	err = withDatabase(ctx, dir, func(db *sql.DB) (err error) {
		if b, err = readBudget(ctx, dir, db); err != nil {
			return err
		}
		change(&b)
		return storeBudget(ctx, dir, db, b)
	})
	if err != nil {
		return err
	}
	return a.printBudget(cmd, b)
}

// budgetFlags reads what budget set changes.
func budgetFlags(cmd *cli.Command) (func(*budget), error) {
	r := &reader{Command: cmd}
	given := budget{
		PerDeal: r.amount("per-deal"), PerProviderDay: r.amount("per-provider-day"), PerDay: r.amount("per-day"),
		Total: r.amount("total"), MaxPrice: r.price("max-price"),
	}
	named := false
	for _, f := range []string{"per-deal", "per-provider-day", "per-day", "total", "max-price"} {
		named = named || r.IsSet(f)
	}
	switch {
	case r.err != nil:
		return nil, r.err
	case r.Args().Present() || !named:
		return nil, usagef("name what to change, such as tollgraph budget set --per-day 1FIL; see tollgraph budget set --help")
	}
	return func(b *budget) {
		for _, f := range []struct {
			name    string
			to, new *voucher.Amount
		}{
			{"per-deal", &b.PerDeal, &given.PerDeal}, {"per-provider-day", &b.PerProviderDay, &given.PerProviderDay},
			{"per-day", &b.PerDay, &given.PerDay}, {"total", &b.Total, &given.Total},
		} {
			if r.IsSet(f.name) {
				*f.to = *f.new
			}
		}
		if r.IsSet("max-price") {
			b.MaxPrice = given.MaxPrice
		}
	}, nil
}

// printBudget writes b to standard output.
func (a *app) printBudget(cmd *cli.Command, b budget) error {
	if cmd.Bool("json") {
		return a.printJSON(b)
	}
	for _, line := range []struct {
		name  string
		limit voucher.Amount
	}{
		{"per deal", b.PerDeal}, {"per provider and day", b.PerProviderDay}, {"per day", b.PerDay}, {"total", b.Total},
		{"price per GiB", b.MaxPrice.PerGiB()},
	} {
		limit := "no limit"
		if !line.limit.IsZero() {
			limit = line.limit.FIL()
		}
		if _, err := fmt.Fprintf(a.out, "%-21s %s\n", line.name, limit); err != nil {
			return err
		}
	}
	return nil
}

// readBudget reads the limits of the repo at dir, whose database db is.
func readBudget(ctx context.Context, dir string, db *sql.DB) (b budget, err error) {
	wallet, err := walletOf(dir, db)
	if err != nil {
		return b, err
	}
	p, err := wallet.Policy(ctx)
	if err != nil {
		return b, err
	}
	b.PerDeal, b.PerProviderDay, b.PerDay, b.Total = p.PerDeal, p.PerProviderPerDay, p.PerDay, p.Total
	_, err = settings{db}.get(ctx, settingMaxPrice, &b.MaxPrice)
	return b, err
}

// storeBudget makes b hold from now on.
func storeBudget(ctx context.Context, dir string, db *sql.DB, b budget) error {
	wallet, err := walletOf(dir, db)
	if err != nil {
		return err
	}
	p := payment.Policy{PerDeal: b.PerDeal, PerProviderPerDay: b.PerProviderDay, PerDay: b.PerDay, Total: b.Total}
	if err := wallet.SetPolicy(ctx, p); err != nil {
		return err
	}
	return settings{db}.set(ctx, settingMaxPrice, b.MaxPrice)
}

// walletOf is the wallet of the repo at dir. It keeps nothing in memory, so
// that a node may run on the repo.
func walletOf(dir string, db *sql.DB) (*payment.Wallet, error) {
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	if err != nil {
		return nil, err
	}
	return payment.NewWallet(db, key, payment.WalletConfig{})
}

// tillOf is the till of the repo at dir, likewise.
func tillOf(dir string, db *sql.DB) (*payment.Till, error) {
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	if err != nil {
		return nil, err
	}
	return payment.NewTill(db, key.Address(), payment.TillConfig{})
}

// withDatabase runs do on the database of the repo at dir, which a node may be
// using.
func withDatabase(ctx context.Context, dir string, do func(*sql.DB) error) (err error) {
	db, err := peekDatabase(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return do(db)
}

// underCeiling lowers what p may cost per byte to the ceiling of the repo, if
// there is one.
func underCeiling(ctx context.Context, db *sql.DB, p *purchase) error {
	var ceiling voucher.Price
	if _, err := (settings{db}).get(ctx, settingMaxPrice, &ceiling); err != nil || ceiling == 0 {
		return err
	}
	if p.maxPrice == nil || *p.maxPrice > ceiling {
		p.maxPrice = &ceiling
	}
	return nil
}
