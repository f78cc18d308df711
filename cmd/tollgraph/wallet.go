package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) walletCommand() *cli.Command {
	return &cli.Command{
		Name:   "wallet",
		Usage:  "look at the repo's money",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{Name: "show", Usage: "show the address, what was paid to whom, and what was received from whom", Action: a.showWallet},
		},
	}
}

// walletView is the wallet as JSON. Amounts are in attoFIL.
type walletView struct {
	Address  string        `json:"address"`
	Paid     []channelView `json:"paid"`     // channels in which this repo pays
	Received []channelView `json:"received"` // channels in which it is paid
}

type channelView struct {
	Channel string          `json:"channel"`
	Peer    string          `json:"peer_address"`
	Total   voucher.Amount  `json:"total_atto"`
	Settled *voucher.Amount `json:"settled_atto,omitempty"` // received only
	Owed    *voucher.Amount `json:"owed_atto,omitempty"`    // received only
}

func (a *app) showWallet(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("wallet show takes no arguments")
	}
	view, err := readWallet(ctx, cmd.String("repo"))
	if err != nil || cmd.Bool("json") {
		if err == nil {
			err = a.printJSON(view)
		}
		return err
	}
	fmt.Fprintf(a.out, "address %s\n", view.Address)
	for _, c := range view.Paid {
		fmt.Fprintf(a.out, "paid %s to %s in %s\n", c.Total.FIL(), c.Peer, c.Channel)
	}
	for _, c := range view.Received {
		fmt.Fprintf(a.out, "received %s from %s in %s, %s settled, %s owed\n", c.Total.FIL(), c.Peer, c.Channel, c.Settled.FIL(), c.Owed.FIL())
	}
	return nil
}

// readWallet reads keys and books of the repo at dir. A node may be running
// on it.
func readWallet(ctx context.Context, dir string) (_ walletView, err error) {
	db, err := peekDatabase(ctx, dir)
	if err != nil {
		return walletView{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	if err != nil {
		return walletView{}, err
	}
	view := walletView{Address: key.Address().String(), Paid: []channelView{}, Received: []channelView{}}
	wallet, err := payment.NewWallet(db, key, payment.WalletConfig{})
	if err != nil {
		return view, err
	}
	paid, err := wallet.Channels(ctx)
	if err != nil {
		return view, err
	}
	for _, c := range paid {
		view.Paid = append(view.Paid, channelView{Channel: c.Address.String(), Peer: c.Payee.String(), Total: c.Total})
	}
	till, err := payment.NewTill(db, key.Address(), payment.TillConfig{})
	if err != nil {
		return view, err
	}
	received, err := till.Channels(ctx)
	for _, c := range received {
		view.Received = append(view.Received, channelView{c.Address.String(), c.Payer.String(), c.Total, &c.Settled, &c.Owed})
	}
	return view, err
}
