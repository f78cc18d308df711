package piece

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"
)

const (
	maxFanout   = 1024 // what other writers allow
	maxHAMTBits = 64   // of the hash, spent over all levels
)

// shape is how a HAMT shard names its links: with the slot in hexadecimal, width
// digits of it, and then the name of the entry, or nothing for a shard.
// Source: https://specs.ipfs.tech/unixfs/#dag-pb-hamtdirectory
type shape struct {
	bits  int // of the hash for each level
	width int
}

// shapeOf checks that a node is a HAMT shard that can be read.
func shapeOf(n fsNode) (shape, error) {
	f := n.fs.fanout
	switch {
	case n.fs.kind != unixfsTypeHAMT:
		return shape{}, fmt.Errorf("%s: no shard of a directory where one was expected", n.cid)
	case n.fs.hash != hamtMurmur3:
		return shape{}, fmt.Errorf("%s: directory hashed by function 0x%x, can read 0x%x", n.cid, n.fs.hash, hamtMurmur3)
	case f < 2 || f > maxFanout || bits.OnesCount64(f) != 1:
		return shape{}, fmt.Errorf("%s: directory with a fan-out of %d", n.cid, f)
	}
	return shape{bits: bits.TrailingZeros64(f), width: len(fmt.Sprintf("%X", f-1))}, nil
}

// lookupHAMT finds an entry of a directory that is a HAMT. It reads the shards on
// the way only.
func (r *dagReader) lookupHAMT(ctx context.Context, n fsNode, name string) (cid.Cid, error) {
	hash := murmur3.Sum64([]byte(name))
	for spent := 0; ; {
		s, err := shapeOf(n)
		if err != nil {
			return cid.Undef, err
		}
		if spent+s.bits > maxHAMTBits {
			return cid.Undef, fmt.Errorf("%s: directory is nested too deep", n.cid)
		}
		slot := fmt.Sprintf("%0*X", s.width, hash<<spent>>(64-s.bits))
		spent += s.bits
		next := cid.Undef
		for _, l := range n.links {
			if l.name == slot+name {
				return l.cid, nil
			}
			if l.name == slot {
				next = l.cid
			}
		}
		if !next.Defined() {
			return cid.Undef, ErrNoEntry
		}
		if n, err = r.node(ctx, next); err != nil {
			return cid.Undef, err
		}
	}
}

// entries calls visit for each entry of a directory, in the order of its blocks.
// Only the blocks between the first and the entry are in memory.
func (r *dagReader) entries(ctx context.Context, dir fsNode, visit func(name string, c cid.Cid) error) error {
	if dir.fs.kind == unixfsTypeHAMT {
		return r.entriesHAMT(ctx, dir, 0, visit)
	}
	for _, l := range dir.links {
		if err := visit(l.name, l.cid); err != nil {
			return err
		}
	}
	return nil
}

func (r *dagReader) entriesHAMT(ctx context.Context, n fsNode, spent int, visit func(string, cid.Cid) error) error {
	s, err := shapeOf(n)
	if err != nil {
		return err
	}
	if spent += s.bits; spent > maxHAMTBits {
		return fmt.Errorf("%s: directory is nested too deep", n.cid)
	}
	for _, l := range n.links {
		switch {
		case len(l.name) < s.width:
			return fmt.Errorf("%s: %w", n.cid, errors.New("link in a directory without a slot"))
		case len(l.name) > s.width:
			err = visit(l.name[s.width:], l.cid)
		default:
			var child fsNode
			if child, err = r.node(ctx, l.cid); err == nil {
				err = r.entriesHAMT(ctx, child, spent, visit)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
