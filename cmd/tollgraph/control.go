package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v3"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// The verbs of control over a deal, on the command line and in the API.
const (
	verbCancel   = "cancel"
	verbPause    = "pause"
	verbResume   = "resume"
	verbAddFunds = "add-funds"
	verbBudget   = "set-budget"
)

// controlCommands are the commands that change a deal.
func (a *app) controlCommands() []*cli.Command {
	one := func(verb, usage string) *cli.Command {
		return &cli.Command{Name: verb, Usage: usage, ArgsUsage: "ID", Action: a.control}
	}
	return []*cli.Command{
		one(verbCancel, "end a deal; what has arrived is paid for, nothing more"),
		one(verbPause, "let a deal stand still until it is resumed"),
		one(verbResume, "go on with a deal that stands still"),
		{Name: verbAddFunds, Usage: "raise what a deal may cost", ArgsUsage: "ID AMOUNT", Action: a.control},
		{Name: verbBudget, Usage: "set what a deal may cost", ArgsUsage: "ID AMOUNT", Action: a.control},
	}
}

// dealOrder is to be done to which deal.
type dealOrder struct {
	verb   string
	name   string // ID or PEER/ID
	amount voucher.Amount
}

func dealOrderFlags(cmd *cli.Command) (dealOrder, error) {
	o := dealOrder{verb: cmd.Name, name: cmd.Args().First()}
	want := 1
	if o.verb == verbAddFunds || o.verb == verbBudget {
		want = 2
	}
	if cmd.NArg() != want {
		return o, usagef("%s takes %s, such as %s; tollgraph deals list shows the ids", cmd.FullName(), cmd.ArgsUsage,
			[]string{"1790000000000000001", "1790000000000000001 0.5FIL"}[want-1])
	}
	if _, _, err := parseDealName(o.name); err != nil {
		return o, err
	}
	if want == 2 {
		var err error
		if o.amount, err = voucher.ParseAmount(cmd.Args().Get(1)); err != nil {
			return o, usagef("%w", err)
		}
	}
	return o, nil
}

// parseDealName reads ID or PEER/ID.
func parseDealName(name string) (peer.ID, market.DealID, error) {
	who, number, both := strings.Cut(name, "/")
	if !both {
		who, number = "", name
	}
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return "", 0, usagef("%q is not the id of a deal: a number, or PEER/NUMBER; tollgraph deals list shows them", name)
	}
	if who == "" {
		return "", market.DealID(id), nil
	}
	p, err := peer.Decode(who)
	if err != nil {
		return "", 0, usagef("%q: %w", name, err)
	}
	return p, market.DealID(id), nil
}

// dealPath is where the API has a deal, and a verb of it.
func dealPath(name, verb string) string {
	who, id, both := strings.Cut(name, "/")
	if !both {
		who, id = "", name
	}
	path := "/v1/deals/" + url.PathEscape(id)
	if verb != "" {
		path += "/" + verb
	}
	if who != "" {
		path += "?peer=" + url.QueryEscape(who)
	}
	return path
}

// control does what a user says to a deal: through the node that runs on the
// repo, or else by itself.
func (a *app) control(ctx context.Context, cmd *cli.Command) error {
	o, err := dealOrderFlags(cmd)
	if err != nil {
		return err
	}
	r, err := dial(ctx, cmd.String("repo"))
	if err != nil {
		return err
	}
	var d deal
	if r != nil {
		if err = r.post(ctx, dealPath(o.name, o.verb), dealChange{Amount: o.amount}, &d); err == nil {
			err = d.restore()
		}
	} else {
		d, err = a.controlStored(ctx, cmd.String("repo"), o)
	}
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(d)
	}
	return a.printDeal(d)
}

// controlStored does what o says to a deal while no node runs on the repo.
func (a *app) controlStored(ctx context.Context, dir string, o dealOrder) (_ deal, err error) {
	n, err := startNode(ctx, dir, nil)
	if err != nil {
		return deal{}, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	b, err := newBuyer(ctx, n, market.ClientConfig{})
	if err != nil {
		return deal{}, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	office := newOffice(a, n, b, nil)
	if o.verb != verbResume {
		return office.change(ctx, o)
	}
	return a.resumeHere(ctx, office, o)
}

// resumeHere goes on with a deal in the foreground, until it is done.
func (a *app) resumeHere(ctx context.Context, o *office, what dealOrder) (deal, error) {
	id, err := o.clientDeal(ctx, what.name)
	if err != nil {
		return deal{}, err
	}
	p, err := o.purchaseOf(ctx, id)
	if err != nil {
		return deal{}, err
	}
	s, err := o.buyer.RetrievalStatus(ctx, id)
	if err != nil {
		return deal{}, err
	}
	if err := o.shelf.unhold(ctx, s.Order); err != nil {
		return deal{}, err
	}
	got, err := a.buy(ctx, o.buyer, p)
	if parked := (*parkedError)(nil); errors.As(err, &parked) {
		return deal{}, &exitError{exitPrice, fmt.Errorf("the deal waits for money: %w; to go on:\n  tollgraph deals set-budget %d %s", err, id,
			strings.ReplaceAll(parked.need().FIL(), " ", ""))}
	}
	if err != nil {
		return deal{}, a.advise(ctx, err)
	}
	if err := o.shelf.drop(ctx, s.Order); err != nil {
		return deal{}, err
	}
	if p.output.path == "" {
		a.sayf("everything is here and paid; the same fetch as before writes it out, and costs nothing")
	} else {
		a.sayf("%s", got)
	}
	return clientDeal(got.state), nil
}

// dealChange is the body of a request that changes a deal.
type dealChange struct {
	Amount voucher.Amount `json:"amount_atto,omitzero"`
}

// change does what what says, and returns the deal as it is then.
func (o *office) change(ctx context.Context, what dealOrder) (deal, error) {
	found, err := o.findDeal(ctx, what.name)
	if err != nil {
		return deal{}, err
	}
	if found.Role == "provider" {
		return o.changeSold(what, found)
	}
	if o.buyer == nil {
		return deal{}, errOnlySells
	}
	_, id, err := parseDealName(what.name)
	if err != nil {
		return deal{}, err
	}
	if err := o.changeBought(ctx, what, id); err != nil {
		return deal{}, err
	}
	if id, err = o.buyer.LatestDeal(ctx, id); err != nil {
		return deal{}, err
	}
	return o.findDeal(ctx, strconv.FormatUint(uint64(id), 10))
}

// changeBought changes a deal of the client. What does not run is paused as it
// is: it will not be resumed by itself.
func (o *office) changeBought(ctx context.Context, what dealOrder, id market.DealID) error {
	switch what.verb {
	case verbCancel:
		if err := o.buyer.CancelDeal(ctx, id); err != nil {
			return err
		}
		s, err := o.buyer.RetrievalStatus(ctx, id)
		if err != nil {
			return err
		}
		return o.shelf.drop(ctx, s.Order)
	case verbPause:
		return o.pause(ctx, id)
	case verbResume:
		return o.resume(ctx, id)
	case verbAddFunds:
		return o.buyer.AddMoreFunds(ctx, id, what.amount)
	case verbBudget:
		return o.buyer.SetBudget(ctx, id, what.amount)
	}
	return usagef("there is no way to %s a deal", what.verb)
}

// changeSold changes a deal of the provider, which can only be cancelled.
func (o *office) changeSold(what dealOrder, d deal) (deal, error) {
	if what.verb != verbCancel {
		return deal{}, usagef("deal %s is a sale: it can be cancelled, the rest is its client's to do", d.ID)
	}
	if o.seller == nil {
		return deal{}, fmt.Errorf("deal %s is a sale, and nothing is served: start tollgraph serve or daemon, and cancel it then", d.ID)
	}
	from, err := peer.Decode(d.Peer)
	if err != nil {
		return deal{}, err
	}
	_, id, err := parseDealName(d.ID)
	if err != nil {
		return deal{}, err
	}
	if err := o.seller.CancelDeal(market.ProviderDealID{From: from, ID: id}); err != nil {
		return deal{}, err
	}
	d.Message = "cancelling"
	return d, nil
}
