package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/filecoin-project/go-address"
	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/payment"
)

// maxStatement bounds a statement that is read: its lanes are some 300 bytes each.
const maxStatement = 256 << 20

func (a *app) channelCommand() *cli.Command {
	return &cli.Command{
		Name:   "channel",
		Usage:  "look at payment channels, and prove what was paid in them",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{Name: "list", Usage: "list channels, in which this repo pays and is paid", Action: a.listChannels},
			{Name: "statement", Usage: "write the account with an address as JSON, with the proof", ArgsUsage: "ADDRESS", Action: a.statement, Flags: []cli.Flag{
				&cli.StringFlag{Name: "as", Usage: "`SIDE` to speak for, payer or payee, if this repo is both"},
			}},
			{Name: "verify", Usage: "check a statement that anyone wrote", ArgsUsage: "FILE|-", Action: a.verifyStatement},
		},
	}
}

func (a *app) listChannels(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("channel list takes no arguments")
	}
	view, err := readWallet(ctx, cmd.String("repo"))
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(map[string]any{"paid": view.Paid, "received": view.Received})
	}
	for _, c := range view.Paid {
		fmt.Fprintf(a.out, "%s to %s paid %s\n", c.Channel, c.Peer, c.Total.FIL())
	}
	for _, c := range view.Received {
		fmt.Fprintf(a.out, "%s from %s received %s, owed %s\n", c.Channel, c.Peer, c.Total.FIL(), c.Owed.FIL())
	}
	return nil
}

func (a *app) statement(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() != 1 {
		return usagef("channel statement takes the address of the other side; tollgraph channel list shows them")
	}
	other, err := address.NewFromString(cmd.Args().First())
	if err != nil {
		return usagef("%q is not an address: %w", cmd.Args().First(), err)
	}
	side := cmd.String("as")
	if side != "" && side != "payer" && side != "payee" {
		return usagef("--as %q: payer or payee", side)
	}
	dir := cmd.String("repo")
	return withDatabase(ctx, dir, func(db *sql.DB) error {
		s, err := statementOf(ctx, dir, db, other, side)
		if err != nil {
			return err
		}
		out := json.NewEncoder(a.out)
		out.SetIndent("", "  ")
		return out.Encode(s)
	})
}

// statementOf speaks for the side that this repo is on in its account with
// other.
func statementOf(ctx context.Context, dir string, db *sql.DB, other address.Address, side string) (payment.Statement, error) {
	wallet, err := walletOf(dir, db)
	if err != nil {
		return payment.Statement{}, err
	}
	till, err := tillOf(dir, db)
	if err != nil {
		return payment.Statement{}, err
	}
	paid, notPaid := wallet.Statement(ctx, other)
	received, notReceived := till.Statement(ctx, other)
	pays, isPaid := notPaid == nil && len(paid.Lanes) > 0, notReceived == nil && (len(received.Lanes) > 0 || len(received.Settlements) > 0)
	switch {
	case side == "payer":
		return paid, notPaid
	case side == "payee":
		return received, notReceived
	case pays && isPaid:
		return payment.Statement{}, usagef("this repo pays %s and is paid by it: choose with --as payer or --as payee", other)
	case pays:
		return paid, nil
	case isPaid:
		return received, nil
	}
	return payment.Statement{}, &exitError{exitNotFound, fmt.Errorf("there is no account with %s; tollgraph channel list shows those there are", other)}
}

func (a *app) verifyStatement(_ context.Context, cmd *cli.Command) error {
	if cmd.NArg() != 1 {
		return usagef("channel verify takes the FILE of a statement, or - for standard input")
	}
	s, err := readStatement(cmd.Args().First())
	if err != nil {
		return err
	}
	if err := payment.VerifyStatement(s); err != nil {
		return &exitError{exitUnverified, err}
	}
	if cmd.Bool("json") {
		return a.printJSON(map[string]any{
			"verified": true, "payer": s.Payer.String(), "payee": s.Payee.String(), "channel": s.Channel.String(), "lanes": len(s.Lanes),
			"total_atto": s.Total, "settled_atto": s.Settled, "owed_atto": s.Owed,
		})
	}
	_, err = fmt.Fprintf(a.out, "verified: %s signed %s for %s in %d deals\n", s.Payer, s.Total.FIL(), s.Payee, len(s.Lanes))
	if err == nil && len(s.Settlements) > 0 {
		_, err = fmt.Fprintf(a.out, "the payee says that %s of it were paid by other means, and %s are owed\n", s.Settled.FIL(), s.Owed.FIL())
	}
	return err
}

// readStatement reads a statement from a file, or standard input.
func readStatement(name string) (s payment.Statement, err error) {
	in := io.ReadCloser(os.Stdin)
	if name != "-" {
		if in, err = os.Open(name); err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	if err := json.NewDecoder(io.LimitReader(in, maxStatement)).Decode(&s); err != nil {
		return s, &exitError{exitUnverified, fmt.Errorf("%s is not a statement: %w", name, err)}
	}
	return s, nil
}
