package piece

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

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
