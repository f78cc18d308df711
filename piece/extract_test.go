package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"pgregory.net/rapid"
)

// received copies a CAR into a Partial, as a transfer would.
func received(t testing.TB, path string, root cid.Cid) *Partial {
	t.Helper()
	p, err := OpenPartial(filepath.Join(t.TempDir(), "received.car"), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	walker := frameWalker{r: f, end: info.Size()}
	err = hashFrames(context.Background(), &walker, int64(len(headerFor(root))), func(s frame) error {
		data := make([]byte, s.size)
		if err := readFull(f, data, s.data()); err != nil {
			return err
		}
		return p.put(s.cid, data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tree lists everything below a directory: name, type, and content.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch e.Type() {
		case fs.ModeDir:
			fmt.Fprintf(&b, "%q/\n", rel)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			fmt.Fprintf(&b, "%q -> %q\n", rel, target)
			return err
		default:
			data, err := os.ReadFile(path)
			fmt.Fprintf(&b, "%q %d %s\n", rel, len(data), rawCID(t, data))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// makeTree makes a directory of everything that a tree may have.
func makeTree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	write(t, filepath.Join(dir, "empty file"), nil)
	write(t, filepath.Join(dir, "small"), []byte("small"))
	write(t, filepath.Join(dir, "large"), noise(3, 18<<20+5))
	write(t, filepath.Join(dir, "zeros"), make([]byte, 5<<20))
	write(t, filepath.Join(dir, "a", "b", "c", "deep"), []byte("deep"))
	write(t, filepath.Join(dir, "ü 世界"), []byte("not ASCII"))
	write(t, filepath.Join(dir, "two\nlines"), []byte("newline"))
	write(t, filepath.Join(dir, "-o"), []byte("like a flag"))
	write(t, filepath.Join(dir, ".hidden", "..."), []byte("dots"))
	write(t, filepath.Join(dir, "a", "not UTF-8: \xff"), []byte("bytes"))
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "empty dir", "empty too"), 0o755),
		os.Symlink("../large", filepath.Join(dir, "a", "up and over")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		os.Symlink("b/c", filepath.Join(dir, "a", "to a directory")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestThereAndBack(t *testing.T) {
	ctx := context.Background()
	dir := makeTree(t)
	want := tree(t, dir)
	car, r := create(t, CreateOptions{}, dir)
	v, err := VerifyCAR(ctx, car)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Roots) != 1 || v.Roots[0] != r.Root || v.Blocks != r.Blocks || v.Bytes != r.Bytes || v.Reachable != r.Blocks {
		t.Fatalf("verified %+v, made %+v", v, r)
	}
	ls := received(t, car, r.Root).LinkSystem()
	out := filepath.Join(t.TempDir(), "out")
	x, err := Extract(ctx, ls, r.Root, "", out+"/", ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := tree(t, out); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	wantX := ExportResult{Kind: Directory, Files: 10, Dirs: 7, Symlinks: 3, Bytes: r.FileBytes}
	if x != wantX {
		t.Fatalf("result %+v, want %+v", x, wantX)
	}
	wantOnly(t, filepath.Dir(out), "out")
	if _, err := Extract(ctx, ls, r.Root, "", out, ExportOptions{}); !errors.Is(err, ErrOutputExists) {
		t.Fatalf("onto a directory: %v", err)
	}
	write(t, filepath.Join(out, "stale"), nil)
	if _, err := Extract(ctx, ls, r.Root, "/a//b/", out, ExportOptions{Overwrite: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, out), tree(t, filepath.Join(dir, "a", "b")); got != want {
		t.Fatalf("after overwriting\n%s\nwant\n%s", got, want)
	}
	wantOnly(t, filepath.Dir(out), "out")
}

func TestExtractFile(t *testing.T) {
	ctx := context.Background()
	dir := makeTree(t)
	car, r := create(t, CreateOptions{}, dir)
	ls := received(t, car, r.Root).LinkSystem()
	base := t.TempDir()
	for _, name := range []string{"large", "empty file", "two\nlines", "a/b/c/deep"} {
		out := filepath.Join(base, "out")
		if _, err := Extract(ctx, ls, r.Root, name, out, ExportOptions{Overwrite: true}); err != nil {
			t.Fatal(err)
		}
		got, err1 := os.ReadFile(out)
		want, err2 := os.ReadFile(filepath.Join(dir, name))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: got %d bytes, want %d, %v", name, len(got), len(want), err)
		}
	}
	info, err := os.Stat(filepath.Join(base, "out"))
	if err != nil || info.Mode() != 0o644 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Extract(ctx, ls, r.Root, "a", filepath.Join(base, "out"), ExportOptions{Overwrite: true}); !errors.Is(err, ErrOutputExists) {
		t.Fatalf("directory onto a file: %v", err)
	}
	for path, want := range map[string]error{"no": ErrNoEntry, "small/x": ErrNoEntry, "a/up and over/x": ErrNoEntry, "../tree": ErrNoEntry} {
		if _, err := Extract(ctx, ls, r.Root, path, filepath.Join(base, "x"), ExportOptions{}); !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", path, err, want)
		}
	}
	link := filepath.Join(base, "link")
	if _, err := Extract(ctx, ls, r.Root, "dangling", link, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Extract(ctx, ls, r.Root, "empty dir", link, ExportOptions{Overwrite: true}); err != nil {
		t.Fatalf("directory in the place of a symlink: %v", err)
	}
	wantOnly(t, base, "link", "out")
}

func TestStatPath(t *testing.T) {
	ctx := context.Background()
	car, r := create(t, CreateOptions{}, makeTree(t))
	ls := received(t, car, r.Root).LinkSystem()
	for path, want := range map[string]Stat{
		"":           {Kind: Directory},
		"/":          {Kind: Directory},
		"large":      {Kind: File, Name: "large", Size: 18<<20 + 5},
		"small":      {Kind: File, Name: "small", Size: 5},
		"a/b":        {Kind: Directory, Name: "b"},
		"dangling":   {Kind: Symlink, Name: "dangling", Size: 7},
		"empty file": {Kind: File, Name: "empty file"},
	} {
		got, err := StatPath(ctx, ls, r.Root, path)
		if err != nil {
			t.Fatal(err)
		}
		if !got.CID.Defined() {
			t.Fatalf("%q has no CID", path)
		}
		got.CID = cid.Undef
		if got != want {
			t.Fatalf("%q is %+v, want %+v", path, got, want)
		}
	}
}

// A directory of 5,000 entries, which is a HAMT, whole and by its entries.
func TestExtractHAMT(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "many")
	for i := range 5000 {
		write(t, filepath.Join(dir, fmt.Sprintf("entry number %d of many", i)), fmt.Append(nil, i))
	}
	car, r := create(t, CreateOptions{}, dir)
	ls := received(t, car, r.Root).LinkSystem()
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Extract(ctx, ls, r.Root, "", out, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if tree(t, out) != tree(t, dir) {
		t.Fatal("not the same")
	}
	for i := 0; i < 5000; i += 499 {
		var b bytes.Buffer
		if err := Cat(ctx, ls, r.Root, fmt.Sprintf("entry number %d of many", i), &b, 0, -1); err != nil || b.String() != fmt.Sprint(i) {
			t.Fatalf("entry %d is %q, %v", i, b.String(), err)
		}
	}
	if err := Cat(ctx, ls, r.Root, "entry number 5000 of many", &bytes.Buffer{}, 0, -1); !errors.Is(err, ErrNoEntry) {
		t.Fatalf("an entry that is not there: %v", err)
	}
	if n, err := VerifyCAR(ctx, car); err != nil || n.Reachable != r.Blocks {
		t.Fatalf("verify: %+v, %v", n, err)
	}
}

func TestExtractIncomplete(t *testing.T) {
	car, r := create(t, CreateOptions{ChunkSize: 100}, write(t, filepath.Join(t.TempDir(), "f"), noise(1, 1000)))
	p := received(t, car, r.Root)
	data, err := p.Get(r.Root)
	if err != nil {
		t.Fatal(err)
	}
	q, err := OpenPartial(filepath.Join(t.TempDir(), "q.car"), r.Root) // has the root alone
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.put(r.Root, data); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	if _, err := Extract(context.Background(), q.LinkSystem(), r.Root, "", filepath.Join(base, "x"), ExportOptions{}); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("error %v, want ErrIncomplete", err)
	}
	wantOnly(t, base)
	if _, _, err := WriteCAR(context.Background(), q.LinkSystem(), r.Root, nil, &bytes.Buffer{}); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("error %v, want ErrIncomplete", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := VerifyCAR(context.Background(), q.Path()); !errors.Is(err, ErrIncomplete) || v.Blocks != 1 || v.Reachable != 1 {
		t.Fatalf("verified %+v, %v, want ErrIncomplete", v, err)
	}
}

// Any range of any file is what the file has there.
func TestCatLaws(t *testing.T) {
	ctx := context.Background()
	f := tempFile(t)
	rapid.Check(t, func(r *rapid.T) {
		opt := CreateOptions{ChunkSize: rapid.Int64Range(1, 50).Draw(r, "chunk"), MaxLinks: rapid.IntRange(2, 5).Draw(r, "links")}
		data := noise(1, rapid.IntRange(0, 500).Draw(r, "size"))
		p := newPacker(f, opt)
		tree := fileTree{p: p}
		if err := p.readChunks(ctx, bytes.NewReader(data), tree.addLeaf); err != nil {
			r.Fatal(err)
		}
		root, err := tree.root()
		if err != nil {
			r.Fatal(err)
		}
		ls := cidlink.DefaultLinkSystem()
		ls.StorageReadOpener = carReads(f, p.car.held)
		from := rapid.Int64Range(0, 520).Draw(r, "from")
		to := rapid.Int64Range(-1, 520).Draw(r, "to")
		want := data[min(from, int64(len(data))):]
		if to >= 0 {
			want = data[min(from, to, int64(len(data))):min(to, int64(len(data)))]
		}
		var got bytes.Buffer
		if err := Cat(ctx, ls, root.cid, "", &got, from, to); err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			r.Fatalf("got %d bytes, want %d", got.Len(), len(want))
		}
	})
}

func TestCatRefuses(t *testing.T) {
	m := memory{}
	ctx := context.Background()
	if err := Cat(ctx, m.links(), m.dir(t), "", &bytes.Buffer{}, 0, -1); !errors.Is(err, ErrIsDirectory) {
		t.Fatalf("directory: %v", err)
	}
	if err := Cat(ctx, m.links(), m.symlink(t, "x"), "", &bytes.Buffer{}, 0, -1); err == nil {
		t.Fatal("symlink: no error")
	}
	if err := Cat(ctx, m.links(), m.put(t, cid.Raw, nil), "", &bytes.Buffer{}, -1, -1); err == nil {
		t.Fatal("negative offset: no error")
	}
}
