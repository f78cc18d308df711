package selectors

import (
	"bytes"
	"fmt"
	"math"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
)

// maxCanonicalBytes is the longest selector that Canonical encodes. It is far
// above what Check lets through; it only keeps a hostile node from costing
// more than a glance.
const maxCanonicalBytes = 1 << 20

// All returns the selector of the whole DAG: every node is explored, every link
// is followed, without a limit in depth. It is what the rest of the network
// sends for "everything", to the byte:
// a16152a2616ca1646e6f6e65a0623a3ea16161a1613ea16140a0 in dag-cbor.
func All() datamodel.Node { return selectorparse.CommonSelector_ExploreAllRecursively }

// Depth returns the selector of everything within limit steps of the root's own
// node. A step goes down by one map key or one list index; following the link
// found there is part of the same step. Depth(0) is the root block alone.
// Depth(1) adds the blocks that the root node holds links to as its direct
// entries. A dag-pb node keeps its links three steps down (Links, an index,
// Hash), so each level of a UnixFS DAG takes three: Depth(3) is the root block
// and its children, Depth(6) their children too.
//
// Check refuses depths beyond Limits.MaxRecursionDepth.
func Depth(limit uint64) datamodel.Node {
	// The number in a selector counts the root's own node as well.
	depth := int64(min(limit, math.MaxInt64-1)) + 1
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return ssb.ExploreRecursive(selector.RecursionLimitDepth(depth),
		ssb.ExploreAll(ssb.ExploreRecursiveEdge())).Node()
}

// orAll returns sel, or All where there is none.
func orAll(sel datamodel.Node) datamodel.Node {
	if sel == nil || sel.IsNull() || sel.IsAbsent() {
		return All()
	}
	return sel
}

// Canonical returns the canonical dag-cbor encoding of sel: map keys sorted,
// shortest numbers. Two selectors select the same if these bytes are the same.
// Selectors above 1 MiB or nested more than 1,000 deep are an error.
func Canonical(sel datamodel.Node) ([]byte, error) {
	sel = orAll(sel)
	w := weigher{maxNodes: maxCanonicalBytes, maxBytes: maxCanonicalBytes, maxNest: maxNest}
	if err := w.weigh(sel, 0); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(sel, &buf); err != nil {
		return nil, fmt.Errorf("encode selector: %w", err)
	}
	return buf.Bytes(), nil
}

// Equal reports whether a and b are the same selector in canonical form. It is
// false if either of them has none. Selectors that are written differently but
// would select the same blocks are not equal.
func Equal(a, b datamodel.Node) bool {
	ca, err := Canonical(a)
	if err != nil {
		return false
	}
	cb, err := Canonical(b)
	return err == nil && bytes.Equal(ca, cb)
}
