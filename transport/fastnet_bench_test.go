package transport

import (
	"testing"
	"time"
)

// BenchmarkTransfer moves 256 MiB by one graphsync request over loopback TCP,
// from memory to memory.
func BenchmarkTransfer(b *testing.B) {
	const total = 256 << 20
	for _, size := range []struct {
		name  string
		bytes int
	}{{"256KiB", 256 << 10}, {"1MiB", 1 << 20}} {
		from := newFastStore()
		root := fillStar(b, from, total, size.bytes)
		for _, kind := range []networkKind{stockKind, fastKind} {
			b.Run(kind.name+"/"+size.name, func(b *testing.B) {
				b.SetBytes(total)
				b.ReportAllocs()
				for range b.N {
					b.StopTimer()
					p := newPair(b, from, kind, kind)
					b.StartTimer()
					if err := p.fetch(testContext(b, time.Minute), root); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if p.store.bytes < total {
						b.Fatalf("received %d bytes of %d", p.store.bytes, total)
					}
					_ = p.client.Close()
					_ = p.provider.Close()
				}
			})
		}
	}
}
