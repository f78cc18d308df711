package selectors

import (
	"errors"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// TestWalkAsks: a walk that is fed asks for the blocks that a plain traversal
// reads, in that order, repeats included, whatever the selection; and one that is
// fed by the answers to another asks the same.
func TestWalkAsks(t *testing.T) {
	s := newTree()
	ls := s.linkSystem()
	AddReifiers(&ls)
	twice, _ := s.dir(entry{"a", s.root, 1}, entry{"b", s.root, 1})
	for name, sel := range map[string]datamodel.Node{"all": nil, "one": Depth(0), "some": Depth(3), "more": Depth(6)} {
		_, want, err := plain(ls, twice, orAll(sel))
		if err != nil {
			t.Fatal(err)
		}
		var sent [][]byte
		var asked []cid.Cid
		err = Walk(t.Context(), ls, twice, sel, 0, func(c cid.Cid) ([]byte, error) {
			asked, sent = append(asked, c), append(sent, s.blocks[c])
			return s.blocks[c], nil
		})
		if err != nil || !slices.Equal(asked, want) {
			t.Errorf("%s: %v\nasked %v\n want %v", name, err, asked, want)
		}
		empty := newStore().linkSystem()
		AddReifiers(&empty)
		at := 0
		err = Walk(t.Context(), empty, twice, sel, 0, func(c cid.Cid) ([]byte, error) {
			if !c.Equals(asked[at]) {
				t.Fatalf("%s: block %d is %s at one side, %s at the other", name, at, asked[at], c)
			}
			at++
			return sent[at-1], nil
		})
		if err != nil || at != len(sent) {
			t.Errorf("%s: %d of %d blocks, %v", name, at, len(sent), err)
		}
	}
}

// TestWalkEnds: an error of the feed, too many links and a cancelled context end
// the walk.
func TestWalkEnds(t *testing.T) {
	s := newTree()
	feed := func(c cid.Cid) ([]byte, error) { return s.blocks[c], nil }
	wrong := errors.New("wrong")
	for after := range 4 {
		n := 0
		err := Walk(t.Context(), s.linkSystem(), s.root, nil, 0, func(c cid.Cid) ([]byte, error) {
			if n++; n > after {
				return nil, wrong
			}
			return feed(c)
		})
		if !errors.Is(err, wrong) || n != after+1 {
			t.Errorf("after %d blocks: %v, asked %d times", after, err, n)
		}
	}
	if err := Walk(t.Context(), s.linkSystem(), s.root, nil, 3, feed); !errors.Is(err, ErrTooManyLinks) {
		t.Errorf("three links: %v", err)
	}
	garbage := func(cid.Cid) ([]byte, error) { return []byte{0xff, 0xff}, nil }
	if err := Walk(t.Context(), s.linkSystem(), s.root, nil, 0, garbage); err == nil {
		t.Error("a block that is no node was walked over")
	}
}
