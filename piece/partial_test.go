package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	"pgregory.net/rapid"
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

// The file is cut at every byte of its last section, and inside its header; it
// must open to exactly what is whole, and take new blocks.
func TestPartialTornTail(t *testing.T) {
	dir := t.TempDir()
	root := rawCID(t, []byte("root"))
	one, two := []byte("the first block"), noise(2, 300)
	header := headerFor(root)
	first := append(appendFrameHead(header, rawCID(t, one), len(one)), one...)
	whole := append(appendFrameHead(bytes.Clone(first), rawCID(t, two), len(two)), two...)
	for cut := range len(whole) + 1 {
		path := filepath.Join(dir, fmt.Sprintf("%d.car", cut))
		if err := os.WriteFile(path, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := OpenPartial(path, root)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		switch {
		case cut == len(whole):
			wantCount(t, p, 2, uint64(len(one)+len(two)))
		case cut >= len(first):
			wantCount(t, p, 1, uint64(len(one)))
		default:
			wantCount(t, p, 0, 0)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != p.end {
			t.Fatalf("cut at %d: file of %d bytes, ends at %d", cut, info.Size(), p.end)
		}
		data := []byte("after the tear")
		c := mustPut(t, p, data)
		p = reopen(t, p)
		wantBlock(t, p, c, data)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A tail that has its length but not its bytes, as a crashed machine leaves it.
func TestPartialWrongTail(t *testing.T) {
	for _, synced := range []bool{false, true} {
		t.Run(fmt.Sprintf("synced=%v", synced), func(t *testing.T) {
			p := openTemp(t)
			good := mustPut(t, p, []byte("good"))
			if _, err := p.Sync(); err != nil {
				t.Fatal(err)
			}
			bad := []byte("about to be harmed")
			mustPut(t, p, bad)
			mustPut(t, p, []byte("behind the harm"))
			if !synced { // the machine stops here: the mark stays at good
				mark, err := os.ReadFile(p.Path() + ".mark")
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p.Path()+".mark", mark, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(p.Path())
			if err != nil {
				t.Fatal(err)
			}
			raw[bytes.Index(raw, bad)] ^= 1
			if err := os.WriteFile(p.Path(), raw, 0o644); err != nil { // same inode
				t.Fatal(err)
			}
			p = reopen(t, p)
			wantBlock(t, p, good, []byte("good"))
			if synced {
				wantCount(t, p, 3, 4+18+15) // below the mark: believed, as documented
			} else {
				wantCount(t, p, 1, 4)
			}
		})
	}
}

func TestPartialMarkOfAnotherFile(t *testing.T) {
	p := openTemp(t)
	data := []byte("to be harmed")
	mustPut(t, p, data)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(p.Path())
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.Index(raw, data)] ^= 1
	other := p.Path() + ".other"
	if err := os.WriteFile(other, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, p.Path()); err != nil { // another inode under the old mark
		t.Fatal(err)
	}
	wantCount(t, reopen(t, p), 0, 0)
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
	for c, want := range map[cid.Cid][]byte{ca: a, cb: b} {
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

// failing is a file whose disk is full from room bytes on, and whose other
// operations fail when told to.
type failing struct {
	*os.File
	room     int64
	truncate error
	sync     error
}

func (f *failing) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= f.room {
		return f.File.WriteAt(b, off)
	}
	n, err := f.File.WriteAt(b[:max(0, f.room-off)], off)
	return n, errors.Join(err, errFull)
}

func (f *failing) Truncate(n int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.File.Truncate(n)
}

func (f *failing) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

var errFull = errors.New("no space left (injected)")

// openFailing opens a Partial on a disk of room bytes.
func openFailing(t testing.TB, room int64) (*Partial, *failing) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.car")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := &failing{File: f, room: room}
	p, err := openPartial(path, rawCID(t, []byte("root")), f, bad)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, bad
}

// The disk fills up inside a block, at every part of it.
func TestPartialDiskFull(t *testing.T) {
	for _, size := range []int{100, copyBelow + 1000} {
		for _, into := range []int64{0, 1, 20, 38, 60, 90, 120} {
			p, disk := openFailing(t, 1<<40)
			c := mustPut(t, p, []byte("fits"))
			disk.room = p.end + into
			data := noise(9, size)
			big := rawCID(t, data)
			for range 2 { // it keeps failing, and keeps being consistent
				if err := p.put(big, data); !errors.Is(err, errFull) {
					t.Fatalf("put on a full disk: %v", err)
				}
				wantCount(t, p, 1, 4)
				if info, _ := disk.Stat(); info.Size() != p.end {
					t.Fatalf("file of %d bytes, want %d", info.Size(), p.end)
				}
				if p.Has(big) {
					t.Fatal("Has a block that could not be written")
				}
			}
			if n, err := p.Sync(); err != nil || n != 4 {
				t.Fatalf("Sync = %d, %v", n, err)
			}
			disk.room = 1 << 40 // space was made
			mustPut(t, p, data)
			p = reopen(t, p)
			wantBlock(t, p, c, []byte("fits"))
			wantBlock(t, p, big, data)
			wantCount(t, p, 2, uint64(4+size))
		}
	}
}

// If a half-written block cannot be cut off, nothing is written behind it.
func TestPartialCannotMend(t *testing.T) {
	p, disk := openFailing(t, 1<<40)
	disk.room, disk.truncate = p.end+50, errors.New("cannot truncate")
	data := noise(1, 100)
	if err := p.put(rawCID(t, data), data); !errors.Is(err, errFull) {
		t.Fatalf("put: %v", err)
	}
	disk.room = 1 << 40
	if err := p.put(rawCID(t, data), data); !errors.Is(err, disk.truncate) {
		t.Fatalf("put behind a torn block: %v", err)
	}
	disk.truncate = nil
	c := mustPut(t, p, []byte("fine again"))
	p = reopen(t, p)
	wantBlock(t, p, c, []byte("fine again"))
	wantCount(t, p, 1, 10)
}

func TestPartialSyncFails(t *testing.T) {
	p, disk := openFailing(t, 1<<40)
	mustPut(t, p, []byte("durable"))
	if n, err := p.Sync(); err != nil || n != 7 {
		t.Fatalf("Sync = %d, %v", n, err)
	}
	c := mustPut(t, p, []byte("lost?"))
	disk.sync = errors.New("io error (injected)")
	if n, err := p.Sync(); !errors.Is(err, disk.sync) || n != 7 {
		t.Fatalf("failing Sync = %d, %v, want 7 and the error", n, err)
	}
	disk.sync = nil // the kernel reports it once
	if _, err := p.Sync(); !errors.Is(err, errUnsynced) {
		t.Fatalf("Sync after a failed one: %v", err)
	}
	if err := p.put(c, []byte("lost?")); !errors.Is(err, errUnsynced) {
		t.Fatalf("put after a failed Sync: %v", err)
	}
	if err := p.Close(); !errors.Is(err, errUnsynced) {
		t.Fatalf("Close after a failed Sync: %v", err)
	}
	q, err := OpenPartial(p.Path(), p.Root())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	wantCount(t, q, 1, 7)
}

// Any order of appends, repeats, syncs, restarts and torn tails keeps exactly
// the blocks whose sections are whole.
func TestPartialLaws(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		root := rawCID(t, []byte("root"))
		path := filepath.Join(dir, "x.car")
		p, err := OpenPartial(path, root)
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		type appended struct {
			data []byte
			end  int64
		}
		var log []appended
		check := func() {
			var sum uint64
			for _, a := range log {
				sum += uint64(len(a.data))
				got, err := p.Get(rawCID(t, a.data))
				if err != nil || !bytes.Equal(got, a.data) {
					r.Fatalf("Get: %v", err)
				}
			}
			if p.Written() != sum || p.Blocks() != uint64(len(log)) {
				r.Fatalf("written %d in %d blocks, want %d in %d", p.Written(), p.Blocks(), sum, len(log))
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"put": func(r *rapid.T) {
				data := noise(rapid.Uint64Range(0, 9).Draw(r, "seed"), rapid.SampledFrom([]int{0, 1, 99, 5000, 20000}).Draw(r, "size"))
				if err := p.put(rawCID(t, data), data); err != nil {
					r.Fatal(err)
				}
				log = append(log, appended{data, p.end})
			},
			"sync": func(r *rapid.T) {
				if n, err := p.Sync(); err != nil || n != p.Written() {
					r.Fatalf("Sync = %d, %v", n, err)
				}
			},
			"restart": func(r *rapid.T) {
				cut := rapid.Int64Range(0, 200).Draw(r, "torn bytes")
				size := max(p.end-cut, int64(len(headerFor(root))))
				if err := p.Close(); err != nil {
					r.Fatal(err)
				}
				if err := os.Truncate(path, size); err != nil {
					r.Fatal(err)
				}
				for len(log) > 0 && log[len(log)-1].end > size {
					log = log[:len(log)-1]
				}
				if p, err = OpenPartial(path, root); err != nil {
					r.Fatal(err)
				}
			},
			"": func(*rapid.T) { check() },
		})
	})
}

func FuzzOpenPartial(f *testing.F) {
	root := rawCID(f, []byte("root"))
	header := headerFor(root)
	one := append(appendFrameHead(bytes.Clone(header), rawCID(f, []byte("one")), 3), "one"...)
	f.Add([]byte{})
	f.Add(header)
	f.Add(one)
	f.Add(one[:len(one)-1])
	f.Add(append(bytes.Clone(one), 0))
	f.Add(append(bytes.Clone(one), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f))
	f.Add(append(bytes.Clone(header), 0x80, 0x80))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "f.car")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := OpenPartial(path, root)
		if err != nil {
			if after, _ := os.ReadFile(path); !bytes.Equal(after, content) {
				t.Fatal("a file that was refused was changed")
			}
			return
		}
		blocks, written := p.Blocks(), p.Written()
		c := mustPut(t, p, []byte("new"))
		p = reopen(t, p)
		wantCount(t, p, blocks+1, written+3)
		wantBlock(t, p, c, []byte("new"))
		if err := hashFrames(context.Background(), &frameWalker{r: p.file, end: p.end}, int64(len(header)), nil); err != nil {
			t.Fatalf("kept a bad block: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
