package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	bstore "github.com/ipfs/boxo/blockstore"
	chunker "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	format "github.com/ipfs/go-ipld-format"
	"pgregory.net/rapid"
)

// boxo makes DAGs as the rest of the world does, to compare with.
type boxo struct{ dag format.DAGService }

func newBoxo() boxo {
	store := bstore.NewBlockstore(datastore.NewMapDatastore())
	return boxo{merkledag.NewDAGService(blockservice.New(store, nil))}
}

func (b boxo) file(t testing.TB, data []byte, opt CreateOptions) format.Node {
	t.Helper()
	params := helpers.DagBuilderParams{
		Dagserv: b.dag, RawLeaves: true, Maxlinks: opt.MaxLinks, CidBuilder: uio.UnixFS_v1_2025.CidBuilder(),
	}
	builder, err := params.New(chunker.NewSizeSplitter(bytes.NewReader(data), opt.ChunkSize))
	if err != nil {
		t.Fatal(err)
	}
	node, err := balanced.Layout(builder)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func (b boxo) directory(t testing.TB, entries map[string]format.Node) format.Node {
	t.Helper()
	dir, err := uio.NewDirectory(b.dag, uio.WithCidBuilder(uio.UnixFS_v1_2025.CidBuilder()),
		uio.WithSizeEstimationMode(uio.SizeEstimationBlock), uio.WithMaxHAMTFanout(256))
	if err != nil {
		t.Fatal(err)
	}
	for name, node := range entries {
		if err := dir.AddChild(context.Background(), name, node); err != nil {
			t.Fatal(err)
		}
	}
	node, err := dir.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func create(t testing.TB, opt CreateOptions, paths ...string) (string, CreateResult) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.car")
	r, err := Create(context.Background(), out, paths, opt)
	if err != nil {
		t.Fatal(err)
	}
	return out, r
}

// packBytes packs one file, without waiting for the disk.
func packBytes(t testing.TB, f *os.File, data []byte, opt CreateOptions) cid.Cid {
	t.Helper()
	p := newPacker(f, opt)
	tree := fileTree{p: p}
	if err := p.readChunks(context.Background(), bytes.NewReader(data), tree.addLeaf); err != nil {
		t.Fatal(err)
	}
	l, err := tree.root()
	if err != nil {
		t.Fatal(err)
	}
	if l.file != uint64(len(data)) || p.fileBytes != uint64(len(data)) {
		t.Fatalf("packed %d of %d bytes", p.fileBytes, len(data))
	}
	return l.cid
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "temp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// The root is the one that boxo finds, for files around every edge of the tree.
func TestCreateFileAsBoxo(t *testing.T) {
	opt := CreateOptions{ChunkSize: 8, MaxLinks: 3}
	f := tempFile(t)
	for size := range 8*3*3*3 + 20 {
		data := noise(1, size)
		got := packBytes(t, f, data, opt)
		if want := newBoxo().file(t, data, opt).Cid(); got != want {
			t.Fatalf("file of %d bytes has root %s, want %s", size, got, want)
		}
	}
}

// The default is the profile unixfs-v1-2025.
func TestCreateDefaultProfile(t *testing.T) {
	data := noise(7, 3<<20+17)
	path := write(t, filepath.Join(t.TempDir(), "f"), data)
	_, got := create(t, CreateOptions{}, path)
	want := newBoxo().file(t, data, CreateOptions{
		ChunkSize: uio.UnixFS_v1_2025.ChunkSize, MaxLinks: uio.UnixFS_v1_2025.FileDAGWidth,
	}).Cid()
	if got.Root != want {
		t.Fatalf("root %s, want %s", got.Root, want)
	}
	want2 := CreateResult{Root: want, Blocks: 5, Bytes: got.Bytes, FileBytes: 3<<20 + 17}
	if got != want2 || got.Bytes <= got.FileBytes {
		t.Fatalf("result %+v, want %+v", got, want2)
	}
}

// Directories are as boxo's, on both sides of the size at which they become HAMTs.
func TestCreateDirectoryAsBoxo(t *testing.T) {
	opt := CreateOptions{ChunkSize: defaultChunkSize, MaxLinks: defaultMaxLinks}
	for _, n := range []int{0, 1, 40, 1800} {
		b, dir := newBoxo(), t.TempDir()
		entries := make(map[string]format.Node)
		for i := range n {
			name := fmt.Sprintf("entry number %d with a näme%0100d", i, i)
			data := []byte(name)
			write(t, filepath.Join(dir, name), data)
			entries[name] = b.file(t, data, opt)
		}
		_, got := create(t, CreateOptions{}, dir)
		if want := b.directory(t, entries).Cid(); got.Root != want {
			t.Fatalf("directory of %d entries has root %s, want %s", n, got.Root, want)
		}
	}
}

// The switch to a HAMT is at exactly the byte where boxo has it.
func TestCreateHAMTThreshold(t *testing.T) {
	b := newBoxo()
	empty := b.file(t, nil, CreateOptions{ChunkSize: 1, MaxLinks: 2})
	link := func(name string) pbLink { return pbLink{cid: empty.Cid(), name: name} }
	size := func(links []pbLink) int { return len(encodeNode(links, unixfsType(unixfsTypeDirectory))) }
	var links []pbLink
	for size(append(links, link(strings.Repeat("z", 900)))) < maxDirectoryBlock {
		links = append(links, link(fmt.Sprintf("%0800d", len(links))))
	}
	last := maxDirectoryBlock - size(append(links, link(strings.Repeat("z", 900))))
	for over := range 2 {
		all := append(links, link(strings.Repeat("z", 900+last+over)))
		if size(all) != maxDirectoryBlock+over {
			t.Fatalf("made a block of %d bytes, want %d", size(all), maxDirectoryBlock+over)
		}
		got, err := newPacker(tempFile(t), CreateOptions{ChunkSize: 1, MaxLinks: 2}).putDirectory(all)
		if err != nil {
			t.Fatal(err)
		}
		entries := make(map[string]format.Node)
		for _, l := range all {
			entries[l.name] = empty
		}
		if want := b.directory(t, entries).Cid(); got.cid != want {
			t.Fatalf("directory block of %d bytes: root %s, want %s", size(all), got.cid, want)
		}
	}
}

func TestCreateSymlinkAsBoxo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	if err := os.Symlink("../some where", path); err != nil {
		t.Skip("no symlinks here")
	}
	_, got := create(t, CreateOptions{}, path)
	data, err := unixfs.SymlinkData("../some where")
	if err != nil {
		t.Fatal(err)
	}
	node := merkledag.NodeWithData(data)
	if err := node.SetCidBuilder(uio.UnixFS_v1_2025.CidBuilder()); err != nil {
		t.Fatal(err)
	}
	if got.Root != node.Cid() {
		t.Fatalf("root %s, want %s", got.Root, node.Cid())
	}
}

func TestCreateIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		write(t, filepath.Join(dir, fmt.Sprint(i%7), fmt.Sprintf("%0200d", i)), noise(uint64(i%50), i*100))
	}
	opt := CreateOptions{ChunkSize: 999, MaxLinks: 5}
	one, r1 := create(t, opt, dir)
	two, r2 := create(t, opt, dir)
	a, err1 := os.ReadFile(one)
	b, err2 := os.ReadFile(two)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) || r1 != r2 {
		t.Fatal("two runs made two files")
	}
}

// Equal blocks are written once.
func TestCreateOnce(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "zeros"), make([]byte, 10_000))
	_, r := create(t, CreateOptions{ChunkSize: 100, MaxLinks: 10}, path)
	if r.Blocks != 3 { // a leaf, a node of ten leaves, a node of ten nodes
		t.Fatalf("%d blocks, want 3", r.Blocks)
	}
}

func TestCreatePaths(t *testing.T) {
	dir := t.TempDir()
	one := write(t, filepath.Join(dir, "one"), []byte("1"))
	two := write(t, filepath.Join(dir, "two"), []byte("22"))
	twin := write(t, filepath.Join(dir, "d", "one"), []byte("other"))
	opt := CreateOptions{ChunkSize: defaultChunkSize, MaxLinks: defaultMaxLinks}
	b := newBoxo()
	f1, f2 := b.file(t, []byte("1"), opt), b.file(t, []byte("22"), opt)
	for name, c := range map[string]struct {
		paths []string
		wrap  bool
		want  cid.Cid
	}{
		"file":            {[]string{one}, false, f1.Cid()},
		"wrapped":         {[]string{one}, true, b.directory(t, map[string]format.Node{"one": f1}).Cid()},
		"two, any order":  {[]string{two, one}, false, b.directory(t, map[string]format.Node{"one": f1, "two": f2}).Cid()},
		"no files":        {nil, false, cid.Undef},
		"same name":       {[]string{one, twin}, false, cid.Undef},
		"missing":         {[]string{filepath.Join(dir, "nowhere")}, false, cid.Undef},
		"without a name":  {[]string{one, "/"}, false, cid.Undef},
		"dots are a name": {[]string{filepath.Join(dir, "d", ".")}, true, b.directory(t, map[string]format.Node{"d": b.directory(t, map[string]format.Node{"one": b.file(t, []byte("other"), opt)})}).Cid()},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "o.car")
			r, err := Create(context.Background(), out, c.paths, CreateOptions{Wrap: c.wrap})
			if c.want == cid.Undef {
				if err == nil {
					t.Fatal("no error")
				}
				wantOnly(t, filepath.Dir(out))
				return
			}
			if err != nil || r.Root != c.want {
				t.Fatalf("root %s, %v, want %s", r.Root, err, c.want)
			}
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "in", "f"), []byte("x"))
	out := write(t, filepath.Join(dir, "out.car"), []byte("precious"))
	if _, err := Create(ctx, out, []string{file}, CreateOptions{}); !errors.Is(err, ErrOutputExists) {
		t.Fatalf("onto a file: %v", err)
	}
	if kept, _ := os.ReadFile(out); string(kept) != "precious" {
		t.Fatal("the output was replaced")
	}
	if _, err := Create(ctx, filepath.Join(dir, "in", "o.car"), []string{filepath.Join(dir, "in")}, CreateOptions{}); err == nil {
		t.Fatal("packed the output into itself")
	}
	for _, o := range []CreateOptions{{ChunkSize: -1}, {ChunkSize: maxChunkSize + 1}, {MaxLinks: 1}, {MaxLinks: maxMaxLinks + 1}} {
		if _, err := Create(ctx, filepath.Join(dir, "o.car"), []string{file}, o); err == nil {
			t.Fatalf("took %+v", o)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	big := write(t, filepath.Join(dir, "big"), noise(1, 100_000))
	if _, err := Create(cancelled, filepath.Join(dir, "o.car"), []string{big}, CreateOptions{ChunkSize: 100}); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	wantOnly(t, dir, "big", "in", "out.car")
	wantOnly(t, filepath.Join(dir, "in"), "f")
}

// A reader that fails in the middle fails the file, and leaves no goroutine
// with a chunk behind.
func TestReadChunksError(t *testing.T) {
	f := tempFile(t)
	boom := errors.New("boom")
	p := newPacker(f, CreateOptions{ChunkSize: 10, MaxLinks: 2})
	for n := range 60 {
		in := io.MultiReader(bytes.NewReader(noise(1, n)), errReader{boom})
		if err := p.readChunks(context.Background(), in, func(cid.Cid, []byte) error { return nil }); !errors.Is(err, boom) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		count := 0
		err := p.readChunks(context.Background(), bytes.NewReader(noise(1, 60)), func(cid.Cid, []byte) error {
			if count++; count*10 > n {
				return boom
			}
			return nil
		})
		if !errors.Is(err, boom) {
			t.Fatalf("add fails at %d: %v", n, err)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// Any file and any shape of tree has boxo's root.
func TestCreateLaws(t *testing.T) {
	f := tempFile(t)
	rapid.Check(t, func(r *rapid.T) {
		opt := CreateOptions{
			ChunkSize: rapid.Int64Range(1, 300).Draw(r, "chunk"),
			MaxLinks:  rapid.IntRange(2, 20).Draw(r, "links"),
		}
		data := noise(rapid.Uint64Range(0, 5).Draw(r, "seed"), rapid.IntRange(0, 3000).Draw(r, "size"))
		got := packBytes(t, f, data, opt)
		if want := newBoxo().file(t, data, opt).Cid(); got != want {
			r.Fatalf("root %s, want %s", got, want)
		}
	})
}

func BenchmarkCreate(b *testing.B) {
	const size = 128 << 20
	dir := b.TempDir()
	path := write(b, filepath.Join(dir, "f"), noise(1, size))
	b.SetBytes(size)
	for b.Loop() {
		if _, err := Create(context.Background(), filepath.Join(dir, "o.car"), []string{path}, CreateOptions{Overwrite: true}); err != nil {
			b.Fatal(err)
		}
	}
}
