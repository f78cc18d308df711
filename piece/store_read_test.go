package piece

import (
	"path/filepath"
	"testing"
)

// A lookup asks for no memory, and a read for no more than the block: each piece of
// memory is now and then one that nobody used yet, which takes longer than the lookup.
func TestLookupMemory(t *testing.T) {
	blocks := testBlocks(71, 10, 100)
	s := openStore(t, Config{Paths: []string{writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, blocks, true)}})
	c := blocks[3].cid
	if n := testing.AllocsPerRun(1000, func() { s.Size(c) }); n > 0 {
		t.Errorf("a lookup asks %v times", n)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = s.Get(c) }); n > 1 {
		t.Errorf("a read asks %v times", n)
	}
}
