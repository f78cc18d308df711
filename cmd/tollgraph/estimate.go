package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// estimate is what a fetch would do, as JSON.
type estimate struct {
	CID      string         `json:"cid"`
	Path     string         `json:"path,omitempty"`
	Provider string         `json:"provider"`
	Deal     string         `json:"deal,omitempty"` // that would go on, on its own terms
	Held     uint64         `json:"held_bytes"`     // of the selection, here already
	Bytes    uint64         `json:"bytes"`          // to fetch
	Cost     voucher.Amount `json:"cost_atto"`
	Deals    int            `json:"deals"`      // that it takes: several where what is here is scattered
	Spent    voucher.Amount `json:"spent_atto"` // of the budget, by earlier deals for the same
	Price    string         `json:"price_atto_per_byte"`
	Refused  string         `json:"refused,omitempty"` // why it would not begin
	Code     int            `json:"code"`              // with which fetch would refuse it; else 0
}

// estimateOf finds out what p would come to, under the limits of the repo whose
// database db is.
func estimateOf(ctx context.Context, b *buyer, db *sql.DB, p purchase) (estimate, error) {
	if err := underCeiling(ctx, db, &p); err != nil {
		return estimate{}, err
	}
	e, err := b.Estimate(ctx, p.request())
	if err != nil {
		return estimate{}, adviseRefusal(err)
	}
	out := estimate{
		CID: p.root.String(), Path: p.path, Provider: p.from.ID.String(), Held: uint64(e.Held), Bytes: uint64(e.Bytes), Cost: e.Cost,
		Deals: e.Deals, Spent: e.Spent,
		Price: strconv.FormatUint(uint64(e.Answer.MinPricePerByte), 10),
	}
	if e.Deal != 0 {
		out.Deal = strconv.FormatUint(uint64(e.Deal), 10)
	}
	if e.Refusal != nil {
		out.Refused, out.Code = adviseRefusal(e.Refusal).Error(), exitCode(e.Refusal)
	}
	return out, nil
}

// dryRun says what the fetch that cfg describes would do.
func (a *app) dryRun(ctx context.Context, cmd *cli.Command, cfg fetchConfig) error {
	e, err := a.estimate(ctx, cmd, cfg)
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		err = a.printJSON(e)
	} else {
		err = a.printEstimate(e, cfg.target)
	}
	if err == nil && e.Code != exitOK {
		err = &exitError{e.Code, fmt.Errorf("it would be refused: %s", e.Refused)}
	}
	return err
}

// estimate asks the node that runs on the repo, or else the provider.
func (a *app) estimate(ctx context.Context, cmd *cli.Command, cfg fetchConfig) (e estimate, err error) {
	r, err := dial(ctx, cfg.repo)
	if err != nil {
		return e, err
	}
	if r != nil {
		err = r.post(ctx, "/v1/estimate", orderFlags(cmd, cfg), &e)
		return e, err
	}
	n, err := startServing(ctx, cfg.repo, reach{carrier: cfg.carrier})
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	b, err := newBuyer(ctx, n, market.ClientConfig{})
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return estimateOf(ctx, b, n.repo.db, cfg.purchase)
}

// printEstimate writes e for people.
func (a *app) printEstimate(e estimate, t target) error {
	fmt.Fprintf(a.out, "%s\nhere already  %s\n", t, voucher.Bytes(e.Held).IEC())
	if e.Deal != "" {
		fmt.Fprintf(a.out, "deal %s would go on; tollgraph deals show %s\n", e.Deal, e.Deal)
	}
	if e.Bytes == 0 && e.Code == exitOK && e.Cost.IsZero() {
		fmt.Fprintln(a.out, "nothing to pay")
	} else {
		fmt.Fprintf(a.out, "to fetch      %s (%d bytes)%s\ncost          %s\n", voucher.Bytes(e.Bytes).IEC(), e.Bytes, dealsText(e.Deals), e.Cost.FIL())
	}
	if !e.Spent.IsZero() {
		fmt.Fprintf(a.out, "spent already %s of the budget, in earlier deals for the same\n", e.Spent.FIL())
	}
	if e.Code == exitOK {
		_, err := fmt.Fprintln(a.out, "it would not be refused")
		return err
	}
	return nil
}

// dealsText says that several deals are needed, if so.
func dealsText(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(", in the gaps of what is here: %d deals", n)
}
