package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// handler is the API:
//
//	GET  /v1/status                 what runs
//	POST /v1/fetch                  order: begin to buy; ?wait=true streams until it is done
//	POST /v1/estimate               order: what it would cost, and whether it would be refused
//	GET  /v1/deals                  the deals; ?limit=N
//	GET  /v1/deals/{id}             one; ?peer=ID if there are several
//	POST /v1/deals/{id}/{verb}      cancel, pause, resume, add-funds, set-budget
//	GET  /v1/events                 server-sent events: what happens to deals
//	GET  /v1/store                  what was received and is kept
//	DELETE /v1/store/{cid}          remove it
//	GET  /v1/ask     PUT /v1/ask    what is charged
//	GET  /v1/budget  PUT /v1/budget what may be spent
//	GET  /metrics                   for Prometheus
func (o *office) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", answered(o.getStatus))
	mux.HandleFunc("POST /v1/fetch", o.postFetch)
	mux.HandleFunc("POST /v1/estimate", answered(o.postEstimate))
	mux.HandleFunc("GET /v1/deals", answered(o.getDeals))
	mux.HandleFunc("GET /v1/deals/{id}", answered(o.getDeal))
	mux.HandleFunc("POST /v1/deals/{id}/{verb}", answered(o.postDeal))
	mux.HandleFunc("GET /v1/events", o.getEvents)
	mux.HandleFunc("GET /v1/store", answered(o.getStore))
	mux.HandleFunc("DELETE /v1/store/{cid}", answered(o.deleteStore))
	mux.HandleFunc("GET /v1/ask", answered(o.getAsk))
	mux.HandleFunc("PUT /v1/ask", answered(o.putAsk))
	mux.HandleFunc("GET /v1/budget", answered(o.getBudget))
	mux.HandleFunc("PUT /v1/budget", answered(o.putBudget))
	mux.Handle("GET /metrics", o.stats.handler())
	mux.HandleFunc("/", answered(func(_ context.Context, r *http.Request) (any, error) {
		return nil, &exitError{exitNotFound, fmt.Errorf("there is no %s %s", r.Method, r.URL.Path)}
	}))
	return mux
}

// errOnlySells is answered by a node that does not buy. The repo is locked by
// it, so that nobody else buys with it either.
var errOnlySells = errors.New("the repo is in use by tollgraph serve, which only sells: run tollgraph daemon in its place, or name another repo with --repo")

var errOnlyBuys = errors.New("the daemon only buys: start it with the CARs to sell")

// nodeStatus is what runs, as JSON.
type nodeStatus struct {
	Version  string   `json:"version"`
	Peer     string   `json:"peer"`
	Addrs    []string `json:"addrs"`
	Address  string   `json:"address"` // that pays and is paid
	Buys     bool     `json:"buys"`
	Sells    bool     `json:"sells"`
	Pieces   int      `json:"pieces"`
	Open     int      `json:"open_deals"` // as a client
	UpSince  string   `json:"up_since"`
	RepoPath string   `json:"repo"`
}

func (o *office) getStatus(ctx context.Context, _ *http.Request) (any, error) {
	n := o.node
	s := nodeStatus{
		Version: versionText(), Peer: n.host.ID().String(), Addrs: []string{}, Address: n.repo.key.Address().String(),
		Buys: o.buyer != nil, Sells: o.seller != nil, UpSince: o.started.UTC().Format("2006-01-02T15:04:05Z"), RepoPath: n.repo.dir,
	}
	for _, addr := range n.host.Addrs() {
		s.Addrs = append(s.Addrs, fmt.Sprintf("%s/p2p/%s", addr, n.host.ID()))
	}
	if o.seller != nil {
		s.Pieces = len(o.seller.store.Pieces())
	}
	if o.buyer != nil {
		open, err := o.buyer.OpenDeals(ctx)
		if err != nil {
			return nil, err
		}
		s.Open = len(open)
	}
	return s, nil
}

func (o *office) getDeals(ctx context.Context, r *http.Request) (any, error) {
	limit := 1000
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 0 {
			return nil, usagef("limit %q is not a number", text)
		}
	}
	return o.deals(ctx, min(limit, maxListed))
}

// dealName is the deal that a request names, as on the command line.
func dealName(r *http.Request) string {
	if with := r.URL.Query().Get("peer"); with != "" {
		return with + "/" + r.PathValue("id")
	}
	return r.PathValue("id")
}

func (o *office) getDeal(ctx context.Context, r *http.Request) (any, error) {
	return o.findDeal(ctx, dealName(r))
}

func (o *office) postDeal(ctx context.Context, r *http.Request) (any, error) {
	var change dealChange
	if r.ContentLength != 0 {
		if err := readBody(r, &change); err != nil {
			return nil, err
		}
	}
	return o.change(ctx, dealOrder{verb: r.PathValue("verb"), name: dealName(r), amount: change.Amount})
}

// askView is an ask as JSON. What is absent from a PUT stays as it is.
type askView struct {
	Price            *voucher.Price  `json:"price_atto_per_byte,string,omitempty"`
	Interval         *voucher.Bytes  `json:"payment_interval,omitempty"`
	IntervalIncrease *voucher.Bytes  `json:"payment_interval_increase,omitempty"`
	UnsealPrice      *voucher.Amount `json:"unseal_price_atto,omitempty"`
}

func viewOfAsk(a voucher.Ask) askView {
	return askView{&a.PricePerByte, &a.PaymentInterval, &a.PaymentIntervalIncrease, &a.UnsealPrice}
}

// over is base with what v has in its place. The error is one of usage.
func (v askView) over(base voucher.Ask) (voucher.Ask, error) {
	if v.Price != nil {
		base.PricePerByte = *v.Price
	}
	if v.Interval != nil {
		base.PaymentInterval = *v.Interval
	}
	if v.IntervalIncrease != nil {
		base.PaymentIntervalIncrease = *v.IntervalIncrease
	}
	if v.UnsealPrice != nil {
		base.UnsealPrice = *v.UnsealPrice
	}
	if err := base.Validate(); err != nil {
		return base, usagef("%w: give an interval, such as 1MiB, or no price", err)
	}
	return base, nil
}

func (o *office) getAsk(context.Context, *http.Request) (any, error) {
	if o.seller == nil {
		return nil, errOnlyBuys
	}
	return viewOfAsk(o.ask()), nil
}

func (o *office) putAsk(ctx context.Context, r *http.Request) (any, error) {
	if o.seller == nil {
		return nil, errOnlyBuys
	}
	var v askView
	if err := readBody(r, &v); err != nil {
		return nil, err
	}
	ask, err := v.over(o.ask())
	if err != nil {
		return nil, err
	}
	return viewOfAsk(ask), o.setAsk(ctx, ask)
}

func (o *office) getBudget(ctx context.Context, _ *http.Request) (any, error) {
	return readBudget(ctx, o.node.repo.dir, o.node.repo.db)
}

// putBudget replaces all limits. Deals that wait for money look again.
func (o *office) putBudget(ctx context.Context, r *http.Request) (any, error) {
	var b budget
	if err := readBody(r, &b); err != nil {
		return nil, err
	}
	if err := storeBudget(ctx, o.node.repo.dir, o.node.repo.db, b); err != nil {
		return nil, err
	}
	if o.buyer != nil {
		o.jobs.Go(func() { o.resumeAll(o.life) })
	}
	return readBudget(ctx, o.node.repo.dir, o.node.repo.db)
}

func (o *office) postEstimate(ctx context.Context, r *http.Request) (any, error) {
	if o.buyer == nil {
		return nil, errOnlySells
	}
	var from order
	if err := readBody(r, &from); err != nil {
		return nil, err
	}
	p, err := from.purchase()
	if err != nil {
		return nil, err
	}
	return estimateOf(ctx, o.buyer, o.node.repo.db, p)
}

// eventView is an event of a deal as JSON.
type eventView struct {
	Event string `json:"event"`
	Deal  deal   `json:"deal"`
}

var clientEvents = map[market.ClientEvent]string{
	market.ClientEventOpen: "open", market.ClientEventFundsExpended: "funds-expended", market.ClientEventProgress: "progress",
	market.ClientEventError: "error", market.ClientEventComplete: "complete",
}

var providerEvents = map[market.ProviderEvent]string{
	market.ProviderEventOpen: "open", market.ProviderEventProgress: "progress",
	market.ProviderEventError: "error", market.ProviderEventComplete: "complete",
}
