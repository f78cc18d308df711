package transport

import (
	"testing"

	"github.com/ipfs/go-graphsync"
)

// TestBound pins what a channel may be sent of blocks of 60 bytes, of which it skips two.
func TestBound(t *testing.T) {
	links := someLinks(t, 10)
	for name, tc := range map[string]struct {
		bound bound
		sent  int // blocks, until one is outside
	}{
		"none":                            {bound{}, 8},
		"free":                            {bound{set: true, own: true, size: 1 << 62}, 8},
		"its own beginning":               {bound{set: true, own: true, size: 100}, 3},
		"its own beginning, to the byte":  {bound{set: true, own: true, size: 120}, 3},
		"its own beginning, one more":     {bound{set: true, own: true, size: 121}, 4},
		"held until it is paid for":       {bound{set: true, own: true}, 1},
		"begins further on":               {bound{set: true, from: 60, size: 121}, 3},
		"begins where it should":          {bound{set: true, from: 120, size: 121}, 4},
		"begins before":                   {bound{set: true, from: 121, size: 1 << 62}, 0},
		"begins behind what it may have":  {bound{set: true, size: 60}, 1},
		"begins at what was let, and one": {bound{set: true, size: 120}, 1},
	} {
		m, id := &meter{}, graphsync.NewRequestID()
		m.begin(id, 2)
		m.bound = tc.bound
		sent := 0
		for i := range int64(10) {
			wire := i >= 2
			if _, outside := m.block(id, fakeBlock{links[i], 60, wire, i + 1}); outside {
				break
			}
			if wire {
				sent++
			}
		}
		if sent != tc.sent {
			t.Errorf("%s: %d blocks, want %d", name, sent, tc.sent)
		}
	}
}
