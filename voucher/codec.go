package voucher

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/schema"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
)

// ErrMalformed is wrapped by the error of every decoder: what came is not the
// message that it should be.
var ErrMalformed = errors.New("malformed message")

// What a peer may send at most.
const (
	// MaxEncoded is the length in bytes of the longest message that
	// UnmarshalNode and the decoders of queries read.
	MaxEncoded = 1 << 18
	// maxDepth is how deep maps and lists in it may nest. A field of a path
	// costs a selector three levels.
	maxDepth = 512
	// decodeBudget is how much memory a decoded message may take, roughly, in
	// the units of the dag-cbor decoder.
	decodeBudget = 8 * MaxEncoded
)

// DefaultSelector returns the selector of the whole DAG: explore all,
// recursively, without limit. It is what a null selector means. The node is
// immutable and shared.
func DefaultSelector() datamodel.Node { return selectorparse.CommonSelector_ExploreAllRecursively }

// MarshalNode returns n as DAG-CBOR: map keys in canonical order, typed nodes as
// their representation.
func MarshalNode(n datamodel.Node) ([]byte, error) {
	if n == nil {
		return nil, errors.New("encode message: there is no node")
	}
	var b bytes.Buffer
	if err := dagcbor.Encode(plain(n), &b); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return b.Bytes(), nil
}

// UnmarshalNode reads exactly one DAG-CBOR item of at most MaxEncoded bytes that
// nests at most 512 deep. Map keys may come in any order. The error wraps
// ErrMalformed.
func UnmarshalNode(b []byte) (datamodel.Node, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("%d bytes, %d at most: %w", len(b), MaxEncoded, ErrMalformed)
	}
	decode := dagcbor.DecodeOptions{
		AllowLinks: true, AllocationBudget: decodeBudget, MaxCollectionPrealloc: 16, MaxDepth: maxDepth,
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := decode.Decode(nb, bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrMalformed)
	}
	return nb.Build(), nil
}

// plain returns n as it is on the wire.
func plain(n datamodel.Node) datamodel.Node {
	if typed, ok := n.(schema.TypedNode); ok {
		return typed.Representation()
	}
	return n
}

// entry is one named value of a record.
type entry struct {
	key   string
	value datamodel.Node
}

// mapNode returns the map of es in canonical order: shorter keys first, then
// bytewise.
func mapNode(es []entry) (datamodel.Node, error) {
	es = slices.Clone(es)
	slices.SortFunc(es, func(a, b entry) int {
		return cmp.Or(cmp.Compare(len(a.key), len(b.key)), cmp.Compare(a.key, b.key))
	})
	nb := basicnode.Prototype.Map.NewBuilder()
	ma, err := nb.BeginMap(int64(len(es)))
	if err != nil {
		return nil, err
	}
	for _, e := range es {
		va, err := ma.AssembleEntry(e.key)
		if err != nil {
			return nil, err
		}
		if err := va.AssignNode(e.value); err != nil {
			return nil, err
		}
	}
	if err := ma.Finish(); err != nil {
		return nil, err
	}
	return nb.Build(), nil
}

// listNode returns the list of ns.
func listNode(ns []datamodel.Node) (datamodel.Node, error) {
	nb := basicnode.Prototype.List.NewBuilder()
	la, err := nb.BeginList(int64(len(ns)))
	if err != nil {
		return nil, err
	}
	for _, n := range ns {
		if err := la.AssembleValue().AssignNode(n); err != nil {
			return nil, err
		}
	}
	if err := la.Finish(); err != nil {
		return nil, err
	}
	return nb.Build(), nil
}
