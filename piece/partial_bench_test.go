package piece

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func BenchmarkPartialPut(b *testing.B) {
	for _, size := range []int{1 << 10, 256 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			root := rawCID(b, []byte("root"))
			data := noise(1, size)
			digest := make([]byte, 32)
			var p *Partial
			var err error
			b.SetBytes(int64(size))
			for i := range b.N {
				if i%(max(1, 512<<20/size)) == 0 { // at most 512 MiB on disk
					b.StopTimer()
					if p != nil {
						_ = p.Discard()
					}
					if p, err = OpenPartial(filepath.Join(b.TempDir(), fmt.Sprint(i)), root); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				binary.LittleEndian.PutUint64(digest, uint64(i))
				if err := p.put(numbered(digest), data); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			_ = p.Discard()
		})
	}
}

// BenchmarkPartialIndex measures the memory of the index, at a million blocks.
func BenchmarkPartialIndex(b *testing.B) {
	const blocks = 1_000_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := newBlockIndex(nil)
		digest := make([]byte, 32)
		for i := range blocks {
			binary.LittleEndian.PutUint64(digest, uint64(i))
			h, _ := multihash.Encode(digest, multihash.SHA2_256)
			if err := x.add(h, int64(i)); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/blocks, "B/block")
		runtime.KeepAlive(x)
	}
}

// numbered is the CID of a raw block with this SHA-256.
func numbered(digest []byte) cid.Cid {
	h, _ := multihash.Encode(digest, multihash.SHA2_256)
	return cid.NewCidV1(cid.Raw, h)
}
