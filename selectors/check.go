package selectors

import (
	"errors"
	"fmt"

	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/traversal/selector"
)

// What a zero Limits allows.
const (
	// DefaultMaxRecursionDepth is deeper than any DAG that people keep.
	DefaultMaxRecursionDepth = 1024
	// DefaultMaxSelectorBytes fits a path of DefaultMaxPathSegments long names.
	DefaultMaxSelectorBytes = 64 << 10
	// DefaultMaxNodes fits a path of DefaultMaxPathSegments names twice.
	DefaultMaxNodes = 2048
	// DefaultMaxPathSegments is near the longest path that fits into a message:
	// the network's decoders stop at 1,024 nested maps and a segment takes five.
	DefaultMaxPathSegments = 128
)

// maxNest is how deeply maps and lists may be nested in a selector.
const maxNest = 1000

// ErrRefused is in every error of Check and ParseJSON: the selector, not the
// data or the store, is at fault.
var ErrRefused = errors.New("selector refused")

// Limits bound the selectors that Check lets through. A zero field means its
// default.
type Limits struct {
	// MaxRecursionDepth is the largest depth of a recursion, in steps. Only the
	// shapes that explore everything (with or without matching it) may recurse
	// without a depth, whatever the number here is: their cost is the DAG's.
	MaxRecursionDepth int64
	// MaxSelectorBytes bounds the canonical dag-cbor encoding.
	MaxSelectorBytes int
	// MaxNodes bounds the data-model nodes of the selector, each index of an
	// ExploreRange counted as one.
	MaxNodes int
	// MaxPathSegments bounds the steps (keys, indices) that can follow each
	// other in the selector before a recursion.
	MaxPathSegments int
}

// orDefaults returns l with its zero fields filled.
func (l Limits) orDefaults() Limits {
	fill := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	if l.MaxRecursionDepth <= 0 {
		l.MaxRecursionDepth = DefaultMaxRecursionDepth
	}
	fill(&l.MaxSelectorBytes, DefaultMaxSelectorBytes)
	fill(&l.MaxNodes, DefaultMaxNodes)
	fill(&l.MaxPathSegments, DefaultMaxPathSegments)
	return l
}

// Check decides whether sel may be worked on. It is for the gate: sel may be
// any node that a decoder made of a peer's bytes. It takes time proportional to
// the limits, not to sel. An error wraps ErrRefused and names the rule.
//
// The rules are: sel is a selector that compiles; it is within the limits; it
// interprets data as nothing but UnixFS; a recursion takes at least one step per
// turn; and the members of a union do not explore the same step twice. The last
// rule is what keeps a walk linear: with it every node of a DAG is visited at
// most once per path that leads to it, without it a selector of a few hundred
// bytes doubles the work at every level.
//
// A nil sel passes: it means All.
func Check(sel datamodel.Node, l Limits) error {
	sel = orAll(sel)
	l = l.orDefaults()
	w := weigher{maxNodes: l.MaxNodes, maxBytes: l.MaxSelectorBytes, maxNest: maxNest}
	if err := w.weigh(sel, 0); err != nil {
		return err
	}
	c := checker{limits: l, spare: l.MaxNodes - w.nodes}
	if err := c.check(sel, place{}); err != nil {
		return err
	}
	if _, err := selector.CompileSelector(sel); err != nil {
		return refuse("%w", err)
	}
	return nil
}

// refuse returns an error that wraps ErrRefused.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

func tooLong(n, limit int) error {
	return refuse("path of %d segments, at most %d are allowed: start from a CID further down", n, limit)
}

// weigher measures a node and stops at the first limit that it breaks.
type weigher struct {
	maxNodes, maxBytes, maxNest int // limits
	nodes, bytes                int // so far
}

// add counts one node or map key whose own encoding takes n bytes.
func (w *weigher) add(n int) error {
	w.bytes += n
	if w.bytes > w.maxBytes || w.bytes < 0 {
		return refuse("more than %d bytes", w.maxBytes)
	}
	return nil
}

// weigh adds n and everything in it, found nest maps and lists deep.
func (w *weigher) weigh(n datamodel.Node, nest int) error {
	if w.nodes++; w.nodes > w.maxNodes {
		return refuse("more than %d nodes", w.maxNodes)
	}
	if nest > w.maxNest {
		return refuse("nested more than %d deep", w.maxNest)
	}
	if n == nil {
		return refuse("a node is missing in it")
	}
	switch n.Kind() {
	case datamodel.Kind_Map:
		return w.weighMap(n, nest)
	case datamodel.Kind_List:
		return w.weighList(n, nest)
	default:
		return w.weighScalar(n)
	}
}

func (w *weigher) weighMap(n datamodel.Node, nest int) error {
	if err := w.add(header(uint64(max(n.Length(), 0)))); err != nil {
		return err
	}
	for it := n.MapIterator(); !it.Done(); {
		k, v, err := it.Next()
		if err != nil {
			return refuse("read map: %w", err)
		}
		if err := w.weighScalar(k); err != nil {
			return err
		}
		if err := w.weigh(v, nest+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *weigher) weighList(n datamodel.Node, nest int) error {
	if err := w.add(header(uint64(max(n.Length(), 0)))); err != nil {
		return err
	}
	for it := n.ListIterator(); !it.Done(); {
		_, v, err := it.Next()
		if err != nil {
			return refuse("read list: %w", err)
		}
		if err := w.weigh(v, nest+1); err != nil {
			return err
		}
	}
	return nil
}

// weighScalar adds a node that holds no others.
func (w *weigher) weighScalar(n datamodel.Node) error {
	size, err := scalarSize(n)
	if err != nil {
		return refuse("read %s: %w", n.Kind(), err)
	}
	return w.add(size)
}

// scalarSize returns the length of n's dag-cbor encoding.
func scalarSize(n datamodel.Node) (int, error) {
	switch n.Kind() {
	case datamodel.Kind_String:
		s, err := n.AsString()
		return header(uint64(len(s))) + len(s), err
	case datamodel.Kind_Bytes:
		b, err := n.AsBytes()
		return header(uint64(len(b))) + len(b), err
	case datamodel.Kind_Link:
		l, err := n.AsLink()
		if err != nil {
			return 0, err
		}
		size := len(l.Binary()) + 1 // a link is tag 42 around 0x00 and the CID
		return 2 + header(uint64(size)) + size, nil
	case datamodel.Kind_Int:
		i, err := n.AsInt()
		if i < 0 {
			i = -1 - i
		}
		return header(uint64(i)), err
	case datamodel.Kind_Bool, datamodel.Kind_Null:
		return 1, nil
	default:
		return 0, errors.New("no part of a selector is of that kind")
	}
}

// header returns how many bytes dag-cbor takes for a number, or for the length
// of what follows it.
func header(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	case n < 1<<32:
		return 5
	default:
		return 9
	}
}
