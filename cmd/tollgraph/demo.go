package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// What the demo sells for, and in which steps it is paid.
const (
	demoPrice    = voucher.Price(9_313_226) // 0.01 FIL per GiB
	demoInterval = voucher.MiB
)

func (a *app) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "run the whole market in one process: serve, sell twice, verify, print receipts",
		Description: "Makes a directory tree, serves it from one node and sells it to two others over\n" +
			"loopback TCP: once paid strictly after receipt, once paid ahead. Then compares the\n" +
			"files, and the books of both sides. Needs no set-up and leaves nothing behind.",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "size", Value: "64MiB", Usage: "`SIZE` of the largest file"}},
		Action: a.demo,
	}
}

func (a *app) demo(ctx context.Context, cmd *cli.Command) (err error) {
	r := reader{Command: cmd}
	size := r.bytes("size")
	if r.err != nil {
		return r.err
	}
	dir, err := os.MkdirTemp("", "tollgraph-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := demo{app: a, dir: dir}
	if err := d.prepare(ctx, size); err != nil {
		return err
	}
	receipts, err := d.sellTwice(ctx)
	if err != nil {
		return err
	}
	if r.Bool("json") {
		return a.printJSON(receipts)
	}
	return nil
}

// demo is one run of the demo.
type demo struct {
	*app
	dir    string
	source string // the tree that is sold
	sum    treeSum
	car    piece.CreateResult
	seller *seller
	from   market.RetrievalPeer
	done   chan market.ProviderDealState // deals that the provider has completed
}

// prepare makes what is sold.
func (d *demo) prepare(ctx context.Context, size voucher.Bytes) (err error) {
	d.source = filepath.Join(d.dir, "source")
	d.sayf("making a directory tree with a file of %s", size.IEC())
	if err := makeTree(d.source, size); err != nil {
		return err
	}
	if d.sum, err = sumTree(d.source); err != nil {
		return err
	}
	d.car, err = piece.Create(ctx, filepath.Join(d.dir, "goods.car"), []string{d.source}, piece.CreateOptions{})
	return err
}

// sellTwice runs the provider and both sales.
func (d *demo) sellTwice(ctx context.Context) (_ []receipt, err error) {
	n, err := startNode(ctx, filepath.Join(d.dir, "provider"), []string{"/ip4/127.0.0.1/tcp/0"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	d.done = make(chan market.ProviderDealState, 16)
	d.seller, err = newSeller(ctx, n, shop{
		paths:  []string{filepath.Join(d.dir, "goods.car")},
		ask:    voucher.Ask{PricePerByte: demoPrice, PaymentInterval: demoInterval},
		credit: voucher.OneFIL,
	}, d.completed)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.seller.Close()) }()
	if err := n.open(); err != nil {
		return nil, err
	}
	d.from = market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}}
	d.sayf("serving %s: %d blocks, %s, at %s, paid every %s", d.car.Root, d.car.Blocks, voucher.Bytes(d.car.Bytes).IEC(), priceText(demoPrice), demoInterval.IEC())

	strictly := voucher.Bytes(0)
	first, err := d.sell(ctx, "paid strictly after receipt", &strictly)
	if err != nil {
		return nil, err
	}
	second, err := d.sell(ctx, "paid ahead", nil)
	if err != nil {
		return nil, err
	}
	return []receipt{first, second}, nil
}

// completed notes the provider's completed deals.
func (d *demo) completed(ev market.ProviderEvent, s market.ProviderDealState) {
	if ev == market.ProviderEventComplete {
		select {
		case d.done <- s:
		default: // more than there are sales: the check of the books will tell
		}
	}
}

// sell sells everything to a client of its own and checks the outcome.
func (d *demo) sell(ctx context.Context, how string, atRisk *voucher.Bytes) (_ receipt, err error) {
	dir := filepath.Join(d.dir, how)
	n, err := startNode(ctx, filepath.Join(dir, "repo"), nil)
	if err != nil {
		return receipt{}, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	b, err := newBuyer(ctx, n, market.ClientConfig{})
	if err != nil {
		return receipt{}, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p := purchase{
		selection: selection{target: target{root: d.car.Root}, whole: true},
		from:      d.from, budget: voucher.OneFIL, atRisk: atRisk, output: output{path: filepath.Join(dir, "bought")},
	}
	got, err := d.buy(ctx, b, p)
	if err != nil {
		return receipt{}, fmt.Errorf("sale %s: %w", how, err)
	}
	if err := d.check(ctx, p, got); err != nil {
		return receipt{}, fmt.Errorf("sale %s: %w", how, err)
	}
	shown := got
	shown.Output = "a temporary folder"
	d.sayf("\nsale %s: files and books of both sides are right\n%s", how, shown)
	return got, nil
}
