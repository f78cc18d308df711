package piece

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

func TestReuse(t *testing.T) {
	path := writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, testBlocks(12, 100, 1000), true)
	cfg := Config{Paths: []string{path}, IndexDir: t.TempDir()}
	open := func(wantBuilt uint64) *Store {
		t.Helper()
		s := openStore(t, cfg)
		checkNoProblems(t, s)
		if got := s.built.Load(); got != wantBuilt {
			t.Errorf("made %d indexes, want %d", got, wantBuilt)
		}
		return s
	}
	open(1)
	first := open(0).Pieces()[0]

	later := time.Unix(2_000_000_000, 5)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	open(1)
	if got := open(0).Pieces()[0]; got.ID != first.ID {
		t.Error("ID changed with the time")
	}

	other := testBlocks(13, 100, 1000)
	writeCAR(t, path, nil, other, true)
	s := open(1)
	checkServes(t, s, s.Pieces()[0].ID, other)

	cfg.SkipVerify = true
	open(0)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	open(1)
	cfg.SkipVerify = false
	open(1) // an index that was not verified does not do any more
	open(0)
}

// Whatever happens to an index, the piece is served right: it is made again, or
// the damage is found where it is read and mended at the next start.
func TestDamagedIndex(t *testing.T) {
	blocks := testBlocks(14, 200, 100)
	dir := t.TempDir()
	writeCAR(t, filepath.Join(dir, "a.car"), []cid.Cid{blocks[0].cid}, blocks, true)
	writeCAR(t, filepath.Join(dir, "b.car"), nil, testBlocks(15, 5, 100), true) // of one piece alone the filter is not read
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir()}
	s := openStore(t, cfg)
	index, _ := s.IndexPath(s.Pieces()[0].ID)
	good, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string][]byte{"empty": {}, "long": append(slices.Clone(good), 0)}
	for _, at := range []int{1, 8, 100, 4095, 4096, 5000, 2*4096 - 1, 3 * 4096, len(good) - 1} {
		flipped := slices.Clone(good)
		flipped[at] ^= 4
		damage[fmt.Sprintf("flipped at %d", at)] = flipped
	}
	for _, n := range []int{1, 100, 4096, 4097, 2 * 4096, len(good) - 1} {
		damage[fmt.Sprintf("cut at %d", n)] = good[:n]
	}
	for name, content := range damage {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(index, content, 0o644); err != nil {
				t.Fatal(err)
			}
			damaged := openStore(t, cfg)
			damaged.filters.Wait()
			if damaged.built.Load() == 0 {
				for _, b := range blocks {
					got, err := load(damaged.LinkSystem(cid.Undef), b.cid)
					if err == nil && !bytes.Equal(got, b.data) {
						t.Fatal("wrong block")
					}
				}
				if len(damaged.Problems()) != 1 {
					t.Errorf("problems are %v", damaged.Problems())
				}
			}
			s := openStore(t, cfg)
			checkNoProblems(t, s)
			checkServes(t, s, s.Pieces()[0].ID, blocks)
			if damaged.built.Load()+s.built.Load() != 1 {
				t.Errorf("made %d and %d indexes", damaged.built.Load(), s.built.Load())
			}
		})
	}
}
