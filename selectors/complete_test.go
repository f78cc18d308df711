package selectors

import (
	"context"
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// TestComplete takes each block of a DAG away in turn.
func TestComplete(t *testing.T) {
	s := newStore()
	f, size := s.file(noise(3, 5000), 1000)
	sub, subSize := s.sharded(16, entry{"a", s.raw([]byte("A")), 1}, entry{"b", f, size}, entry{"c", s.list(), 1})
	root, _ := s.dir(entry{"sub", sub, subSize}, entry{"z", f, size})
	for _, sel := range []datamodel.Node{
		nil, must(Path("sub/b", ScopeEntity)), must(Path("sub", ScopeEntity)), must(EntityBytes("z", 1500, ptr(2500))),
	} {
		full := s.threeWays(t, root, orAll(sel))
		done, c, err := Complete(context.Background(), s.linkSystem(), root, sel, 0)
		if !done || err != nil {
			t.Fatalf("%v, %v", done, err)
		}
		wantCount(t, c, full)
		for gone, data := range s.blocks {
			delete(s.blocks, gone)
			for _, size := range []Sizer{nil, s.size} {
				done, c, err := CompleteWith(context.Background(), s.linkSystem(), root, sel, 0, size)
				clear(s.reads)
				_, _ = Measure(context.Background(), s.linkSystem(), root, sel, 0)
				if needed := s.reads[gone] > 0; err != nil || done == needed {
					t.Fatalf("without %s: done %v, %v", gone, done, err)
				}
				if !done && (c.Links >= full.Links || c.Bytes >= full.Bytes || len(c.Missing) != 1 || c.Missing[0] != gone) {
					t.Fatalf("without %s: %v of %v", gone, c, full)
				}
			}
			s.blocks[gone] = data
		}
	}
}

// TestCompleteSkip: the links of an incomplete store are what may be skipped.
func TestCompleteSkip(t *testing.T) {
	s := newStore()
	a, b, c := s.raw([]byte("a")), s.raw([]byte("b")), s.raw([]byte("c"))
	root := s.list(a, a, s.list(b, a), c)
	delete(s.blocks, c)
	done, got, err := Complete(context.Background(), s.linkSystem(), root, nil, 0)
	if done || err != nil || got.Links != 6 || got.Blocks != 4 {
		t.Fatalf("%v, %v, %v", done, got, err)
	}
	delete(s.blocks, root)
	done, got, err = Complete(context.Background(), s.linkSystem(), root, nil, 0)
	if done || err != nil || got.Links != 0 || got.Blocks != 0 {
		t.Fatalf("nothing held: %v, %v, %v", done, got, err)
	}
}

// TestTarget resolves paths through directories, shards and dag-cbor.
func TestTarget(t *testing.T) {
	s := newTree()
	leaf := s.raw([]byte("leaf"))
	record := s.put(must(qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "in", qp.Map(-1, func(ma datamodel.MapAssembler) { qp.MapEntry(ma, "to", qp.Link(cidlink.Link{Cid: leaf})) }))
		qp.MapEntry(ma, "n", qp.Int(1))
	})))
	lost := newTree()
	delete(lost.blocks, lost.big)
	for _, c := range []struct {
		s    *store
		root cid.Cid
		path string
		want cid.Cid
		err  error
	}{
		{s.store, s.root, "", s.root, nil},
		{s.store, s.root, "dir/big", s.big, nil},
		{s.store, s.root, "many", s.many, nil},
		{s.store, s.root, "many/name 4321", s.raw([]byte("content 4321")), nil},
		{s.store, s.root, "many/name 5000", cid.Undef, ErrNoPath},
		{s.store, s.root, "small/x", cid.Undef, ErrNoPath},
		{s.store, s.root, "dir/../dir", cid.Undef, nil},
		{s.store, record, "in", record, nil},
		{s.store, record, "n", record, nil},
		{s.store, record, "in/to", leaf, nil},
		{s.store, record, "in/from", cid.Undef, ErrNoPath},
		{lost.store, lost.root, "dir/big", cid.Undef, ErrNotFound},
	} {
		got, err := Target(context.Background(), c.s.linkSystem(), c.root, c.path)
		if got != c.want || (err == nil) != c.want.Defined() || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%q: %s, %v, want %s, %v", c.path, got, err, c.want, c.err)
		}
	}
}
