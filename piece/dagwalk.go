package piece

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/multicodec"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
)

// dagWalk visits every block below some roots once, parents before children and
// children in the order of their links. Its memory is that of seen, and the links
// of the blocks between the root and where it is.
type dagWalk struct {
	// load returns a block. It may return nothing for a raw block, whose bytes
	// nobody looks at.
	load func(ctx context.Context, c cid.Cid) ([]byte, error)
	// visit is called with each block and what load returned.
	visit func(c cid.Cid, block []byte) error
	seen  *cidSet
}

// from walks the DAG below root.
func (w *dagWalk) from(ctx context.Context, root cid.Cid) error {
	type step struct {
		parent cid.Cid
		links  []cid.Cid
	}
	todo := []step{{links: []cid.Cid{root}}}
	for len(todo) > 0 {
		last := &todo[len(todo)-1]
		if len(last.links) == 0 {
			todo = todo[:len(todo)-1]
			continue
		}
		c, parent := last.links[0], last.parent
		last.links = last.links[1:]
		if !w.seen.add(c) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		links, err := w.one(ctx, c)
		if err != nil {
			if parent.Defined() {
				err = fmt.Errorf("below %s: %w", parent, err)
			}
			return err
		}
		todo = append(todo, step{parent: c, links: links})
	}
	return nil
}

// one visits a block and returns its links.
func (w *dagWalk) one(ctx context.Context, c cid.Cid) ([]cid.Cid, error) {
	block, inline := identity(c)
	if !inline {
		var err error
		if block, err = w.load(ctx, c); err != nil {
			return nil, err
		}
		if err := w.visit(c, block); err != nil {
			return nil, err
		}
	}
	links, err := linksOf(c, block)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", c, err)
	}
	return links, nil
}

// linksOf returns the links in a block.
func linksOf(c cid.Cid, block []byte) ([]cid.Cid, error) {
	switch c.Prefix().Codec {
	case cid.Raw:
		return nil, nil
	case cid.DagProtobuf:
		node, err := decodeNode(block)
		if err != nil {
			return nil, err
		}
		links := make([]cid.Cid, len(node.links))
		for i, l := range node.links {
			links[i] = l.cid
		}
		return links, nil
	}
	decode, err := multicodec.LookupDecoder(c.Prefix().Codec)
	if err != nil {
		return nil, fmt.Errorf("its links cannot be read: %w", err)
	}
	return anyLinks(decode, block)
}

func anyLinks(decode codec.Decoder, block []byte) ([]cid.Cid, error) {
	builder := basicnode.Prototype.Any.NewBuilder()
	if err := decode(builder, bytes.NewReader(block)); err != nil {
		return nil, err
	}
	found, err := traversal.SelectLinks(builder.Build())
	if err != nil {
		return nil, err
	}
	links := make([]cid.Cid, 0, len(found))
	for _, l := range found {
		if l, ok := l.(cidlink.Link); ok {
			links = append(links, l.Cid)
		}
	}
	return links, nil
}

// cidSet is a set of CIDs. It keeps 128 bits of two seeded hashes of each, some 40
// bytes in all; the seeds are random, so that nobody can make two CIDs meet.
type cidSet struct {
	seeds [2]maphash.Seed
	held  map[[2]uint64]struct{}
}

func newCIDSet() *cidSet {
	return &cidSet{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		held:  make(map[[2]uint64]struct{}),
	}
}

// add reports whether c is new.
func (s *cidSet) add(c cid.Cid) bool {
	k := c.KeyString()
	key := [2]uint64{maphash.String(s.seeds[0], k), maphash.String(s.seeds[1], k)}
	if _, held := s.held[key]; held {
		return false
	}
	s.held[key] = struct{}{}
	return true
}
