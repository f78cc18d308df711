package selectors

import (
	"fmt"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/traversal/selector"
)

// maxStandIn is the largest leaf that zeros stand in for; larger blocks than
// this do not pass over the network, and are read.
const maxStandIn = 4 << 20

// blank is what zeros hands out. Nobody writes to it: nodes are immutable.
var blank [maxStandIn]byte

// zeros returns n zero bytes that must not be written to.
func zeros(n int) []byte { return blank[:n:n] }

// hasSlice reports whether a matcher anywhere in sel, which passed Check, asks
// for a part of what it matches. A key of that name elsewhere only costs time.
func hasSlice(sel datamodel.Node) bool {
	switch sel.Kind() {
	case datamodel.Kind_Map:
		for it := sel.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return true
			}
			if key, err := k.AsString(); err != nil || key == selector.SelectorKey_Subset || hasSlice(v) {
				return true
			}
		}
	case datamodel.Kind_List:
		for it := sel.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil || hasSlice(v) {
				return true
			}
		}
	}
	return false
}

// verify checks data against the hash in link. A link whose hash is malformed
// makes the library panic; run turns that into an error.
func verify(ls ipld.LinkSystem, link cidlink.Link, data []byte) error {
	hasher, err := ls.HasherChooser(link.Prototype())
	if err != nil {
		return fmt.Errorf("verify block %s: %w", link, err)
	}
	if _, err := hasher.Write(data); err != nil {
		return fmt.Errorf("verify block %s: %w", link, err)
	}
	got := link.Prototype().BuildLink(hasher.Sum(nil))
	if got.Binary() != link.Binary() {
		return linking.ErrHashMismatch{Actual: got, Expected: link}
	}
	return nil
}
