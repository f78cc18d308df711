package piece

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"
)

// rawCID is the CID of data as a raw block.
func rawCID(t testing.TB, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noise returns n bytes that depend on seed alone.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func openTemp(t testing.TB) *Partial {
	t.Helper()
	p, err := OpenPartial(filepath.Join(t.TempDir(), "x.car"), rawCID(t, []byte("root")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func reopen(t testing.TB, p *Partial) *Partial {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	q, err := OpenPartial(p.Path(), p.Root())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func mustPut(t testing.TB, p *Partial, data []byte) cid.Cid {
	t.Helper()
	c := rawCID(t, data)
	if err := p.put(c, data); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantBlock(t testing.TB, p *Partial, c cid.Cid, data []byte) {
	t.Helper()
	if !p.Has(c) {
		t.Fatalf("Has(%s) = false", c)
	}
	got, err := p.Get(c)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("Get(%s) returned %d bytes, want the %d that were put", c, len(got), len(data))
	}
}

func wantCount(t testing.TB, p *Partial, blocks, written uint64) {
	t.Helper()
	if p.Blocks() != blocks || p.Written() != written {
		t.Fatalf("blocks, written = %d, %d, want %d, %d", p.Blocks(), p.Written(), blocks, written)
	}
}

func TestPartialCountsEveryAppend(t *testing.T) {
	p := openTemp(t)
	small, large, empty := []byte("small"), noise(1, 100_000), []byte{}
	cs, cl, ce := mustPut(t, p, small), mustPut(t, p, large), mustPut(t, p, empty)
	mustPut(t, p, small) // held already: counts again
	wantCount(t, p, 4, 5+100_000+0+5)
	if n, err := p.Sync(); err != nil || n != p.Written() {
		t.Fatalf("Sync = %d, %v, want %d", n, err, p.Written())
	}
	p = reopen(t, p)
	wantCount(t, p, 4, 100_010)
	wantBlock(t, p, cs, small)
	wantBlock(t, p, cl, large)
	wantBlock(t, p, ce, empty)
	mustPut(t, p, []byte("later"))
	wantCount(t, p, 5, 100_015)
}

// TestPartialOnce is one transfer after another into the same file: each counts
// a block once, also after a restart, and anew what an earlier one brought.
func TestPartialOnce(t *testing.T) {
	p := openTemp(t)
	first, second := []byte("first"), []byte("the second")
	mustPut(t, p, first)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.Once(5))
	mustPut(t, p, first) // of the transfer before: counts
	mustPut(t, p, first)
	mustPut(t, p, second)
	mustPut(t, p, second)
	wantCount(t, p, 3, 20)
	p = reopen(t, p)
	must(p.Once(5))
	mustPut(t, p, first)
	mustPut(t, p, second)
	wantCount(t, p, 3, 20)
	must(p.Once(10)) // as if the transfer had begun behind the second "first"
	mustPut(t, p, second)
	mustPut(t, p, first)
	mustPut(t, p, first)
	wantCount(t, p, 4, 25)
	must(p.Once(0))
	mustPut(t, p, first)
	mustPut(t, p, second)
	wantCount(t, p, 4, 25)
	if err := p.Once(26); err == nil {
		t.Fatal("a transfer that begins behind the end")
	}
}

func TestPartialUnknownBlock(t *testing.T) {
	p := openTemp(t)
	c := rawCID(t, []byte("never put"))
	if p.Has(c) {
		t.Fatal("Has a block that was never put")
	}
	if _, err := p.Get(c); !format.IsNotFound(err) {
		t.Fatalf("Get: %v, want not found", err)
	}
}

func TestPartialFindsByHash(t *testing.T) {
	p := openTemp(t)
	data := []byte("same bytes, other codec")
	c := mustPut(t, p, data)
	wantBlock(t, p, cid.NewCidV1(cid.DagCBOR, c.Hash()), data)
	wantBlock(t, p, cid.NewCidV0(c.Hash()), data)
	h, err := multihash.Sum([]byte("inline"), multihash.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	wantBlock(t, p, cid.NewCidV1(cid.Raw, h), []byte("inline"))
	wantCount(t, p, 1, uint64(len(data)))
}

// Two multihashes that share their short hash are told apart.
func TestPartialIndexClash(t *testing.T) {
	p := openTemp(t)
	a, b := []byte("first"), []byte("second")
	ca := mustPut(t, p, a)
	first, _, _ := p.held.find(ca.Hash())
	cb := rawCID(t, b)
	p.held.short[shortKey(p.held.seed, cb.Hash())] = first.at // as if a and b met
	if p.Has(cb) {
		t.Fatal("Has takes one block for the other")
	}
	mustPut(t, p, b)
	mustPut(t, p, b)
	wantBlock(t, p, ca, a)
	wantBlock(t, p, cb, b)
}

func TestPartialIsACAR(t *testing.T) {
	p := openTemp(t)
	var want bytes.Buffer
	want.Write(headerFor(p.Root()))
	for i := range 5 {
		data := noise(uint64(i), i*7000)
		c := mustPut(t, p, data)
		want.Write(appendFrameHead(nil, c, len(data)))
		want.Write(data)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(p.Path())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Fatal("the file is not header and sections in order")
	}
}

func TestPartialRefusesOtherFiles(t *testing.T) {
	root := rawCID(t, []byte("root"))
	other := headerFor(rawCID(t, []byte("other root")))
	for name, content := range map[string][]byte{
		"text":       []byte("notes that nobody wants to lose, longer than a header of a CAR is, in any case"),
		"other root": other,
		"short":      []byte("hello"),
		"longer":     append(other, 1, 2, 3),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenPartial(path, root); !errors.Is(err, ErrOtherRoot) {
				t.Fatalf("error %v, want ErrOtherRoot", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
				t.Fatalf("the file was changed: %q, %v", after, err)
			}
		})
	}
	if _, err := OpenPartial(t.TempDir(), root); err == nil {
		t.Fatal("opened a directory")
	}
	if _, err := OpenPartial(filepath.Join(t.TempDir(), "f"), cid.Undef); err == nil {
		t.Fatal("opened without a root")
	}
}

func TestPartialLock(t *testing.T) {
	p := openTemp(t)
	if _, err := OpenPartial(p.Path(), p.Root()); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v, want ErrLocked", err)
	}
	reopen(t, p)
}

func TestPartialClosed(t *testing.T) {
	p := openTemp(t)
	c := mustPut(t, p, []byte("x"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	if err := p.put(c, []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("put after Close: %v", err)
	}
	if _, err := p.Sync(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Sync after Close: %v", err)
	}
	if _, err := p.Get(c); err == nil {
		t.Fatal("Get after Close succeeded")
	}
}

func TestPartialLeave(t *testing.T) {
	p := openTemp(t)
	mustPut(t, p, []byte("x"))
	dst := p.Path() + ".done"
	if err := os.WriteFile(dst, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.MoveTo(dst, false); !errors.Is(err, ErrOutputExists) {
		t.Fatalf("MoveTo onto a file: %v", err)
	}
	mustPut(t, p, []byte("y")) // still open
	if err := p.MoveTo(dst, true); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, filepath.Dir(dst), "x.car.done")
	q, err := OpenPartial(dst, p.Root())
	if err != nil {
		t.Fatal(err)
	}
	wantCount(t, q, 2, 2)
	if err := q.Discard(); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, filepath.Dir(dst))
}

func wantOnly(t testing.TB, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, "|") != strings.Join(names, "|") {
		t.Fatalf("%s holds %q, want %q", dir, got, names)
	}
}

func TestPartialLinkSystem(t *testing.T) {
	p := openTemp(t)
	ls := p.LinkSystem()
	if !ls.TrustedStorage || ls.KnownReifiers["unixfs"] == nil {
		t.Fatal("link system is not trusted, or does not know UnixFS")
	}
	store := func(data []byte, write func(io.Writer) error) cid.Cid {
		w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{Ctx: context.Background()})
		if err != nil {
			t.Fatal(err)
		}
		if err := write(w); err != nil {
			t.Fatal(err)
		}
		c := rawCID(t, data)
		if err := commit(cidlink.Link{Cid: c}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := noise(1, 50_000), []byte("in two writes")
	ca := store(a, func(w io.Writer) error { return w.(interface{ SetBytes([]byte) error }).SetBytes(a) })
	cb := store(b, func(w io.Writer) error {
		_, err := w.Write(b[:4])
		_, err2 := w.Write(b[4:])
		return errors.Join(err, err2)
	})
	d := noise(2, 60_000)
	lent := bytes.Clone(d)
	cd := store(d, func(w io.Writer) error { return w.(interface{ BorrowBytes([]byte) error }).BorrowBytes(lent) })
	clear(lent) // its memory is used again
	for c, want := range map[cid.Cid][]byte{ca: a, cb: b, cd: d} {
		r, err := ls.StorageReadOpener(ipld.LinkContext{}, cidlink.Link{Cid: c})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.(*bytes.Buffer).Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("read %d bytes, want %d", len(got), len(want))
		}
	}
	if _, err := ls.StorageReadOpener(ipld.LinkContext{}, cidlink.Link{}); err == nil {
		t.Fatal("read an undefined link")
	}
}

func TestPartialConcurrent(t *testing.T) {
	p := openTemp(t)
	const writers, each = 4, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				data := noise(uint64(w*each+i), 100+i*400)
				c := rawCID(t, data)
				if err := p.put(c, data); err != nil {
					t.Error(err)
					return
				}
				if got, err := p.Get(c); err != nil || !bytes.Equal(got, data) {
					t.Errorf("Get after put: %v", err)
				}
				if i%10 == 0 {
					if _, err := p.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if p.Blocks() != writers*each {
		t.Fatalf("%d blocks, want %d", p.Blocks(), writers*each)
	}
	written := p.Written()
	wantCount(t, reopen(t, p), writers*each, written)
}
