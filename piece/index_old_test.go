package piece

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// The index in testdata is one that the program of version 1 made of these blocks.
func oldPiece(t *testing.T, dir string) (blocks []testBlock, car string, index []byte) {
	t.Helper()
	blocks = testBlocks(70, 100, 100)
	car = writeCAR(t, filepath.Join(dir, "a.car"), []cid.Cid{blocks[0].cid}, blocks, true)
	when := time.Unix(1_600_000_000, 0)
	if err := os.Chtimes(car, when, when); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join("testdata", "version1.idx"))
	if err != nil {
		t.Fatal(err)
	}
	return blocks, car, index
}

// putIndex puts an index where a store looks for that of car.
func putIndex(t *testing.T, cfg Config, car string, index []byte) string {
	t.Helper()
	path := (&Store{cfg: cfg}).indexPath(car)
	if err := os.WriteFile(path, index, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// An index of an earlier version is written anew, without reading its piece, once,
// and says all that one of this version would say.
func TestOldIndex(t *testing.T) {
	blocks, car, index := oldPiece(t, t.TempDir())
	cfg := Config{Paths: []string{car}, IndexDir: t.TempDir(), Logger: quiet()}
	fresh := openStore(t, Config{Paths: []string{car}}).Pieces()[0]
	path := putIndex(t, cfg, car, index)
	var written []byte
	for range 2 {
		s := openStore(t, cfg)
		checkNoProblems(t, s)
		got := s.Pieces()[0]
		if got.ID != fresh.ID || got.Blocks != fresh.Blocks || got.PayloadSize != fresh.PayloadSize || got.Size != fresh.Size || len(got.Roots) != 1 || got.Roots[0] != blocks[0].cid {
			t.Errorf("is %+v, want %+v", got, fresh)
		}
		checkServes(t, s, fresh.ID, blocks)
		if s.built.Load() != 0 {
			t.Error("read the piece again")
		}
		now, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if written != nil && !bytes.Equal(now, written) {
			t.Error("written anew twice")
		}
		written = now
	}
	if bytes.Equal(written, index) {
		t.Error("is not written anew")
	}
}

// One that is damaged, or of another file, is not believed.
func TestOldIndexDamaged(t *testing.T) {
	blocks, car, good := oldPiece(t, t.TempDir())
	for _, at := range []int{1, 8, 100, 4096, 2 * 4096, 3*4096 - 1, 3 * 4096, len(good) - 1, -1, len(good)} {
		cfg := Config{Paths: []string{car}, IndexDir: t.TempDir(), Logger: quiet()}
		index := bytes.Clone(good)
		switch {
		case at < 0:
			later := time.Unix(1_700_000_000, 0)
			if err := os.Chtimes(car, later, later); err != nil {
				t.Fatal(err)
			}
		case at == len(good):
			index = good[:at-1]
		default:
			index[at] ^= 4
		}
		putIndex(t, cfg, car, index)
		s := openStore(t, cfg)
		checkNoProblems(t, s)
		checkServes(t, s, s.Pieces()[0].ID, blocks)
		if s.built.Load() != 1 {
			t.Errorf("changed at %d: made %d indexes", at, s.built.Load())
		}
	}
}

// One that cannot be written anew, as on a full disk, is named as that: to read all of
// the piece would only come to the same.
func TestOldIndexNotRenewed(t *testing.T) {
	_, car, index := oldPiece(t, t.TempDir())
	s := &Store{cfg: Config{IndexDir: t.TempDir()}, log: quiet()}
	path := putIndex(t, s.cfg, car, index)
	if _, _, err := s.openIndex(t.Context(), path, filepath.Join(t.TempDir(), "away", "a.idx")); !errors.Is(err, errNotRenewed) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, index) {
		t.Errorf("it is not as it was: %v", err)
	}
}

// A start that is ended while one is written anew ends, and leaves the old one and nothing
// else.
func TestOldIndexEnded(t *testing.T) {
	_, car, index := oldPiece(t, t.TempDir())
	s := &Store{cfg: Config{IndexDir: t.TempDir()}, log: quiet()}
	path := putIndex(t, s.cfg, car, index)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.openIndex(ctx, path, path); !errors.Is(err, errNotRenewed) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	b := newIndexBuilder(s.cfg.IndexDir)
	defer b.Close()
	if err := errors.Join(b.add(record{}), b.write(ctx, path, indexMeta{})); !errors.Is(err, context.Canceled) {
		t.Errorf("it is written: %v", err)
	}
	left, err := os.ReadDir(s.cfg.IndexDir)
	if now, err2 := os.ReadFile(path); err != nil || err2 != nil || !bytes.Equal(now, index) || len(left) != 1 {
		t.Errorf("it is not as it was, or not alone: %v, %v, %v", left, err, err2)
	}
}

// That of a sealed piece is the only one there is: it is kept where it came with the
// piece, and written anew among those of the store.
func TestOldIndexSealed(t *testing.T) {
	for _, beside := range []bool{false, true} {
		dir := t.TempDir()
		blocks, car, index := oldPiece(t, dir)
		if err := os.Rename(car, car+sealedSuffix); err != nil { // a seal that changes nothing
			t.Fatal(err)
		}
		cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
		own := (&Store{cfg: cfg}).indexPath(car)
		if beside {
			if err := os.WriteFile(car+indexSuffix, index, 0o444); err != nil {
				t.Fatal(err)
			}
		} else {
			putIndex(t, cfg, car, index)
		}
		for range 2 {
			s := openStore(t, cfg)
			checkNoProblems(t, s)
			if ps := s.Pieces(); len(ps) != 1 || !ps[0].Sealed || ps[0].Blocks != uint64(len(blocks)) {
				t.Fatalf("pieces are %+v", ps)
			}
			if path, _ := s.IndexPath(s.Pieces()[0].ID); path != own {
				t.Errorf("index is at %s, want %s", path, own)
			}
			if size, ok := s.Size(blocks[7].cid); !ok || size != uint64(len(blocks[7].data)) {
				t.Errorf("size is %d, %v", size, ok)
			}
		}
		if beside {
			if now, err := os.ReadFile(car + indexSuffix); err != nil || !bytes.Equal(now, index) {
				t.Errorf("what lay beside the piece was changed: %v", err)
			}
		}
	}
}
