package selectors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// TestEndless: directories and files of a few blocks that do not end.
func TestEndless(t *testing.T) {
	s := newStore()
	endless := s.endlessDir(t, 12)
	sel := must(Path("", ScopeEntity))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := Measure(ctx, s.linkSystem(), endless, sel, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("directory: %v", err)
	}
	ls := s.linkSystem()
	for name, reify := range ls.KnownReifiers {
		ls.KnownReifiers[name] = bounded(reify, 1000, 1000)
	}
	if _, err := Measure(context.Background(), ls, endless, sel, 0); !errors.Is(err, errEndless) {
		t.Errorf("directory with a bound: %v", err)
	}
	tr := newTree() // 303 parts to read, of which its root is given
	for _, c := range []struct {
		parts int64
		links uint64
	}{{302, 303}, {100, 101}} {
		ls := tr.linkSystem()
		ls.KnownReifiers["unixfs"] = bounded(ls.KnownReifiers["unixfs"], c.parts, 10)
		if got, err := Measure(context.Background(), ls, tr.big, sel, 0); err != nil || got.Links != c.links {
			t.Errorf("file with %d parts: %v, %v", c.parts, got, err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestPartsHavePaths: what is read to interpret a file is told apart by path, from
// the file, and from the rest of its parts.
func TestPartsHavePaths(t *testing.T) {
	s := newStore()
	file, _ := s.file(noise(1, 1000), 100)
	root, _ := s.dir(entry{name: "file", cid: file})
	ls := s.linkSystem()
	open, seen := ls.StorageReadOpener, map[string]cid.Cid{}
	ls.StorageReadOpener = func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		at := lc.LinkPath.String()
		if other, twice := seen[at]; twice {
			t.Errorf("%s and %s are both at %q", other, l, at)
		}
		seen[at] = l.(cidlink.Link).Cid
		return open(lc, l)
	}
	got, err := Measure(context.Background(), ls, root, must(Path("file", ScopeEntity)), 0)
	if err != nil || got.Blocks < 12 || uint64(len(seen)) != got.Links {
		t.Errorf("%d paths in %+v, %v", len(seen), got, err)
	}
}

// endlessDir stores a sharded directory of levels blocks and 256^levels entries.
func (s *store) endlessDir(t *testing.T, levels int) cid.Cid {
	t.Helper()
	ls := s.linkSystem()
	full, _ := s.sharded(256, s.names(2000)...)
	node := must(ls.Load(linking.LinkContext{}, cidlink.Link{Cid: full}, basicnode.Prototype.Any))
	data := must(node.LookupByString("Data"))
	links := must(node.LookupByString("Links")).Length()
	if links != 256 {
		t.Fatalf("%d children", links)
	}
	next := s.raw([]byte("entry"))
	proto := cidlink.LinkPrototype{Prefix: full.Prefix()}
	for level := range levels {
		n := must(qp.BuildMap(basicnode.Prototype.Any, 2, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "Data", qp.Node(data))
			qp.MapEntry(ma, "Links", qp.List(-1, func(la datamodel.ListAssembler) {
				for i := range links {
					name := fmt.Sprintf("%02X", i)
					if level == 0 {
						name += "entry"
					}
					qp.ListEntry(la, qp.Map(3, func(ma datamodel.MapAssembler) {
						qp.MapEntry(ma, "Hash", qp.Link(cidlink.Link{Cid: next}))
						qp.MapEntry(ma, "Name", qp.String(name))
						qp.MapEntry(ma, "Tsize", qp.Int(1))
					}))
				}
			}))
		}))
		next = must(ls.Store(linking.LinkContext{}, proto, n)).(cidlink.Link).Cid
	}
	return next
}

// names stores n small files.
func (s *store) names(n int) []entry {
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{fmt.Sprint(i), s.raw(fmt.Append(nil, i)), 1}
	}
	return entries
}

// TestReifiersOfOneMap: link systems that share a map of reifiers are taught at
// once, and the map that they came with stays as it is.
func TestReifiersOfOneMap(t *testing.T) {
	shared := cidlink.DefaultLinkSystem()
	shared.KnownReifiers = map[string]linking.NodeReifier{"other": nil}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			own := shared
			AddReifiers(&own)
			if _, has := own.KnownReifiers["other"]; !has || len(own.KnownReifiers) != 3 {
				t.Errorf("%d reifiers, want the other one and two of UnixFS", len(own.KnownReifiers))
			}
		})
	}
	all.Wait()
	if len(shared.KnownReifiers) != 1 {
		t.Errorf("the shared map was written to: %d reifiers", len(shared.KnownReifiers))
	}
}
