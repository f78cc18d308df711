package retrievalmarket

import (
	"context"
	"io"
	"math"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/traversal/selector"

	"github.com/tollgraph/tollgraph/selectors"
)

// target is what a Request wants below one block.
type target struct {
	block cid.Cid
	way   []cid.Cid // the blocks that lead to it
	span  *span     // of the file that block is; nil for everything
}

// targetOf returns what r wants, and false if it wants something that cannot be
// said in this way, or if it is not known yet which block that is.
func targetOf(ctx context.Context, ls ipld.LinkSystem, r Request) (target, bool) {
	if r.Selector == nil || selectors.Equal(r.Selector, nil) {
		return target{block: r.Root}, true
	}
	path := strings.Join(segments(r.Selector), "/")
	bytes, ok := rangeIn(r.Selector, path)
	if !ok {
		return target{}, false
	}
	t := target{span: bytes}
	ls.StorageReadOpener = noting(ls.StorageReadOpener, &t.way)
	var err error
	if t.block, err = selectors.Target(ctx, ls, r.Root, path); err != nil {
		return target{}, false
	}
	if t.span != nil {
		t.span, ok = t.span.within(ctx, ls, t.block)
	}
	return t, ok
}

// noting notes what is read.
func noting(open linking.BlockReadOpener, read *[]cid.Cid) linking.BlockReadOpener {
	return func(lc linking.LinkContext, l datamodel.Link) (r io.Reader, err error) {
		if r, err = open(lc, l); err == nil {
			*read = append(*read, l.(cidlink.Link).Cid) // a walk knows no others
		}
		return r, err
	}
}

// rangeIn tells which bytes of what is at path a selector wants, nil for
// everything, and false if the selector is no such thing.
func rangeIn(sel datamodel.Node, path string) (*span, bool) {
	if all, err := selectors.Path(path, selectors.ScopeAll); err == nil && selectors.Equal(all, sel) {
		return nil, true
	}
	if file, err := selectors.Path(path, selectors.ScopeEntity); err == nil && selectors.Equal(file, sel) {
		return &span{0, math.MaxInt64}, true
	}
	subset := find(sel, selector.SelectorKey_Subset)
	if subset == nil {
		return nil, false
	}
	from, err1 := intIn(subset, selector.SelectorKey_From)
	end, err2 := intIn(subset, selector.SelectorKey_To)
	if err1 != nil || err2 != nil {
		return nil, false
	}
	var to *int64
	if end != math.MaxInt64 {
		last := end - 1
		to = &last
	}
	same, err := selectors.EntityBytes(path, from, to)
	return &span{from, end}, err == nil && selectors.Equal(same, sel)
}

func intIn(n datamodel.Node, key string) (int64, error) {
	v, err := n.LookupByString(key)
	if err != nil {
		return 0, err
	}
	return v.AsInt()
}

// find returns the first value under a key anywhere in a selector, which was
// checked and so is not too deep; nil if there is none.
func find(n datamodel.Node, key string) datamodel.Node {
	switch n.Kind() {
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return nil
			}
			if name, _ := k.AsString(); name == key {
				return v
			}
			if found := find(v, key); found != nil {
				return found
			}
		}
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return nil
			}
			if found := find(v, key); found != nil {
				return found
			}
		}
	}
	return nil
}

// span is bytes of a file: from, included, to end. In a selector a negative
// number counts from the file's end.
type span struct{ from, end int64 }

// selector selects the blocks of s, of the file whose root is selected from.
func (s span) selector() datamodel.Node {
	last := s.end - 1
	sel, err := selectors.EntityBytes("", s.from, &last)
	if err != nil { // children makes no such span
		return selectors.All()
	}
	return sel
}

// within is s in numbers that count from the beginning of a file, and false if
// block is not held or no file in several blocks: what it is matters then.
func (s span) within(ctx context.Context, ls ipld.LinkSystem, block cid.Cid) (*span, bool) {
	sv := survey{ls: ls}
	raw, ok := sv.read(ctx, block)
	if !ok || block.Prefix().Codec != cid.DagProtobuf {
		return nil, false
	}
	node, err := sv.decode(block, raw)
	if err != nil {
		return nil, false
	}
	pb, ok := node.(dagpb.PBNode)
	if !ok || !pb.FieldData().Exists() {
		return nil, false
	}
	meta, err := data.DecodeUnixFSData(pb.FieldData().Must().Bytes())
	if err != nil || meta.FieldDataType().Int() != data.Data_File || !meta.FieldFileSize().Exists() {
		return nil, false
	}
	size := meta.FieldFileSize().Must().Int()
	if s.from < 0 {
		s.from = max(0, size+s.from)
	}
	if s.end < 0 {
		s.end = size + s.end
	}
	s.end = min(s.end, size)
	return &s, size >= 0 && s.from < s.end
}

// children returns the links of a file's block that lead to bytes of s, as far as
// the block says how long they are. What this leaves out is bought with the rest.
func (s span) children(pb dagpb.PBNode) (wanted []child) {
	var sizes data.BlockSizes
	if pb.FieldData().Exists() {
		if meta, err := data.DecodeUnixFSData(pb.FieldData().Must().Bytes()); err == nil {
			sizes = meta.FieldBlockSizes()
		}
	}
	at := int64(0)
	for it := pb.FieldLinks().Iterator(); !it.Done(); {
		index, link := it.Next()
		c := link.FieldHash().Link().(cidlink.Link).Cid
		size, known := childSize(link, c, sizes, index)
		if !known {
			return wanted
		}
		from, end := max(s.from-at, 0), min(s.end-at, size)
		at += size
		switch {
		case from >= end:
		case from == 0 && end == size:
			wanted = append(wanted, child{index: int(index), cid: c})
		default:
			wanted = append(wanted, child{int(index), c, &span{from, end}})
		}
	}
	return wanted
}

// childSize is how many bytes of the file are below a link.
func childSize(link dagpb.PBLink, c cid.Cid, sizes data.BlockSizes, index int64) (int64, bool) {
	size := int64(-1)
	switch {
	case c.Prefix().Codec == cid.Raw && link.FieldTsize().Exists():
		size = link.FieldTsize().Must().Int()
	case sizes != nil && index < sizes.Length():
		if n, err := sizes.LookupByIndex(index); err == nil {
			if size, err = n.AsInt(); err != nil {
				size = -1
			}
		}
	}
	return size, size >= 0 && size <= math.MaxInt64>>20 // no sum overflows
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
