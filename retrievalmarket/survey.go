package retrievalmarket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"

	"github.com/tollgraph/tollgraph/selectors"
)

// maxRun is how many links of a node one gap spans: a selector may name so
// many.
const maxRun = 1000

// gap is something that is missing: all that a selector selects from a root.
type gap struct {
	root     cid.Cid
	selector datamodel.Node
}

// survey walks a DAG over what is held of it, in the order in which a transfer
// of the whole would, and notes what is missing.
type survey struct {
	ls        ipld.LinkSystem
	seen      map[cid.Cid]struct{} // surveyed, or in a gap
	links     int
	held      Bytes // the blocks that are here, each once
	gaps      []gap
	scattered bool // something is held behind a gap: a transfer cannot just begin later
}

// stop is one stop of the walk: a block, or a gap.
type stop struct {
	block cid.Cid
	gap   *gap
}

// walk surveys all below root. Its depth and length are those of what is held.
func (s *survey) walk(ctx context.Context, root cid.Cid) error {
	if _, ok := s.read(ctx, root); !ok {
		return nil // nothing is held: no gap, but all
	}
	stack := []stop{{block: root}}
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if at.gap != nil {
			s.gaps = append(s.gaps, *at.gap)
			continue
		}
		if _, again := s.seen[at.block]; again {
			continue
		}
		s.seen[at.block] = struct{}{}
		stops, err := s.visit(ctx, at.block)
		if err != nil {
			return err
		}
		if s.links += len(stops); s.links > maxLocalLinks {
			return fmt.Errorf("more than %d links", maxLocalLinks)
		}
		for i := len(stops) - 1; i >= 0; i-- {
			stack = append(stack, stops[i])
		}
	}
	return nil
}

// visit takes in a block that is held and returns where to go on, in order.
func (s *survey) visit(ctx context.Context, c cid.Cid) ([]stop, error) {
	data, ok := s.read(ctx, c)
	if !ok {
		return nil, fmt.Errorf("block %s was there a moment ago", c)
	}
	s.held = s.held.Add(Bytes(len(data)))
	s.scattered = s.scattered || len(s.gaps) > 0
	if c.Prefix().Codec == cid.Raw {
		return nil, nil
	}
	node, err := s.decode(c, data)
	if err != nil {
		return nil, err
	}
	links, err := traversal.SelectLinks(node)
	if err != nil {
		return nil, err
	}
	var stops []stop
	begin := -1 // of the run of missing links
	flush := func(end int) {
		for ; begin >= 0 && begin < end; begin += maxRun {
			stops = append(stops, stop{gap: runOf(c, links, begin, min(end, begin+maxRun))})
		}
		begin = -1
	}
	for i, l := range links {
		child := l.(cidlink.Link).Cid // decode makes no others
		_, again := s.seen[child]
		_, here := s.read(ctx, child)
		switch {
		case here:
			flush(i)
			stops = append(stops, stop{block: child})
			continue
		case again: // it comes with an earlier gap
			flush(i)
			continue
		case c.Prefix().Codec != cid.DagProtobuf:
			flush(i) // its links cannot be named by their number
		}
		s.seen[child] = struct{}{}
		if begin < 0 {
			begin = i
		}
	}
	flush(len(links))
	return stops, nil
}

// runOf is the gap of links begin to end of a block: for dag-pb all that is
// below those links, for others all below the one.
func runOf(c cid.Cid, links []datamodel.Link, begin, end int) *gap {
	if c.Prefix().Codec != cid.DagProtobuf {
		return &gap{links[begin].(cidlink.Link).Cid, selectors.All()}
	}
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	all := ssb.ExploreRecursive(selector.RecursionLimitNone(), ssb.ExploreAll(ssb.ExploreRecursiveEdge()))
	return &gap{c, ssb.ExploreFields(func(links builder.ExploreFieldsSpecBuilder) {
		links.Insert("Links", ssb.ExploreRange(int64(begin), int64(end), ssb.ExploreFields(func(link builder.ExploreFieldsSpecBuilder) {
			link.Insert("Hash", all)
		})))
	}).Node()}
}

// read returns a block if it is held.
func (s *survey) read(ctx context.Context, c cid.Cid) ([]byte, bool) {
	r, err := s.ls.StorageReadOpener(linking.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, false
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	if buf, ok := r.(*bytes.Buffer); ok {
		return buf.Bytes(), true
	}
	data, err := io.ReadAll(r)
	return data, err == nil
}

func (s *survey) decode(c cid.Cid, data []byte) (datamodel.Node, error) {
	decode, err := s.ls.DecoderChooser(cidlink.Link{Cid: c})
	if err != nil {
		return nil, err
	}
	proto := datamodel.NodePrototype(basicnode.Prototype.Any)
	if c.Prefix().Codec == cid.DagProtobuf {
		proto = dagpb.Type.PBNode
	}
	nb := proto.NewBuilder()
	if err := decode(nb, bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("decode %s: %w", c, err)
	}
	return nb.Build(), nil
}

// subtree returns the block below which r wants everything, and false if r wants
// something else, or if it is not known yet which block that is.
func subtree(ctx context.Context, ls ipld.LinkSystem, r Request) (cid.Cid, bool) {
	if r.Selector == nil || selectors.Equal(r.Selector, nil) {
		return r.Root, true
	}
	path := strings.Join(segments(r.Selector), "/")
	sel, err := selectors.Path(path, selectors.ScopeAll)
	if err != nil || !selectors.Equal(sel, r.Selector) {
		return cid.Undef, false
	}
	below, err := selectors.Target(ctx, ls, r.Root, path)
	return below, err == nil
}

// segments returns the keys that a selector goes along before it branches.
func segments(n datamodel.Node) (keys []string) {
	for n.Kind() == datamodel.Kind_Map {
		next := datamodel.Node(nil)
		for it := n.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return keys
			}
			if key, _ := k.AsString(); key == selector.SelectorKey_ExploreRecursive {
				return keys
			} else if key == selector.SelectorKey_Fields && v.Kind() == datamodel.Kind_Map && v.Length() == 1 {
				name, inner, err := v.MapIterator().Next()
				if err != nil {
					return keys
				}
				text, _ := name.AsString() // keys are strings
				keys, next = append(keys, text), inner
			} else if v.Kind() == datamodel.Kind_Map && next == nil {
				next = v
			}
		}
		if next == nil {
			return keys
		}
		n = next
	}
	return keys
}
