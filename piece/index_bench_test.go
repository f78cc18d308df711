package piece

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// BenchmarkLookup finds blocks in an index of a million, and of ten million
// where there is time for it (TOLLGRAPH_BENCH_LARGE=1).
func BenchmarkLookup(b *testing.B) {
	sizes := []int{1_000_000}
	if os.Getenv("TOLLGRAPH_BENCH_LARGE") != "" {
		sizes = append(sizes, 10_000_000)
	}
	for _, n := range sizes {
		began := time.Now()
		f := syntheticIndex(b, n)
		built := time.Since(began)
		info, err := f.Stat()
		if err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		x, err := readIndex(f, info.Size())
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(began)
		b.Run(fmt.Sprintf("blocks=%d", n), func(b *testing.B) {
			took := make([]time.Duration, 0, 1<<20)
			rng := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for b.Loop() {
				k := syntheticKey(rng.Uint64N(uint64(n)))
				began := time.Now()
				if _, ok, err := x.find(k); !ok || err != nil {
					b.Fatal(ok, err)
				}
				if len(took) < cap(took) {
					took = append(took, time.Since(began))
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			b.ReportMetric(float64(opened.Microseconds()), "open-µs")
			b.ReportMetric(built.Seconds(), "build-s")
			b.ReportMetric(float64(x.size())/(1<<20), "MiB-held")
		})
		b.Run(fmt.Sprintf("absent/blocks=%d", n), func(b *testing.B) {
			i := uint64(n)
			for b.Loop() {
				i++
				if _, ok, err := x.find(syntheticKey(i)); ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(fmt.Sprintf("parallel/blocks=%d", n), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(rand.Uint64(), 2))
				for pb.Next() {
					if _, ok, err := x.find(syntheticKey(rng.Uint64N(uint64(n)))); !ok || err != nil {
						b.Error(ok, err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkRead reads blocks through the link system, one after the other and
// from all processors at once. BenchmarkIndexing makes the index.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{256 << 10, 1 << 20} {
		s, blocks := benchmarkStore(b, size)
		ls := s.LinkSystem(s.Pieces()[0].ID)
		b.Run(fmt.Sprintf("size=%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := load(ls, blocks[i%len(blocks)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("parallel/size=%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			var mu sync.Mutex
			b.RunParallel(func(pb *testing.PB) {
				mu.Lock()
				i := rand.IntN(len(blocks))
				mu.Unlock()
				for pb.Next() {
					if _, err := load(ls, blocks[i%len(blocks)]); err != nil {
						b.Error(err)
						return
					}
					i++
				}
			})
		})
	}
}

// benchmarkStore serves 128 MiB in blocks of one size.
func benchmarkStore(b *testing.B, size int) (*Store, []cid.Cid) {
	b.Helper()
	var blocks []testBlock
	var cids []cid.Cid
	rng := rand.NewChaCha8([32]byte{byte(size >> 16)})
	for range (128 << 20) / size {
		data := make([]byte, size)
		_, _ = rng.Read(data)
		block := makeBlock(data, cid.Raw, multihash.SHA2_256)
		blocks, cids = append(blocks, block), append(cids, block.cid)
	}
	path := writeCAR(b, filepath.Join(b.TempDir(), "a.car"), nil, blocks, true)
	return openStore(b, Config{Paths: []string{path}}), cids
}

func BenchmarkIndexing(b *testing.B) {
	for _, skip := range []bool{false, true} {
		s, _ := benchmarkStore(b, 1<<20)
		info := s.Pieces()[0]
		b.Run(fmt.Sprintf("skipVerify=%v", skip), func(b *testing.B) {
			b.SetBytes(int64(info.Size))
			for b.Loop() {
				openStore(b, Config{Paths: []string{info.Path}, SkipVerify: skip})
			}
		})
	}
}

// BenchmarkFind looks for a block among 200 pieces: one that the last of them
// has, and one that none has.
func BenchmarkFind(b *testing.B) {
	dir := b.TempDir()
	var last cid.Cid
	for i := range 200 {
		blocks := testBlocks(uint64(1000+i), 20, 100)
		writeCAR(b, filepath.Join(dir, fmt.Sprintf("%03d.car", i)), nil, blocks, true)
		last = blocks[7].cid
	}
	s := openStore(b, Config{Paths: []string{dir}})
	s.filters.Wait()
	for name, c := range map[string]cid.Cid{"there": last, "absent": makeBlock([]byte("absent"), cid.Raw, multihash.SHA2_256).cid} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := s.Find(c, nil); ok != (name == "there") {
					b.Fatal(ok)
				}
			}
		})
	}
}
