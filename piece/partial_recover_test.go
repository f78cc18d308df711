package piece

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

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
