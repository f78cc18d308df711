package main

import (
	"runtime"
	"testing"
)

// TestSpare: the collector waits for the spare memory, and not where the user has
// bounded what the process has.
func TestSpare(t *testing.T) {
	for limit, most := range map[string]uint64{"": 3 * spareHeap, "100MiB": spareHeap / 4} {
		t.Setenv("GOMEMLIMIT", limit)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		before := m.NextGC
		heap := spare()
		runtime.GC()
		runtime.ReadMemStats(&m)
		runtime.KeepAlive(heap)
		least := before
		if limit == "" {
			least += spareHeap * 3 / 2
		}
		if m.NextGC+1<<20 < least || m.NextGC > before+most {
			t.Errorf("limit %q: collects at %d MiB, before at %d", limit, m.NextGC>>20, before>>20)
		}
	}
}
