package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// maxListed bounds a list of deals, per role.
const maxListed = 100_000

func (a *app) dealsCommand() *cli.Command {
	return &cli.Command{
		Name:   "deals",
		Usage:  "look at deals, as client and as provider, and change them",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: append([]*cli.Command{
			{Name: "list", Usage: "list deals, the latest first", Action: a.listDeals,
				Flags: []cli.Flag{&cli.IntFlag{Name: "limit", Value: 1000, Usage: "at most `N` of each role"}}},
			{Name: "show", Usage: "show one deal", ArgsUsage: "ID", Action: a.showDeal},
		}, a.controlCommands()...),
	}
}

// deal is one deal as JSON, of either role.
type deal struct {
	ID      string `json:"id"`
	Role    string `json:"role"` // client or provider
	Peer    string `json:"peer"` // the other side
	Root    string `json:"root"`
	Status  string `json:"status"`
	Bytes   uint64 `json:"bytes"`
	Paid    string `json:"paid_atto"`
	Message string `json:"message"`
	Order   string `json:"order,omitempty"` // client: the first deal of those that bring the same, one after the other

	Price            string    `json:"price_atto_per_byte"`
	Interval         uint64    `json:"payment_interval"`
	IntervalIncrease uint64    `json:"payment_interval_increase"`
	UnsealPrice      string    `json:"unseal_price_atto"`
	Channel          string    `json:"payment_channel"`
	Lane             string    `json:"lane"`
	Budget           string    `json:"budget_atto,omitempty"`    // client
	Payments         *int      `json:"payments,omitempty"`       // client
	Stalls           *int      `json:"stalls,omitempty"`         // client
	Expected         uint64    `json:"expected_bytes,omitempty"` // client, if it was quoted
	Created          time.Time `json:"created"`
	Updated          time.Time `json:"updated"`

	paid string // for people
	open bool   // client: something is left to do
}

func (a *app) listDeals(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("deals list takes no arguments; to see one deal: tollgraph deals show %s", cmd.Args().First())
	}
	if cmd.Int("limit") < 0 {
		return usagef("--limit %d: give a number of deals, at most %d", cmd.Int("limit"), maxListed)
	}
	limit := min(cmd.Int("limit"), maxListed)
	deals, err := lookDeals(ctx, cmd.String("repo"), limit)
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(deals)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tROLE\tSTATUS\tBYTES\tPAID\tROOT\tPEER\tMESSAGE")
	for _, d := range deals {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", d.ID, d.Role, d.Status, d.Bytes, d.paid, d.Root, d.Peer, d.Message)
	}
	return w.Flush()
}

func (a *app) showDeal(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() != 1 {
		return usagef("deals show takes one deal's ID, or PEER/ID; tollgraph deals list shows them")
	}
	d, err := lookDeal(ctx, cmd.String("repo"), cmd.Args().First())
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(d)
	}
	return a.printDeal(d)
}

// pickDeal finds the deal that a user names. Ids are unique to a client, so a
// provider may have several of one id.
func pickDeal(deals []deal, name string) (deal, error) {
	peer, id, both := strings.Cut(name, "/")
	if !both {
		peer, id = "", name
	}
	found := slices.DeleteFunc(slices.Clone(deals), func(d deal) bool { return d.ID != id || both && d.Peer != peer })
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return deal{}, fmt.Errorf("%w: %s; tollgraph deals list shows those on record", market.ErrNoDeal, name)
	}
	return deal{}, usagef("%d deals have the id %s; name one as PEER/ID, such as %s/%s", len(found), id, found[0].Peer, id)
}

// printDeal writes a deal for people.
func (a *app) printDeal(d deal) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"id", d.ID}, {"role", d.Role}, {"peer", d.Peer}, {"root", d.Root}, {"status", d.Status}, {"message", d.Message},
		{"bytes", strconv.FormatUint(d.Bytes, 10)}, {"paid", d.paid + " (" + d.Paid + " attoFIL)"}, {"price", d.Price + " attoFIL per byte"},
		{"channel", d.Channel}, {"lane", d.Lane},
		{"created", d.Created.Format(time.RFC3339)}, {"updated", d.Updated.Format(time.RFC3339)},
	} {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
		}
	}
	return w.Flush()
}

// lookDeals asks the node that runs on the repo at dir, which knows best how far
// its deals are, or else reads them.
func lookDeals(ctx context.Context, dir string, limit int) (deals []deal, err error) {
	r, err := dial(ctx, dir)
	if err != nil || r == nil {
		if err == nil {
			deals, err = storedDeals(ctx, dir, limit)
		}
		return deals, err
	}
	if err := r.get(ctx, fmt.Sprintf("/v1/deals?limit=%d", limit), &deals); err != nil {
		return nil, err
	}
	for i := range deals {
		if err := deals[i].restore(); err != nil {
			return nil, err
		}
	}
	return deals, nil
}

// lookDeal asks likewise for the one deal that a user names.
func lookDeal(ctx context.Context, dir, name string) (d deal, err error) {
	_, id, err := parseDealName(name)
	if err != nil {
		return d, err
	}
	r, err := dial(ctx, dir)
	if err != nil {
		return d, err
	}
	if r != nil {
		if err := r.get(ctx, dealPath(name, ""), &d); err != nil {
			return d, err
		}
		return d, d.restore()
	}
	err = withDatabase(ctx, dir, func(db *sql.DB) error {
		deals, err := readDealsOf(ctx, db, id)
		if err == nil {
			d, err = pickDeal(deals, name)
		}
		return err
	})
	return d, err
}

// restore fills in what people read and JSON does not have.
func (d *deal) restore() error {
	var paid voucher.Amount
	if err := paid.UnmarshalText([]byte(d.Paid)); err != nil {
		return err
	}
	d.paid = paid.FIL()
	return nil
}

// storedDeals reads the deals of both roles from the repo at dir, the latest
// first. A node may be running on it.
func storedDeals(ctx context.Context, dir string, limit int) (_ []deal, err error) {
	db, err := peekDatabase(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return readDeals(ctx, db, limit)
}

func readDeals(ctx context.Context, db *sql.DB, limit int) ([]deal, error) {
	bought, err := market.StoredClientDeals(ctx, db, limit)
	if err != nil {
		return nil, err
	}
	sold, err := market.StoredProviderDeals(ctx, db, limit)
	if err != nil {
		return nil, err
	}
	return mixDeals(ctx, db, bought, sold)
}

// readDealsOf reads the deals of a number: the one that was bought, and those
// that were sold. It takes as long with a long history as with a short one.
func readDealsOf(ctx context.Context, db *sql.DB, id market.DealID) ([]deal, error) {
	var bought []market.ClientDealState
	switch s, err := market.StoredClientDeal(ctx, db, id); {
	case err == nil:
		bought = append(bought, s)
	case !errors.Is(err, market.ErrNoDeal):
		return nil, err
	}
	sold, err := market.StoredProviderDealsOf(ctx, db, id)
	if err != nil {
		return nil, err
	}
	return mixDeals(ctx, db, bought, sold)
}

// mixDeals puts deals of both roles in order, the latest first.
func mixDeals(ctx context.Context, db *sql.DB, bought []market.ClientDealState, sold []market.ProviderDealState) ([]deal, error) {
	deals := make([]deal, 0, len(bought)+len(sold))
	for _, s := range bought {
		deals = append(deals, clientDeal(s))
	}
	for _, s := range sold {
		deals = append(deals, providerDeal(s))
	}
	slices.SortStableFunc(deals, func(a, b deal) int { return b.Updated.Compare(a.Updated) })
	return deals, shelf{db}.mark(ctx, deals)
}

func clientDeal(s market.ClientDealState) deal {
	d := newDeal(s.DealProposal)
	d.Role, d.Peer, d.Status, d.Bytes, d.Message = "client", s.Sender.String(), s.Status.String(), uint64(s.TotalReceived), s.Message
	d.Paid, d.paid = s.FundsSpent.String(), s.FundsSpent.FIL()
	d.Channel, d.Lane = channelText(s.PaymentChannel.String(), s.Lane)
	d.Budget, d.Payments, d.Stalls, d.Expected = s.TotalFunds.String(), &s.Payments, &s.Stalls, uint64(s.Expected)
	d.Created, d.Updated = s.Created, s.Updated
	d.Order, d.open = strconv.FormatUint(uint64(s.Order), 10), s.Open()
	return d
}

func providerDeal(s market.ProviderDealState) deal {
	d := newDeal(s.DealProposal)
	d.Role, d.Peer, d.Status, d.Bytes, d.Message = "provider", s.Receiver.String(), s.Status.String(), uint64(s.TotalSent), s.Message
	d.Paid, d.paid = s.FundsReceived.String(), s.FundsReceived.FIL()
	d.Channel, d.Lane = channelText(s.PaymentChannel.String(), s.Lane)
	d.Created, d.Updated = s.Created, s.Updated
	return d
}

func newDeal(p market.DealProposal) deal {
	return deal{
		ID: strconv.FormatUint(uint64(p.ID), 10), Root: p.PayloadCID.String(),
		Price:    strconv.FormatUint(uint64(p.Params.PricePerByte), 10),
		Interval: uint64(p.Params.PaymentInterval), IntervalIncrease: uint64(p.Params.PaymentIntervalIncrease),
		UnsealPrice: p.Params.UnsealPrice.String(),
	}
}

// channelText is nothing for a deal that has no payment channel.
func channelText(channel string, lane uint64) (string, string) {
	if channel == "" || channel == "<empty>" {
		return "", ""
	}
	return channel, strconv.FormatUint(lane, 10)
}
