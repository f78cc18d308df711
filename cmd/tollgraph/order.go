package main

import (
	"fmt"
	"path/filepath"

	"github.com/filecoin-project/go-address"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// order is a fetch as it is told to a running node, in the words of the command
// line, and as it is kept until it is done.
type order struct {
	CID         string `json:"cid"` // CID[/path]
	Provider    string `json:"provider"`
	EntityBytes string `json:"entity_bytes,omitempty"`
	DagScope    string `json:"dag_scope,omitempty"`
	Selector    string `json:"selector,omitempty"`
	Output      string `json:"output,omitempty"` // absolute; none: only into the repo
	CAR         bool   `json:"car,omitempty"`
	Flat        bool   `json:"flat,omitempty"` // the output is one file: what is no file is an error
	Overwrite   bool   `json:"overwrite,omitempty"`
	AnySymlinks bool   `json:"any_symlinks,omitempty"`
	MaxPrice    string `json:"max_price,omitempty"` // per GiB
	Budget      string `json:"budget,omitempty"`
	MaxAtRisk   string `json:"max_at_risk,omitempty"`
}

// choice says which part of a DAG is meant.
type choice struct{ scope, bytes, selector string }

// of is what c means of t. The error is one of usage.
func (c choice) of(t target) (s selection, err error) {
	s.target = t
	scope, err := selectors.ParseScope(c.scope)
	if err != nil {
		return s, badFlag("dag-scope", c.scope, err)
	}
	s.whole = scope != selectors.ScopeBlock
	switch {
	case c.selector != "":
		s.raw = true
		if s.path != "" || c.bytes != "" || scope != selectors.ScopeAll {
			return s, usagef("--selector says all about what is selected: give it without a path, --entity-bytes and --dag-scope")
		}
		if s.selector, err = selectors.ParseJSON(c.selector); err != nil {
			return s, badFlag("selector", c.selector, err)
		}
	case c.bytes != "":
		if s.span, err = parseSpan(c.bytes); err == nil {
			s.selector, err = selectors.EntityBytes(s.path, s.span.from, s.span.to)
		}
		if err != nil {
			return s, badFlag("entity-bytes", c.bytes, err)
		}
	case s.path != "" || scope != selectors.ScopeAll:
		if s.selector, err = selectors.Path(s.path, scope); err != nil {
			return s, usagef("%s: %w", s.target, err)
		}
	}
	return s, nil
}

func badFlag(name, value string, err error) error { return usagef("--%s %q: %w", name, value, err) }

// purchase is what o means. The error is one of usage.
func (o order) purchase() (p purchase, err error) {
	t, err := parseTarget(o.CID)
	if err != nil {
		return p, err
	}
	scope := o.DagScope
	if scope == "" {
		scope = "all"
	}
	if p.selection, err = (choice{scope, o.EntityBytes, o.Selector}).of(t); err != nil {
		return p, err
	}
	info, err := peer.AddrInfoFromString(o.Provider)
	if err != nil {
		return p, badFlag("provider", o.Provider, err)
	}
	p.from = market.RetrievalPeer{AddrInfo: *info, Address: address.Undef}
	if err := o.money(&p); err != nil {
		return p, err
	}
	if o.Output == "" {
		return p, nil
	}
	if !filepath.IsAbs(o.Output) {
		return p, usagef("output %q: give an absolute path", o.Output)
	}
	p.output = outputFor(p.selection, o.Output, o.CAR, o.Overwrite)
	p.output.flat, p.output.anyLinks = o.Flat, o.AnySymlinks
	return p, nil
}

// money reads the limits of o into p.
func (o order) money(p *purchase) (err error) {
	if o.Budget != "" {
		if p.budget, err = voucher.ParseAmount(o.Budget); err != nil {
			return badFlag("budget", o.Budget, err)
		}
	}
	if o.MaxPrice != "" {
		price, err := voucher.ParsePricePerGiB(o.MaxPrice)
		if err != nil {
			return badFlag("max-price", o.MaxPrice, err)
		}
		p.maxPrice = &price
	}
	if o.MaxAtRisk != "" {
		risk, err := voucher.ParseBytes(o.MaxAtRisk)
		if err != nil {
			return badFlag("max-at-risk", o.MaxAtRisk, err)
		}
		p.atRisk = &risk
	}
	return nil
}

// request is p as the market takes it.
func (p purchase) request() market.Request {
	return market.Request{
		Provider: p.from, Root: p.root, Selector: p.selector,
		Budget: p.budget, MaxPrice: p.maxPrice, AtRisk: p.atRisk, Output: p.output.path,
	}
}

// purchaseFrom is what a deal on record still has to buy. Its output is not
// known: everything goes into the repo.
func purchaseFrom(r market.Request) purchase {
	return purchase{
		selection: selection{target: target{root: r.Root}, selector: r.Selector},
		from:      r.Provider, budget: r.Budget, maxPrice: r.MaxPrice, atRisk: r.AtRisk,
	}
}

// name is what p is called in messages.
func (p purchase) name() string { return fmt.Sprintf("%s from %s", p.target, p.from.ID) }
