package piece

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
)

// What several pieces do not have is refused by their filters alone, once they are in
// memory; what one alone does not have by its index, and it keeps no filter.
func TestFiltersRead(t *testing.T) {
	for _, n := range []int{1, 3} {
		dir := t.TempDir()
		var all [][]testBlock
		for i := range n {
			blocks := testBlocks(uint64(80+i), 40, 100)
			writeCAR(t, filepath.Join(dir, fmt.Sprint(i, ".car")), []cid.Cid{blocks[0].cid}, blocks, true)
			all = append(all, blocks)
		}
		s := openStore(t, Config{Paths: []string{dir}})
		absent := testBlocks(90, 100, 100)
		check := func() {
			t.Helper()
			for i, blocks := range all {
				checkServes(t, s, s.Pieces()[i].ID, blocks)
			}
			for _, b := range absent {
				if _, ok := s.Size(b.cid); ok {
					t.Fatal("found what is not there")
				}
			}
		}
		check() // some of it before the filters are there
		s.filters.Wait()
		check()
		refused := 0
		for _, p := range s.pieces {
			for _, b := range absent {
				if p.idx.lacks(keyOf(b.cid)) {
					refused++
				}
			}
		}
		if n == 1 && refused != 0 || n > 1 && refused < n*len(absent)*9/10 {
			t.Errorf("%d pieces: %d of %d refused by filters", n, refused, n*len(absent))
		}
	}
}
