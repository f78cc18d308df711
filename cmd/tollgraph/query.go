package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) queryCommand() *cli.Command {
	return &cli.Command{
		Name:      "query",
		Usage:     "ask a provider whether it has a CID and what it charges",
		ArgsUsage: "CID",
		Flags:     []cli.Flag{text("provider", "", "`MULTIADDR` of the provider, with /p2p/ID at its end")},
		Action:    a.query,
	}
}

func (a *app) quoteCommand() *cli.Command {
	return &cli.Command{
		Name:      "quote",
		Usage:     "ask a provider what exactly a selection costs",
		ArgsUsage: "CID[/path]",
		Flags:     selectionFlags(),
		Action:    a.quote,
	}
}

// answer is what a provider says, as JSON.
type answer struct {
	CID              string  `json:"cid"`
	Path             string  `json:"path,omitempty"`
	Provider         string  `json:"provider"`
	Status           string  `json:"status"`
	Message          string  `json:"message,omitempty"`
	PieceSize        uint64  `json:"piece_size"`
	Bytes            *uint64 `json:"bytes,omitempty"`  // of the selection's blocks; absent if it was not measured
	Blocks           *uint64 `json:"blocks,omitempty"` // of the selection
	Cost             string  `json:"cost_atto,omitempty"`
	Price            string  `json:"price_atto_per_byte"`
	UnsealPrice      string  `json:"unseal_price_atto"`
	Interval         uint64  `json:"payment_interval"`
	IntervalIncrease uint64  `json:"payment_interval_increase"`
	PayTo            string  `json:"payment_address"`
	Credit           *string `json:"credit_atto,omitempty"`

	resp market.QueryResponse
}

func (a *app) query(ctx context.Context, cmd *cli.Command) error {
	r := &reader{Command: cmd}
	s, from := selection{target: r.target()}, r.provider()
	if r.err != nil {
		return r.err
	}
	got, err := ask(ctx, cmd.String("repo"), s, from)
	if err != nil || cmd.Bool("json") {
		return errors.Join(err, a.printAnswer(err, got))
	}
	fmt.Fprintf(a.out, "%s: %s\nprice %s\nunsealing %s\nfirst interval %s, each further one %s longer\n", s.target, got.Status,
		priceText(got.resp.MinPricePerByte), got.resp.UnsealPrice.FIL(), got.resp.MaxPaymentInterval.IEC(), got.resp.MaxPaymentIntervalIncrease.IEC())
	a.printCost(got)
	if got.resp.CreditLine != nil {
		fmt.Fprintf(a.out, "credit %s\n", got.resp.CreditLine.FIL())
	}
	return nil
}

func (a *app) quote(ctx context.Context, cmd *cli.Command) error {
	r := &reader{Command: cmd}
	s, from := r.selection(), r.provider()
	if r.err != nil {
		return r.err
	}
	got, err := ask(ctx, cmd.String("repo"), s, from)
	if err == nil && got.Bytes == nil {
		err = fmt.Errorf("the provider does not say what the selection comes to; a deal can be made all the same: fetch with a --budget")
	}
	if err != nil || cmd.Bool("json") {
		return errors.Join(err, a.printAnswer(err, got))
	}
	a.printCost(got)
	fmt.Fprintf(a.out, "price %s\n", priceText(got.resp.MinPricePerByte))
	return nil
}

// printAnswer writes got for machines, unless there was an error.
func (a *app) printAnswer(err error, got answer) error {
	if err != nil {
		return nil
	}
	return a.printJSON(got)
}

// printCost writes what the selection comes to, if the provider says it.
func (a *app) printCost(got answer) {
	cost, ok := got.resp.PayloadRetrievalPrice()
	if !ok {
		return
	}
	line := fmt.Sprintf("size %d bytes (%s)", *got.Bytes, voucher.Bytes(*got.Bytes).IEC())
	if got.Blocks != nil {
		line += fmt.Sprintf(" in %d blocks", *got.Blocks)
	}
	fmt.Fprintf(a.out, "%s\ncost %s\n", line, cost.FIL())
}

// ask puts a query to a provider, with an identity of its own so that it does
// not get in the way of a node on the same repo.
func ask(ctx context.Context, dir string, s selection, from market.RetrievalPeer) (_ answer, err error) {
	client, stop, err := startAsker(ctx, dir)
	if err != nil {
		return answer{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	resp, err := client.Query(ctx, from, s.root, market.QueryParams{Selector: s.selector})
	if errors.Is(err, market.ErrUnreachable) {
		return answer{}, adviseUnreachable(err)
	}
	if err != nil {
		return answer{}, err
	}
	unavailable := resp.Status == voucher.QueryResponseUnavailable || resp.SelectorFound != nil && *resp.SelectorFound == voucher.QueryItemUnavailable
	if unavailable {
		return answer{}, fmt.Errorf("%w: %s", market.ErrNotFound, resp.Message)
	}
	if resp.Status != voucher.QueryResponseAvailable {
		return answer{}, fmt.Errorf("the provider cannot answer: %s", resp.Message)
	}
	return newAnswer(s, from, resp), nil
}

// newAnswer sums up a response.
func newAnswer(s selection, from market.RetrievalPeer, q market.QueryResponse) answer {
	out := answer{
		CID: s.root.String(), Path: s.path, Provider: from.ID.String(), Status: q.Status.String(), Message: q.Message,
		PieceSize: uint64(q.Size), Blocks: q.ExpectedBlocks, Price: strconv.FormatUint(uint64(q.MinPricePerByte), 10),
		UnsealPrice: q.UnsealPrice.String(), Interval: uint64(q.MaxPaymentInterval), IntervalIncrease: uint64(q.MaxPaymentIntervalIncrease),
		PayTo: q.PaymentAddress.String(), resp: q,
	}
	if q.ExpectedPayloadSize != nil {
		size := uint64(*q.ExpectedPayloadSize)
		out.Bytes = &size
	}
	if cost, ok := q.PayloadRetrievalPrice(); ok {
		out.Cost = cost.String()
	}
	if q.CreditLine != nil {
		credit := q.CreditLine.String()
		out.Credit = &credit
	}
	return out
}

// startAsker starts a client that only asks.
func startAsker(ctx context.Context, dir string) (*market.Client, func() error, error) {
	id, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	db, err := peekDatabase(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	h, stack, err := startStack(ctx, id, "", transport.EgressConfig{})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	stop := func() error { return errors.Join(stack.Close(), h.Close(), db.Close()) }
	client, err := market.NewClient(ctx, market.ClientConfig{
		Host: h, Transfers: stack.Transfers(), UseStore: transport.UseStore, Stores: &blocks{}, DB: db, Logger: logger("tollgraph/client"),
	})
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return client, func() error { return errors.Join(client.Close(), stop()) }, nil
}
