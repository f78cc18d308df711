package main

import (
	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// goods are the pieces of a store as the market sees them.
type goods struct {
	*piece.Store
	free giveaway
}

var _ market.Pieces = goods{}

func (g goods) Find(payload cid.Cid, want *cid.Cid) (market.Piece, bool) {
	info, ok := g.find(payload, want)
	return market.Piece{ID: info.ID, Size: voucher.Bytes(info.Size), Sealed: info.Sealed}, ok
}

// find prefers, of several pieces that hold the same, one that is given away.
func (g goods) find(payload cid.Cid, want *cid.Cid) (piece.Info, bool) {
	if want == nil {
		for id := range g.free {
			if info, ok := g.Store.Find(payload, &id); ok {
				return info, true
			}
		}
	}
	return g.Store.Find(payload, want)
}

func (g goods) BlockSize(c cid.Cid) (uint64, bool) { return g.Size(c) }
