package selectors

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"pgregory.net/rapid"
)

// drawSelector draws a selector, or what is nearly one, from few names so that
// its parts meet.
func drawSelector(t *rapid.T, depth int, recursing bool) datamodel.Node {
	kinds := []string{"."}
	if recursing {
		kinds = append(kinds, "@", "@")
	}
	if depth > 0 {
		kinds = append(kinds, "a", "f", "i", "r", "|", "|", "R", "~")
	}
	body := func(fill func(datamodel.MapAssembler)) datamodel.Node {
		return must(qp.BuildMap(basicnode.Prototype.Any, -1, fill))
	}
	next := func(ma datamodel.MapAssembler) { qp.MapEntry(ma, ">", qp.Node(drawSelector(t, depth-1, recursing))) }
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "a":
		return single("a", body(next))
	case "f":
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "0", "1"}), 1, 2, rapid.ID).Draw(t, "names")
		return single("f", single("f>", body(func(ma datamodel.MapAssembler) {
			for _, name := range names {
				qp.MapEntry(ma, name, qp.Node(drawSelector(t, depth-1, recursing)))
			}
		})))
	case "i":
		return single("i", body(func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "i", qp.Int(rapid.Int64Range(0, 1).Draw(t, "index")))
			next(ma)
		}))
	case "r":
		return single("r", body(func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "^", qp.Int(rapid.Int64Range(0, 1).Draw(t, "start")))
			qp.MapEntry(ma, "$", qp.Int(rapid.Int64Range(1, 3).Draw(t, "end")))
			next(ma)
		}))
	case "|":
		return single("|", must(qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
			for range rapid.IntRange(1, 3).Draw(t, "members") {
				qp.ListEntry(la, qp.Node(drawSelector(t, depth-1, recursing)))
			}
		})))
	case "R":
		return single("R", body(func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "l", qp.Node(single("depth", basicnode.NewInt(rapid.Int64Range(0, 40).Draw(t, "depth")))))
			qp.MapEntry(ma, ":>", qp.Node(drawSelector(t, depth-1, true)))
		}))
	case "~":
		return single("~", body(func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "as", qp.String("unixfs"))
			next(ma)
		}))
	default:
		return single(kind, body(func(datamodel.MapAssembler) {}))
	}
}

// drawData draws a value that is deep rather than wide.
func drawData(t *rapid.T, depth int) datamodel.Node {
	if depth == 0 {
		return basicnode.NewInt(7)
	}
	deep, flat := drawData(t, depth-1), basicnode.NewString("x")
	switch rapid.IntRange(0, 2).Draw(t, "shape") {
	case 0:
		return single("a", deep)
	case 1:
		return must(qp.BuildList(basicnode.Prototype.Any, 2, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Node(deep))
			qp.ListEntry(la, qp.Node(flat))
		}))
	default:
		return must(qp.BuildMap(basicnode.Prototype.Any, 2, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "a", qp.Node(flat))
			qp.MapEntry(ma, "b", qp.Node(deep))
		}))
	}
}

// TestLawCheck: a selector that passes Check visits no path twice, and does not
// panic. That is what bounds the work of a walk by the size of what it walks.
func TestLawCheck(t *testing.T) {
	passed := 0
	ls := newStore().linkSystem()
	rapid.Check(t, func(t *rapid.T) {
		data := drawData(t, 8)
		for range 40 {
			sel := drawSelector(t, 4, false)
			if Check(sel, Limits{}) == nil {
				passed++
				visitsOnce(t, ls, data, sel)
			}
		}
	})
	if passed < 100 {
		t.Fatalf("%d selectors passed: too few to show anything", passed)
	}
}

// visitsOnce walks data and fails if a path is visited twice.
func visitsOnce(t *rapid.T, ls ipld.LinkSystem, data, sel datamodel.Node) {
	seen := map[string]bool{}
	err := traversal.Progress{Cfg: &traversal.Config{LinkSystem: ls}}.WalkAdv(data, must(selector.CompileSelector(sel)),
		func(p traversal.Progress, _ datamodel.Node, _ traversal.VisitReason) error {
			if path := p.Path.String(); seen[path] {
				t.Fatalf("%q was visited twice", path)
			} else {
				seen[path] = true
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
}

// drawDAG stores a DAG with files, directories, shards, dag-cbor and shared
// parts, and returns its root.
func drawDAG(t *rapid.T, s *store) cid.Cid {
	parts := []entry{{"x", s.raw(noise(9, 10)), 10}}
	pick := func() entry { return parts[rapid.IntRange(0, len(parts)-1).Draw(t, "part")] }
	named := func() []entry {
		n := rapid.IntRange(1, 20).Draw(t, "entries")
		entries := make([]entry, n)
		for i := range entries {
			entries[i] = pick()
			entries[i].name = fmt.Sprint("n", i)
		}
		return entries
	}
	for range rapid.IntRange(1, 8).Draw(t, "parts") {
		var e entry
		switch rapid.IntRange(-1, 4).Draw(t, "kind") {
		case -1, 0:
			n := rapid.IntRange(0, 400).Draw(t, "size")
			e.cid, e.size = s.file(noise(uint64(n), n), rapid.SampledFrom([]int{2, 20, 100}).Draw(t, "chunk"))
		case 1:
			e.cid, e.size = s.dir(named()...)
		case 2:
			e.cid, e.size = s.sharded(8, named()...)
		case 3:
			e.cid = s.list(pick().cid, pick().cid)
		case 4:
			e.cid = s.raw(noise(5, rapid.IntRange(0, 50).Draw(t, "raw")))
		}
		parts = append(parts, e)
	}
	return parts[len(parts)-1].cid
}

// drawSelection draws one of the selections that people make.
func drawSelection(t *rapid.T) datamodel.Node {
	path := ""
	for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "names") {
		path += fmt.Sprintf("/n%d", rapid.IntRange(0, 4).Draw(t, "name"))
	}
	switch rapid.IntRange(0, 3).Draw(t, "selection") {
	case 0:
		return Depth(rapid.Uint64Range(0, 8).Draw(t, "depth"))
	case 1:
		from := rapid.Int64Range(-500, 500).Draw(t, "from")
		to := from + rapid.Int64Range(0, 300).Draw(t, "length")
		return must(EntityBytes(path, from, &to))
	case 2:
		return json(`{"~":{"as":"unixfs-preload",">":{".":{}}}}`)
	default:
		return must(Path(path, Scope(rapid.IntRange(0, 2).Draw(t, "scope"))))
	}
}

// TestLawMeasure: on any DAG, whole or with holes, Measure, MeasureWith and the
// plain count agree; Complete says yes exactly if nothing is missing, and else
// stops at the first link that is.
func TestLawMeasure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStore()
		root, sel := drawDAG(t, s), drawSelection(t)
		cids := make([]cid.Cid, 0, len(s.blocks))
		for c := range s.blocks {
			cids = append(cids, c)
		}
		slices.SortFunc(cids, func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
		for range rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "holes") {
			delete(s.blocks, cids[rapid.IntRange(0, len(cids)-1).Draw(t, "hole")])
		}
		s.threeWays(t, root, sel)

		_, asked, _ := plain(s.linkSystem(), root, sel)
		hole := slices.IndexFunc(asked, func(c cid.Cid) bool { _, ok := s.blocks[c]; return !ok })
		done, c, err := CompleteWith(context.Background(), s.linkSystem(), root, sel, 0, s.size)
		if err != nil || done != (hole < 0) || !done && c.Links != uint64(hole) {
			t.Fatalf("complete: %v with %d links, %v; the first hole is %d", done, c.Links, err, hole)
		}
	})
}

// TestLawLimit: a walk never reads more than its budget, whatever it ends with.
func TestLawLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStore()
		root, sel := drawDAG(t, s), drawSelection(t)
		limit := rapid.Uint64Range(1, 30).Draw(t, "limit")
		ls, reads := s.linkSystem(), uint64(0)
		read := ls.StorageReadOpener
		ls.StorageReadOpener = func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
			if reads++; reads > limit {
				t.Fatalf("read %d, %s, of %d", reads, l.(cidlink.Link), limit)
			}
			return read(lc, l)
		}
		full := must(Measure(context.Background(), s.linkSystem(), root, sel, 0))
		c, err := Measure(context.Background(), ls, root, sel, limit)
		if within := full.Links <= limit && limit > 1; within != (err == nil) || err == nil && c.Links != full.Links {
			t.Fatalf("limit %d: %d links of %d, %v", limit, c.Links, full.Links, err)
		}
	})
}
