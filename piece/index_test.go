package piece

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	"pgregory.net/rapid"
)

// Whatever was added is found, the first of those with the same key, and nothing
// else, in memory or through runs on disk.
func TestIndexLaws(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		b := newIndexBuilder(dir)
		defer b.Close()
		b.limit = rapid.IntRange(1, 400).Draw(t, "limit")
		n := rapid.IntRange(0, 500).Draw(t, "n")
		narrow := rapid.IntRange(1, 32).Draw(t, "narrow") // few bytes differ, so that keys meet
		want := make(map[key]record)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var blockSize uint64
		for i := range n {
			r := record{off: int64(i) << 40, cidLen: rng.IntN(256), size: rng.IntN(MaxBlockSize + 1)}
			for j := range narrow {
				r.key[31-j] = byte(rng.IntN(256) >> (8 - min(8, narrow+4)))
			}
			if err := b.add(r); err != nil {
				t.Fatal(err)
			}
			if _, ok := want[r.key]; !ok {
				want[r.key] = r
				blockSize += uint64(r.size)
			}
		}
		path := filepath.Join(dir, "x.idx")
		root := makeBlock([]byte("root"), cid.Raw, multihash.SHA2_256).cid
		meta := indexMeta{fileSize: 5, fileTime: -3, payload: 4, sections: uint64(n), verified: n%2 == 0, sum: [32]byte{1}, commP: [32]byte{2}, roots: []cid.Cid{root, root}}
		if err := b.write(path, meta); err != nil {
			t.Fatal(err)
		}
		x, f, err := openIndex(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		meta.blocks, meta.blockSize = uint64(len(want)), blockSize
		if fmt.Sprint(x.meta) != fmt.Sprint(meta) {
			t.Fatalf("meta is %+v, want %+v", x.meta, meta)
		}
		for k, r := range want {
			if got, ok, err := x.find(k); err != nil || !ok || got != r {
				t.Fatalf("found %+v %v %v, want %+v", got, ok, err, r)
			}
		}
		for i := range 300 {
			var k key
			binary.BigEndian.PutUint32(k[28:], uint32(i))
			k[0] = byte(i)
			_, ok, err := x.find(k)
			if _, there := want[k]; ok != there || err != nil {
				t.Fatalf("%x: %v, %v", k, ok, err)
			}
		}
	})
	if names, _ := filepath.Glob(filepath.Join(dir, "*"+tempMark+"*")); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// The page of a key is the one that halving finds, wherever keys lie.
func TestPageOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		mask := rapid.SampledFrom([]uint64{0, 1, 0xff, 0xffff << 40, 1<<63 | 3, ^uint64(0)}).Draw(t, "mask") // of the bits that differ
		base := rapid.SampledFrom([]uint64{0, ^uint64(0), 1 << 63}).Draw(t, "base") &^ mask
		draw := func() (k key) {
			binary.BigEndian.PutUint64(k[:], base|rng.Uint64()&mask)
			k[31] = byte(rng.IntN(4))
			return k
		}
		keys := make([]key, rapid.IntRange(0, 400).Draw(t, "pages"))
		for i := range keys {
			keys[i] = draw()
		}
		slices.SortFunc(keys, func(a, b key) int { return bytes.Compare(a[:], b[:]) })
		keys = slices.Compact(keys)
		x := &index{}
		for _, k := range keys {
			x.first = append(x.first, k[:]...)
		}
		x.fillHeads()
		for range 200 {
			k, want := draw(), -1
			for i := range keys {
				if bytes.Compare(keys[i][:], k[:]) <= 0 {
					want = i
				}
			}
			if got := x.pageOf(k); got != want {
				t.Fatalf("%x is in page %d of %d, not %d", k, want, len(keys), got)
			}
		}
	})
}

// SHA-256 digests are their own keys; other multihashes cannot meet them.
func TestKeys(t *testing.T) {
	b := makeBlock([]byte("data"), cid.Raw, multihash.SHA2_256)
	if k := keyOf(b.cid.Hash()); !bytes.Equal(k[:], b.cid.Hash()[2:]) {
		t.Error("not the digest")
	}
	seen := make(map[key]uint64)
	for _, hash := range []uint64{multihash.SHA2_256, multihash.SHA2_512, multihash.BLAKE2B_MIN + 31, multihash.KECCAK_256, multihash.SHA3_256} {
		k := keyOf(makeBlock([]byte("data"), cid.Raw, hash).cid.Hash())
		if other, ok := seen[k]; ok {
			t.Errorf("%x and %x meet", hash, other)
		}
		seen[k] = hash
	}
	// A block whose content is another block's multihash does not meet it.
	blake := makeBlock([]byte("data"), cid.Raw, multihash.BLAKE2B_MIN+31).cid.Hash()
	if keyOf(makeBlock(blake, cid.Raw, multihash.SHA2_256).cid.Hash()) == keyOf(blake) {
		t.Error("can be made to meet")
	}
}

func TestFilter(t *testing.T) {
	f := newFilter(10_000)
	var keys []key
	for i := range 20_000 {
		keys = append(keys, keyOf(makeBlock(binary.AppendUvarint(nil, uint64(i)), cid.Raw, multihash.SHA2_256).cid.Hash()))
	}
	for _, k := range keys[:10_000] {
		f.add(k)
	}
	wrong := 0
	for i, k := range keys {
		if has := f.has(k); i < 10_000 && !has {
			t.Fatal("lost a key")
		} else if i >= 10_000 && has {
			wrong++
		}
	}
	if wrong > 250 {
		t.Errorf("wrong for %d of 10000", wrong)
	}
}

// FuzzIndex: no index file makes the reader panic, or take more memory than it
// has bytes; pages that do not check are refused.
func FuzzIndex(f *testing.F) {
	for _, n := range []int{0, 1, 93, 94, 200} {
		x := syntheticIndex(f, n)
		data, err := os.ReadFile(x.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint64(1))
		f.Add(data[:len(data)-1], uint64(2))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		// Let what was changed pass the checksums, so that what is behind them is tested.
		for at := 0; at+pageSize <= len(data); at += pageSize {
			if seed&1 == 0 {
				sealPage((*[pageSize]byte)(data[at:]))
			}
		}
		x, err := readIndex(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if x.size() > len(data) {
			t.Fatal("takes more memory than the file has")
		}
		for i := range uint64(50) {
			_, _, _ = x.find(syntheticKey(i))
		}
		if err := x.each(func(record) error { return nil }); err != nil && !errors.Is(err, errIndexDamaged) {
			t.Fatal(err)
		}
	})
}

// syntheticKey returns the i-th of many well mixed keys.
func syntheticKey(i uint64) (k key) {
	rng := rand.NewPCG(i, 7)
	for at := 0; at < len(k); at += 8 {
		binary.BigEndian.PutUint64(k[at:], rng.Uint64())
	}
	return k
}

// syntheticIndex writes an index with syntheticKey(0) to syntheticKey(n-1).
func syntheticIndex(t testing.TB, n int) *os.File {
	t.Helper()
	dir := t.TempDir()
	b := newIndexBuilder(dir)
	defer b.Close()
	for i := range n {
		if err := b.add(record{key: syntheticKey(uint64(i)), off: int64(i) * 300_000, cidLen: 36, size: 262_144}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "synthetic.idx")
	if err := b.write(path, indexMeta{}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

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
