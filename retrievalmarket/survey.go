package retrievalmarket

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/traversal"
)

// gapsIn finds what is missing of what r asks for, as deals of their own, and how
// many bytes of it are held. It finds none where one deal for all of r brings no
// more than what is missing, or where that is not known. From a plain provider a
// deal brings all of its selection: it then finds the deals that bring least again,
// which is the block whose links are missing where there are several.
func gapsIn(ctx context.Context, ls ipld.LinkSystem, r Request, plain bool) ([]gap, Bytes, error) {
	t, ok := targetOf(ctx, ls, r)
	if !ok {
		return nil, 0, nil
	}
	s := survey{ls: ls, plain: plain, seen: make(map[cid.Cid]struct{}), counted: make(map[cid.Cid]struct{})}
	for _, c := range t.way {
		if data, ok := s.read(ctx, c); ok {
			s.count(c, data)
		}
	}
	if err := s.walk(ctx, t.block, t.span); err != nil {
		return nil, 0, fmt.Errorf("look through what is held: %w", err)
	}
	if !s.scattered && !plain {
		return nil, 0, nil
	}
	return s.gaps, s.held, nil
}

// survey walks a DAG, or the part of it that holds some bytes of a file, over what
// is held of it, in the order in which a transfer would, and notes what is
// missing.
type survey struct {
	ls        ipld.LinkSystem
	plain     bool                 // nothing can be left out of a deal
	seen      map[cid.Cid]struct{} // surveyed whole, or in a gap
	counted   map[cid.Cid]struct{}
	links     int
	held      Bytes // the blocks that are here, each once
	gaps      []gap
	scattered bool // something is held behind a gap: a transfer cannot just begin later
}

// stop is one stop of the walk: a block and what is wanted of it, or a gap.
type stop struct {
	block cid.Cid
	span  *span
	gap   *gap
}

// walk surveys what is wanted below root. Its depth and length are those of what
// is held.
func (s *survey) walk(ctx context.Context, root cid.Cid, wanted *span) error {
	if _, ok := s.read(ctx, root); !ok {
		return nil // nothing is held: no gap, but all
	}
	stack := []stop{{block: root, span: wanted}}
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
		if at.span == nil {
			if _, again := s.seen[at.block]; again {
				continue
			}
			s.seen[at.block] = struct{}{}
		}
		stops, err := s.visit(ctx, at.block, at.span)
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

// count takes in a block that is held.
func (s *survey) count(c cid.Cid, data []byte) {
	if _, again := s.counted[c]; !again {
		s.counted[c] = struct{}{}
		s.held = s.held.Add(Bytes(len(data)))
	}
}

// visit takes in a block that is held and returns where to go on, in order.
func (s *survey) visit(ctx context.Context, c cid.Cid, wanted *span) ([]stop, error) {
	data, ok := s.read(ctx, c)
	if !ok {
		return nil, fmt.Errorf("block %s was there a moment ago", c)
	}
	s.count(c, data)
	s.scattered = s.scattered || len(s.gaps) > 0
	if c.Prefix().Codec == cid.Raw {
		return nil, nil
	}
	node, err := s.decode(c, data)
	if err != nil {
		return nil, err
	}
	links, err := linksOf(node, wanted)
	if err != nil {
		return nil, err
	}
	return s.sort(ctx, c, links), nil
}

// child is a link of a block, and what is wanted below it.
type child struct {
	index int
	cid   cid.Cid
	span  *span // nil for all
}

// linksOf returns the links of a block that are wanted.
func linksOf(node datamodel.Node, wanted *span) ([]child, error) {
	if pb, ok := node.(dagpb.PBNode); ok && wanted != nil {
		return wanted.children(pb), nil
	}
	links, err := traversal.SelectLinks(node)
	if err != nil {
		return nil, err
	}
	all := make([]child, 0, len(links))
	for i, l := range links {
		all = append(all, child{index: i, cid: l.(cidlink.Link).Cid}) // decode makes no others
	}
	return all, nil
}

// sort makes stops of the wanted links of c: those that are held, and the gaps
// where they are not.
func (s *survey) sort(ctx context.Context, c cid.Cid, links []child) []stop {
	var stops []stop
	var missing []run
	first := make(map[int]int) // the stop at which a missing link would be
	alone := s.plain && s.missing(ctx, links) == 1
	for _, l := range links {
		_, again := s.seen[l.cid]
		_, here := s.read(ctx, l.cid)
		partly := l.span != nil && l.cid.Prefix().Codec != cid.Raw
		switch {
		case here:
			stops = append(stops, stop{block: l.cid, span: l.span})
		case again: // it comes with an earlier gap
		case partly:
			stops = append(stops, stop{gap: &gap{root: l.cid, node: l.span.selector()}})
		case alone, c.Prefix().Codec != cid.DagProtobuf: // the latter's links cannot be named by their number
			s.seen[l.cid] = struct{}{}
			stops = append(stops, stop{gap: &gap{root: l.cid}})
		default:
			s.seen[l.cid] = struct{}{}
			if n := len(missing); n > 0 && missing[n-1].end == l.index && first[missing[n-1].begin] == len(stops) {
				missing[n-1].end++
				continue
			}
			missing = append(missing, run{l.index, l.index + 1})
			first[l.index] = len(stops)
		}
	}
	return between(stops, gapsOf(c, missing), first)
}

// missing counts the links that are neither held nor in an earlier gap.
func (s *survey) missing(ctx context.Context, links []child) (n int) {
	for _, l := range links {
		_, again := s.seen[l.cid]
		if _, here := s.read(ctx, l.cid); !here && !again {
			n++
		}
	}
	return n
}

// between puts every gap where its first link would be among stops. at says that
// of every run.
func between(stops []stop, gaps []gap, at map[int]int) []stop {
	if len(gaps) == 0 {
		return stops
	}
	all := make([]stop, 0, len(stops)+len(gaps))
	where := 0
	for _, g := range gaps {
		if n, begins := at[g.runs[0].begin]; begins { // else it goes on with a long run
			all = append(all, stops[where:n]...)
			where = n
		}
		all = append(all, stop{gap: &g})
	}
	return append(all, stops[where:]...)
}
