package transport

import (
	"maps"
	"sync"
)

// counts are counters by reason.
type counts struct {
	mu sync.Mutex // guards n
	n  map[Reason]uint64
}

func newCounts() *counts { return &counts{n: make(map[Reason]uint64)} }

func (c *counts) add(r Reason) {
	c.mu.Lock()
	c.n[r]++
	c.mu.Unlock()
}

func (c *counts) all() map[Reason]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
