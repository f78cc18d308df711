package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) creditCommand() *cli.Command {
	return &cli.Command{
		Name:   "credit",
		Usage:  "say how much payers may owe, and note what they paid",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{Name: "list", Usage: "list what payers owe, and may owe; those without a line of their own may owe what serve --credit says", Action: a.listCredit},
			{Name: "set", Usage: "set how much one payer may owe", ArgsUsage: "PAYER AMOUNT", Action: a.setCredit},
			{Name: "settle", Usage: "note that a payer paid by other means", ArgsUsage: "PAYER AMOUNT", Action: a.settle,
				Flags: []cli.Flag{&cli.StringFlag{Name: "note", Usage: "`TEXT` that says which payment it was"}}},
		},
	}
}

// creditView is one payer's account as JSON.
type creditView struct {
	Payer   string         `json:"payer"`
	Line    voucher.Amount `json:"credit_atto"` // 0 without a line of its own
	OwnLine bool           `json:"own_line"`    // false: it may owe what the node that runs grants to all
	Owed    voucher.Amount `json:"owed_atto"`
	Total   voucher.Amount `json:"total_atto"`
	Settled voucher.Amount `json:"settled_atto"`
}

func (a *app) listCredit(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("credit list takes no arguments")
	}
	views := []creditView{}
	err := withTill(ctx, cmd.String("repo"), func(till *payment.Till) error {
		channels, err := till.Channels(ctx)
		for _, c := range channels {
			views = append(views, creditView{c.Payer.String(), c.Line, c.OwnLine, c.Owed, c.Total, c.Settled})
		}
		return err
	})
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(views)
	}
	for _, v := range views {
		line := v.Line.FIL()
		if !v.OwnLine {
			line = "the line for all (serve --credit)"
		}
		fmt.Fprintf(a.out, "%s owes %s of %s; received %s, settled %s\n", v.Payer, v.Owed.FIL(), line, v.Total.FIL(), v.Settled.FIL())
	}
	return nil
}

func (a *app) setCredit(ctx context.Context, cmd *cli.Command) error {
	payer, line, err := payerAndAmount(cmd)
	if err != nil {
		return err
	}
	return changeAccount(ctx, cmd.String("repo"), func(till *payment.Till) error {
		if err := till.SetCredit(ctx, payer, line); err != nil {
			return err
		}
		return a.printCredit(ctx, cmd, till, payer)
	})
}

func (a *app) settle(ctx context.Context, cmd *cli.Command) error {
	payer, amount, err := payerAndAmount(cmd)
	if err != nil {
		return err
	}
	if amount.IsZero() {
		return usagef("credit settle notes a payment: name an amount above 0")
	}
	return changeAccount(ctx, cmd.String("repo"), func(till *payment.Till) error {
		if err := till.Settle(ctx, payer, amount, cmd.String("note")); err != nil {
			return err
		}
		return a.printCredit(ctx, cmd, till, payer)
	})
}

// printCredit writes what payer owes and may owe.
func (a *app) printCredit(ctx context.Context, cmd *cli.Command, till *payment.Till, payer address.Address) error {
	line, owed, err := till.Credit(ctx, payer)
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(map[string]any{"payer": payer.String(), "credit_atto": line, "owed_atto": owed})
	}
	_, err = fmt.Fprintf(a.out, "%s owes %s of %s\n", payer, owed.FIL(), line.FIL())
	return err
}

// payerAndAmount reads the arguments PAYER AMOUNT.
func payerAndAmount(cmd *cli.Command) (address.Address, voucher.Amount, error) {
	if cmd.NArg() != 2 {
		return address.Undef, voucher.Amount{}, usagef("%s takes PAYER AMOUNT, such as f1… 1FIL; the payer's address is what its tollgraph wallet show says", cmd.FullName())
	}
	payer, err := address.NewFromString(cmd.Args().First())
	if err != nil {
		return address.Undef, voucher.Amount{}, usagef("%q is not an address: %w", cmd.Args().First(), err)
	}
	amount, err := voucher.ParseAmount(cmd.Args().Get(1))
	if err != nil {
		return address.Undef, voucher.Amount{}, usagef("%w", err)
	}
	return payer, amount, nil
}

// withTill runs do on the till of the repo at dir, where a node may be running.
func withTill(ctx context.Context, dir string, do func(*payment.Till) error) error {
	return withDatabase(ctx, dir, func(db *sql.DB) error {
		till, err := tillOf(dir, db)
		if err != nil {
			return err
		}
		return do(till)
	})
}

// changeAccount is withTill for what changes the terms of an account.
func changeAccount(ctx context.Context, dir string, do func(*payment.Till) error) error {
	return withDatabase(ctx, dir, func(db *sql.DB) error {
		till, err := tillOf(dir, db)
		if err != nil {
			return err
		}
		return errors.Join(do(till), settings{db}.creditChanged(ctx))
	})
}
