package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// orderFlags is the order that fetch was given. cfg is what it means, and is
// right.
func orderFlags(cmd *cli.Command, cfg fetchConfig) order {
	return order{
		CID: cfg.target.String(), Provider: cmd.String("provider"),
		EntityBytes: cmd.String("entity-bytes"), DagScope: cmd.String("dag-scope"), Selector: cmd.String("selector"),
		CAR: cfg.output.car, Overwrite: cfg.output.overwrite, AnySymlinks: cfg.output.anyLinks,
		MaxPrice: cmd.String("max-price"), Budget: cmd.String("budget"), MaxAtRisk: cmd.String("max-at-risk"),
	}
}

// fetchRemote lets the node that runs on the repo fetch, and follows it. What
// goes to standard output comes through a file that is then removed.
func (a *app) fetchRemote(ctx context.Context, r *remote, cmd *cli.Command, cfg fetchConfig) (err error) {
	if cfg.carrier != carrierAuto {
		return usagef("--carrier is for a fetch of its own, and a daemon runs on this repo: name another with --repo, or start the daemon with it")
	}
	if cfg.vouchersOnly {
		return usagef("--vouchers-only is for a fetch of its own, and a daemon runs on this repo: name another with --repo")
	}
	if cmd.IsSet("patience") {
		a.sayf("the daemon has a --patience of its own, which counts")
	}
	o := orderFlags(cmd, cfg)
	toStdout := cfg.output.path == "-"
	if toStdout {
		dir, failed := os.MkdirTemp(apiPath(cfg.repo, ""), "out-")
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		o.Output, o.Flat = filepath.Join(dir, "out"), true
	} else {
		o.Output = cfg.output.path
	}
	if o.Output, err = filepath.Abs(o.Output); err != nil {
		return err
	}
	got, err := a.followRemote(ctx, r, o, cfg.purchase)
	if err != nil {
		return err
	}
	if toStdout {
		got.Output = "-"
		if err := a.copyOut(o.Output); err != nil {
			return err
		}
	}
	if cmd.Bool("json") {
		return a.printJSON(got)
	}
	a.sayf("%s", got)
	return nil
}

// copyOut writes a file to standard output.
func (a *app) copyOut(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(a.out, f)
	return errors.Join(err, f.Close())
}

// followRemote orders o and waits until it is done.
func (a *app) followRemote(ctx context.Context, r *remote, o order, p purchase) (got receipt, err error) {
	body, err := r.open(ctx, "POST", "/v1/fetch?wait=true", o)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	bar := a.newProgress(p)
	defer bar.finish()
	var began begun
	err = notices(body, func(n notice) (bool, error) {
		switch n.name {
		case "deal":
			return false, json.Unmarshal(n.data, &began)
		case "progress", "parked":
			return a.showRemote(n, bar)
		case "error":
			var e apiError
			if err := json.Unmarshal(n.data, &e); err != nil {
				return true, err
			}
			return true, e.err()
		case "receipt":
			if err := json.Unmarshal(n.data, &got); err != nil {
				return true, err
			}
			got.restore()
			return true, nil
		}
		return false, nil
	})
	if ctx.Err() != nil {
		return got, leftRemote(ctx, began.Deal)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return got, &exitError{exitIncomplete, fmt.Errorf("the daemon stopped; it goes on with deal %s at its next start", began.Deal)}
	}
	return got, err
}

// showRemote draws how far a deal of the daemon is. One that waits for money
// is an error: the daemon goes on with it when there is some.
func (a *app) showRemote(n notice, bar *progress) (bool, error) {
	var d deal
	if err := json.Unmarshal(n.data, &d); err != nil {
		return true, err
	}
	if n.name == "parked" {
		return true, &exitError{exitPrice, fmt.Errorf("the deal waits for money: %s; to go on:\n  tollgraph deals add-funds %s AMOUNT", d.Message, d.ID)}
	}
	s := market.ClientDealState{Expected: voucher.Bytes(d.Expected), TotalReceived: voucher.Bytes(d.Bytes)}
	if err := errors.Join(s.FundsSpent.UnmarshalText([]byte(d.Paid)), s.TotalFunds.UnmarshalText([]byte(d.Budget))); err != nil {
		return true, err
	}
	bar.show(s)
	return false, nil
}

// leftRemote says that the daemon goes on with what its user left.
func leftRemote(ctx context.Context, id string) error {
	code := exitInterrupted
	if errors.Is(context.Cause(ctx), errTimeout) {
		code = exitIncomplete
	}
	return &exitError{code, fmt.Errorf("left; the daemon goes on with it; to stop it:\n  tollgraph deals pause %s", id)}
}

// restore fills in what people read and JSON does not have.
func (r *receipt) restore() {
	r.state.PayloadCID, _ = cid.Decode(r.CID) // ours: what cannot be read is not shown
	r.state.Sender, _ = peer.Decode(r.Provider)
	_ = r.state.FundsSpent.UnmarshalText([]byte(r.Paid))
	price, _ := strconv.ParseUint(r.Price, 10, 64)
	r.state.Params.PricePerByte = voucher.Price(price)
	r.state.TotalReceived = voucher.Bytes(r.Bytes)
}
