package main

import (
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// giveaway is the pieces that are given away, by ID.
type giveaway map[cid.Cid]bool

// givenAway returns which pieces lie at paths, or in directories among them.
func givenAway(store *piece.Store, paths []string) (giveaway, error) {
	free := make(giveaway)
	for _, path := range paths {
		at, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		for _, p := range store.Pieces() {
			is, err := filepath.Abs(p.Path)
			if err != nil {
				return nil, err
			}
			if is == at || strings.HasPrefix(is, at+string(filepath.Separator)) {
				free[p.ID] = true
			}
		}
	}
	return free, nil
}

// price is what is charged for a piece.
func (f giveaway) price(in market.PricingInput) voucher.Ask {
	if f[in.Piece.ID] {
		return voucher.Ask{}
	}
	return in.Ask
}

// pricing is price, or nil if nothing is given away that would have a price.
func (f giveaway) pricing() func(market.PricingInput) voucher.Ask {
	if len(f) == 0 {
		return nil
	}
	return f.price
}
