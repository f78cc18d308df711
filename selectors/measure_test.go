package selectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	"github.com/multiformats/go-multihash"
)

// tree is a UnixFS tree that has one of everything:
//
//	/small        one raw block
//	/dir/big      file of 300 chunks of 1,000 bytes in two levels
//	/dir/twice    the same file again
//	/many/        sharded, 5,000 entries, "name 0" to "name 4999", each its own raw block
//	/empty        an empty file
type tree struct {
	*store
	root, big, many cid.Cid
}

func newTree() tree {
	s := newStore()
	big, bigSize := s.file(noise(1, 300_000), 1000)
	dir, dirSize := s.dir(entry{"big", big, bigSize}, entry{"twice", big, bigSize})
	entries := make([]entry, 5000)
	for i := range entries {
		data := fmt.Appendf(nil, "content %d", i)
		entries[i] = entry{fmt.Sprint("name ", i), s.raw(data), uint64(len(data))}
	}
	many, manySize := s.sharded(256, entries...)
	small, empty := s.raw(noise(2, 5000)), s.raw([]byte{})
	root, _ := s.dir(entry{"dir", dir, dirSize}, entry{"empty", empty, 0}, entry{"many", many, manySize}, entry{"small", small, 5000})
	return tree{s, root, big, many}
}

// TestMeasureTree counts selections of a UnixFS tree, each three ways: plainly,
// by reading everything, and with sizes.
func TestMeasureTree(t *testing.T) {
	s := newTree()
	fileBlocks, shards := s.below(s.big), s.below(s.many)-5000
	if fileBlocks != 303 || shards < 50 { // 300 leaves, two nodes of 174 and 126, one root
		t.Fatalf("%d file blocks and %d shards: the fixture is not what it should be", fileBlocks, shards)
	}
	for _, c := range []struct {
		name   string
		sel    datamodel.Node
		blocks uint64
	}{
		{"all", All(), uint64(len(s.blocks))},
		{"root block", must(Path("", ScopeBlock)), 1},
		{"root entity", must(Path("", ScopeEntity)), 1},
		{"small", must(Path("small", ScopeAll)), 2},
		{"small entity", must(Path("small", ScopeEntity)), 2},
		{"empty", must(Path("empty", ScopeEntity)), 2},
		{"dir", must(Path("dir", ScopeAll)), 2 + fileBlocks},
		{"dir entity", must(Path("dir", ScopeEntity)), 2},
		{"file", must(Path("dir/big", ScopeAll)), 2 + fileBlocks},
		{"file entity", must(Path("dir/big", ScopeEntity)), 2 + fileBlocks},
		{"file block", must(Path("dir/twice", ScopeBlock)), 3},
		{"file's first byte", must(EntityBytes("dir/big", 0, ptr(0))), 2 + 3},
		{"file's last byte", must(EntityBytes("dir/big", -1, nil)), 2 + 3},
		{"over a leaf's edge", must(EntityBytes("dir/big", 999, ptr(1000))), 2 + 4},
		{"over a node's edge", must(EntityBytes("dir/big", 173_999, ptr(174_000))), 2 + 5},
		{"ten leaves", must(EntityBytes("dir/big", 10_000, ptr(19_999))), 2 + 12},
		{"leaves from the end", must(EntityBytes("dir/big", -2500, ptr(-1501))), 2 + 4},
		{"beyond the end", must(EntityBytes("dir/big", 299_500, ptr(1<<40))), 2 + 3},
		{"range of a directory", must(EntityBytes("dir", 5, ptr(6))), 2},
		{"shards", must(Path("many", ScopeEntity)), 1 + shards},
		{"sharded directory", must(Path("many", ScopeAll)), 1 + shards + 5000},
		{"nothing there", must(Path("dir/none", ScopeAll)), 2},
		{"nothing in shards", must(Path("many/none", ScopeBlock)), 0}, // two or three: how deep the name's shard is
		{"a file is no directory", must(Path("small/x", ScopeAll)), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.threeWays(t, s.root, c.sel)
			if c.blocks != 0 && got.Blocks != c.blocks || len(got.Missing) > 0 {
				t.Errorf("%v, want %d blocks", got, c.blocks)
			}
		})
	}
}

// below returns how many blocks the DAG of root has.
func (s *store) below(root cid.Cid) uint64 {
	return must(Measure(context.Background(), s.linkSystem(), root, nil, 0)).Blocks
}

// threeWays counts a selection plainly, with Measure and with MeasureWith, and
// fails unless they agree and the last reads no raw block.
func (s *store) threeWays(t interface {
	Helper()
	Fatalf(string, ...any)
}, root cid.Cid, sel datamodel.Node) Count {
	t.Helper()
	want, _, wantErr := plain(s.linkSystem(), root, sel)
	got, err := Measure(context.Background(), s.linkSystem(), root, sel, 0)
	if fmt.Sprint(got) != fmt.Sprint(want) || (err == nil) != (wantErr == nil) {
		t.Fatalf("Measure %v, %v, plainly %v, %v", got, err, want, wantErr)
	}
	clear(s.reads)
	got, err = MeasureWith(context.Background(), s.linkSystem(), root, sel, 0, s.size)
	if fmt.Sprint(got) != fmt.Sprint(want) || (err == nil) != (wantErr == nil) {
		t.Fatalf("MeasureWith %v, %v, plainly %v, %v", got, err, want, wantErr)
	}
	for c := range s.reads {
		if data, ok := s.blocks[c]; ok && c.Prefix().Codec == cid.Raw && len(data) > 0 {
			t.Fatalf("the raw block %s of %d bytes was read", c, len(data))
		}
	}
	return got
}

// TestMeasurePath takes one name out of 5,000: only the shards on its way.
func TestMeasurePath(t *testing.T) {
	s := newTree()
	for i := range 200 {
		sel := must(Path(fmt.Sprint("many/name ", i*25), ScopeAll))
		c := s.threeWays(t, s.root, sel)
		if c.Blocks < 4 || c.Blocks > 6 { // root, directory, one or two shards, target
			t.Fatalf("name %d: %v", i*25, c)
		}
		target := s.raw(fmt.Appendf(nil, "content %d", i*25))
		clear(s.reads)
		if _, err := Measure(context.Background(), s.linkSystem(), s.root, sel, 0); err != nil || s.reads[target] != 1 {
			t.Fatalf("name %d: target read %d times, %v", i*25, s.reads[target], err)
		}
		for c := range s.reads {
			if c != target && c.Prefix().Codec == cid.Raw {
				t.Fatalf("name %d: another leaf was read", i*25)
			}
		}
	}
}

// TestMeasureShared counts blocks that are linked to many times once, and the
// links every time.
func TestMeasureShared(t *testing.T) {
	s := newStore()
	node := s.raw([]byte("leaf"))
	for range 10 {
		node = s.list(node, node)
	}
	c := s.threeWays(t, node, All())
	if want := (Count{Blocks: 11, Bytes: s.bytes(), Links: 1<<11 - 1}); fmt.Sprint(c) != fmt.Sprint(want) {
		t.Fatalf("%v, want %v", c, want)
	}
}

// TestMeasureTwins: one hash under two codecs is two blocks on the wire.
func TestMeasureTwins(t *testing.T) {
	s := newStore()
	leaf := s.list()
	twin := cid.NewCidV1(cid.Raw, leaf.Hash())
	s.blocks[twin] = s.blocks[leaf]
	c := s.threeWays(t, s.list(leaf, twin, leaf), All())
	if c.Blocks != 3 || c.Links != 4 || c.Bytes != s.bytes() {
		t.Fatalf("%v", c)
	}
}

// TestMeasureIdentity: an identity CID counts if, and only if, the store has it.
func TestMeasureIdentity(t *testing.T) {
	s := newStore()
	leaf := s.raw([]byte("behind"))
	inner := s.list(leaf)
	id := cid.NewCidV1(cid.DagCBOR, must(multihash.Sum(s.blocks[inner], multihash.IDENTITY, -1)))
	root := s.list(id)
	c := s.threeWays(t, root, All())
	if c.Blocks != 1 || c.Links != 2 || len(c.Missing) != 1 || c.Missing[0] != id {
		t.Fatalf("without it: %v", c)
	}
	s.blocks[id] = s.blocks[inner]
	c = s.threeWays(t, root, All())
	if want := uint64(len(s.blocks[root]) + len(s.blocks[inner]) + len("behind")); c.Blocks != 3 || c.Bytes != want || len(c.Missing) != 0 {
		t.Fatalf("with it: %v, want %d bytes", c, want)
	}
}

// TestMeasureEmpty: graphsync takes an empty block for a missing one, or not, by
// the reader it comes in.
func TestMeasureEmpty(t *testing.T) {
	s := newStore()
	empty := s.raw([]byte{})
	root := s.list(empty)
	ls := s.linkSystem()
	c, err := MeasureWith(context.Background(), ls, root, nil, 0, s.size)
	if err != nil || c.Blocks != 2 || len(c.Missing) != 0 {
		t.Fatalf("in a buffer: %v, %v", c, err)
	}
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		r, err := read(lc, l)
		if err != nil {
			return nil, err
		}
		return bytes.NewReader(r.(*bytes.Buffer).Bytes()), nil
	}
	c, err = MeasureWith(context.Background(), ls, root, nil, 0, s.size)
	if err != nil || c.Blocks != 1 || len(c.Missing) != 1 {
		t.Fatalf("in a reader: %v, %v", c, err)
	}
	done, c, err := Complete(context.Background(), ls, root, nil, 0)
	if err != nil || !done || c.Blocks != 2 {
		t.Fatalf("complete: %v, %v, %v", done, c, err)
	}
}

// TestBudget has the numbers of graphsync's own budget, which never lets a
// budget of 1 pass.
func TestBudget(t *testing.T) {
	s := newStore()
	node := s.raw([]byte("leaf"))
	for range 4 {
		node = s.list(node)
	}
	for max, want := range map[uint64]struct {
		links uint64
		ok    bool
	}{0: {5, true}, 1: {0, false}, 2: {2, false}, 4: {4, false}, 5: {5, true}, 1 << 63: {5, true}} {
		c, err := Measure(context.Background(), s.linkSystem(), node, nil, max)
		if c.Links != want.links || (err == nil) != want.ok || err != nil && !errors.Is(err, ErrTooManyLinks) {
			t.Errorf("budget %d: %d links, %v", max, c.Links, err)
		}
	}
	// Parts of files and directories are charged as well.
	tr := newTree()
	for _, path := range []string{"dir/big", "many"} {
		sel := must(Path(path, ScopeEntity))
		all := must(Measure(context.Background(), tr.linkSystem(), tr.root, sel, 0)).Links
		if c, err := Measure(context.Background(), tr.linkSystem(), tr.root, sel, all-1); !errors.Is(err, ErrTooManyLinks) || c.Links != all-1 {
			t.Errorf("%s: %v, %v", path, c, err)
		}
		if _, err := Measure(context.Background(), tr.linkSystem(), tr.root, sel, all); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestMeasureErrors(t *testing.T) {
	s := newTree()
	ctx, ls := context.Background(), s.linkSystem()
	gone := cid.NewCidV1(cid.Raw, must(multihash.Sum([]byte("gone"), multihash.SHA2_256, -1)))
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	lost := newTree()
	shard := lost.anyShard()
	delete(lost.blocks, shard)
	rotten := newTree()
	rotten.blocks[rotten.big] = append([]byte{}, rotten.blocks[rotten.root]...)
	for _, c := range []struct {
		name string
		run  func() (Count, error)
		want error
	}{
		{"no root", func() (Count, error) { return Measure(ctx, ls, gone, nil, 0) }, ErrNotFound},
		{"shard missing", func() (Count, error) {
			return Measure(ctx, lost.linkSystem(), lost.root, must(Path("many", ScopeEntity)), 0)
		}, ErrNotFound},
		{"canceled", func() (Count, error) { return Measure(canceled, ls, s.root, nil, 0) }, context.Canceled},
		{"refused", func() (Count, error) { return Measure(ctx, ls, s.root, json(`{"@":{}}`), 0) }, ErrRefused},
		{"hash", func() (Count, error) { return Measure(ctx, rotten.linkSystem(), rotten.root, nil, 0) }, linking.ErrHashMismatch{}},
	} {
		got, err := c.run()
		if mismatch := (linking.ErrHashMismatch{}); !errors.Is(err, c.want) && !(c.name == "hash" && errors.As(err, &mismatch)) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	if _, err := Measure(ctx, ls, cid.Undef, nil, 0); err == nil {
		t.Error("undefined root counted")
	}
	ls.StorageReadOpener = nil
	if _, err := Measure(ctx, ls, s.root, nil, 0); err == nil {
		t.Error("counted without a store")
	}
}

// anyShard returns a shard of the sharded directory that is not its root.
func (s tree) anyShard() cid.Cid {
	clear(s.reads)
	must(Measure(context.Background(), s.linkSystem(), s.many, must(Path("", ScopeEntity)), 0))
	least := cid.Undef
	for c := range s.reads {
		if c != s.many && (!least.Defined() || c.KeyString() < least.KeyString()) {
			least = c
		}
	}
	return least
}

// TestMeasureCancel ends a walk that would take ages: 61 blocks, 2^61 links.
func TestMeasureCancel(t *testing.T) {
	s := newStore()
	node := s.raw([]byte("leaf"))
	for range 60 {
		node = s.list(node, node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := Measure(ctx, s.linkSystem(), node, nil, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := Measure(context.Background(), s.linkSystem(), node, nil, 10_000); !errors.Is(err, ErrTooManyLinks) {
		t.Fatal(err)
	}
}

// TestStandIn: the zeros that stand in for leaves are never written to.
func TestStandIn(t *testing.T) {
	s := newTree()
	s.threeWays(t, s.root, must(EntityBytes("dir/big", 5, nil)))
	if !bytes.Equal(blank[:], make([]byte, maxStandIn)) {
		t.Fatal("written to")
	}
}

func BenchmarkMeasure(b *testing.B) {
	s := newStore()
	root, _ := s.file(noise(1, 64<<20), 64<<10)
	for name, size := range map[string]Sizer{"reading": nil, "sizes": s.size} {
		for _, scope := range []Scope{ScopeAll, ScopeEntity} {
			b.Run(fmt.Sprint(name, "/", scope), func(b *testing.B) {
				sel, ls := must(Path("", scope)), s.linkSystem()
				b.SetBytes(64 << 20)
				for b.Loop() {
					must(MeasureWith(context.Background(), ls, root, sel, 0, size))
				}
			})
		}
	}
}
