// Package global has one of each kind of global state, for a test that looks for
// them.
package global

import (
	"log/slog"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	fixed    = [...]string{"a"}
	pool     = sync.Pool{New: func() any { return new(sync.Mutex) }}
	seen     = map[string]int{}
	changed  = map[string]int{}
	counts   struct{ n int }
	count    int
	escaped  int
	lock     sync.Mutex
	registry = prometheus.NewRegistry()
)

func init() { slog.SetDefault(nil) }

func use() any {
	fixed := fixed // a local one may change
	fixed[0] = "b"
	seen["x"] = 1
	counts.n = 2
	count++
	clear(changed)
	_ = os.Setenv("a", "b")
	return []any{&escaped, pool.Get(), registry}
}
