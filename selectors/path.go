package selectors

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
)

// Scope says how much of what a path leads to is selected. The words and their
// meaning are those of the trustless gateways (dag-scope). The zero Scope is
// ScopeAll.
type Scope uint8

const (
	ScopeAll    Scope = iota // the target and everything below it
	ScopeEntity              // a whole file, or a directory's own blocks (all its shards) without its entries
	ScopeBlock               // the target's own block
)

var scopeNames = [...]string{ScopeAll: "all", ScopeEntity: "entity", ScopeBlock: "block"}

// String returns the word that ParseScope reads.
func (s Scope) String() string {
	if int(s) < len(scopeNames) {
		return scopeNames[s]
	}
	return fmt.Sprintf("scope(%d)", uint8(s))
}

// ParseScope reads "all", "entity" or "block"; "" is ScopeAll.
func ParseScope(s string) (Scope, error) {
	if s == "" {
		return ScopeAll, nil
	}
	for i, name := range scopeNames {
		if s == name {
			return Scope(i), nil
		}
	}
	return 0, fmt.Errorf("scope %q is not known: use all, entity or block", s)
}

// Path returns the one canonical selector for what path leads to from a root,
// within scope. The path is a UnixFS path (it crosses directory shards), or a
// path of keys and indices where the data is not UnixFS; surplus slashes are
// ignored and "" is the root itself. The blocks on the way to the target are
// part of the selection: they prove that the target is what the path leads to.
//
// A path that leads nowhere selects the blocks up to where it ends: nobody can
// know before they are read.
//
// The selectors are, to the byte, those that trustless-gateway clients send
// over graphsync. Path("", ScopeAll) is All().
func Path(path string, scope Scope) (datamodel.Node, error) {
	var target builder.SelectorSpec
	switch scope {
	case ScopeAll:
		target = unixfsnode.ExploreAllRecursivelySelector
	case ScopeEntity:
		target = unixfsnode.MatchUnixFSEntitySelector
	case ScopeBlock:
		target = builder.NewSelectorSpecBuilder(basicnode.Prototype.Any).Matcher()
	default:
		return nil, fmt.Errorf("scope %d is not known: use ScopeAll, ScopeEntity or ScopeBlock", scope)
	}
	return pathTo(path, target)
}

// EntityBytes returns the selector of the bytes from `from` to `*to`, both
// included and counted from 0, of the file that path leads to: the blocks that
// hold those bytes, and the ones on the way. Negative numbers count from the
// file's end, -1 being its last byte; a nil to is the last byte. Numbers beyond
// the file's end are cut off there. What is not a file is selected as with
// ScopeEntity.
//
// A range that ends before it begins is an error where that can be told without
// the file's size. EntityBytes(path, 0, nil) is Path(path, ScopeEntity).
func EntityBytes(path string, from int64, to *int64) (datamodel.Node, error) {
	if from == 0 && to == nil {
		return Path(path, ScopeEntity)
	}
	end := int64(math.MaxInt64) // exclusive, in the terms of a selector
	if to != nil {
		if sameSign := (from < 0) == (*to < 0); sameSign && from > *to {
			return nil, fmt.Errorf("byte range %d:%d ends before it begins", from, *to)
		}
		if *to != -1 && *to != math.MaxInt64 {
			end = *to + 1
		}
	}
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	return pathTo(path, ssb.ExploreInterpretAs("unixfs", ssb.ExploreUnion(
		ssb.MatcherSubset(from, end),
		ssb.ExploreRecursive(selector.RecursionLimitDepth(1), ssb.ExploreAll(ssb.ExploreRecursiveEdge())),
	)))
}

// pathTo returns the selector that applies target where path leads to.
func pathTo(path string, target builder.SelectorSpec) (datamodel.Node, error) {
	if !utf8.ValidString(path) {
		return nil, fmt.Errorf("path %q is not UTF-8", path)
	}
	n := 0
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "." || seg == ".." {
			return nil, fmt.Errorf("path %q: %q names nothing inside a DAG: write the path from the root", path, seg)
		}
		if seg != "" {
			n++
		}
	}
	if n > DefaultMaxPathSegments {
		return nil, tooLong(n, DefaultMaxPathSegments)
	}
	sel := unixfsnode.UnixFSPathSelectorBuilder(path, target, false)
	if err := Check(sel, Limits{}); err != nil {
		return nil, fmt.Errorf("path of %d bytes: %w", len(path), err)
	}
	return sel, nil
}
