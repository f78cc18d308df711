package piece

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

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
		if err := b.write(context.Background(), path, meta); err != nil {
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
		if err := x.readFilter(); err != nil {
			t.Fatal(err)
		}
		for k := range want {
			if x.lacks(k) {
				t.Fatalf("%x is lacking", k)
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

// Keys that someone chose to lie together are spread over the buckets as all are.
func TestChosenKeys(t *testing.T) {
	const n = 20_000
	dir := t.TempDir()
	b := newIndexBuilder(dir)
	defer b.Close()
	chosen := func(i int) (k key) {
		binary.BigEndian.PutUint32(k[28:], uint32(i))
		return k
	}
	for i := range n {
		if err := b.add(record{key: chosen(i), off: int64(i), size: i}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "x.idx")
	if err := b.write(context.Background(), path, indexMeta{}); err != nil {
		t.Fatal(err)
	}
	x, f, err := openIndex(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fullest := 0
	for i := range x.buckets {
		_, records := x.dir.bucket(i)
		fullest = max(fullest, records)
	}
	if fullest > 4*bucketRecords { // by chance once in ten million times
		t.Errorf("a bucket has %d records", fullest)
	}
	for i := range n {
		if r, ok, err := x.find(chosen(i)); err != nil || !ok || r.size != i {
			t.Fatalf("found %+v, %v, %v for %d", r, ok, err, i)
		}
	}
	if other := newIndexBuilder(dir); other.seed == b.seed {
		t.Error("the seed is always the same")
	}
}

// SHA-256 digests are their own keys; other multihashes cannot meet them.
func TestKeys(t *testing.T) {
	b := makeBlock([]byte("data"), cid.Raw, multihash.SHA2_256)
	if k := keyOf(b.cid); !bytes.Equal(k[:], b.cid.Hash()[2:]) {
		t.Error("not the digest")
	}
	seen := make(map[key]uint64)
	for _, hash := range []uint64{multihash.SHA2_256, multihash.SHA2_512, multihash.BLAKE2B_MIN + 31, multihash.KECCAK_256, multihash.SHA3_256} {
		k := keyOf(makeBlock([]byte("data"), cid.Raw, hash).cid)
		if other, ok := seen[k]; ok {
			t.Errorf("%x and %x meet", hash, other)
		}
		seen[k] = hash
	}
	// A block whose content is another block's multihash does not meet it.
	blake := makeBlock([]byte("data"), cid.Raw, multihash.BLAKE2B_MIN+31).cid
	if keyOf(makeBlock(blake.Hash(), cid.Raw, multihash.SHA2_256).cid) == keyOf(blake) {
		t.Error("can be made to meet")
	}
}

// The multihash of a CID is what it says it is, whatever its version and codec.
func TestHashOf(t *testing.T) {
	sum := makeBlock([]byte("data"), cid.Raw, multihash.SHA2_256).cid.Hash()
	cids := []cid.Cid{cid.Undef, cid.NewCidV0(sum)}
	for _, codec := range []uint64{0, cid.Raw, cid.DagCBOR, 0x7f, 0x80, cid.FilCommitmentSealed, 1<<63 - 1} {
		for _, hash := range []uint64{multihash.SHA2_256, multihash.SHA2_512, multihash.BLAKE2B_MIN + 31, multihash.IDENTITY} {
			cids = append(cids, makeBlock([]byte("data"), codec, hash).cid)
		}
	}
	for _, c := range cids {
		if got := hashOf(c); got != string(c.Hash()) {
			t.Errorf("of %s: %x, want %x", c, got, c.Hash())
		}
	}
}

func TestFilter(t *testing.T) {
	f := newFilter(10_000)
	var keys []key
	for i := range 20_000 {
		keys = append(keys, keyOf(makeBlock(binary.AppendUvarint(nil, uint64(i)), cid.Raw, multihash.SHA2_256).cid))
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
// has bytes; buckets that do not check are refused.
func FuzzIndex(f *testing.F) {
	for _, n := range []int{0, 1, 8, 9, 200} {
		x := syntheticIndex(f, n)
		data, err := os.ReadFile(x.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, true)
		f.Add(data, false)
		f.Add(data[:len(data)-1], true)
	}
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		if mend {
			mendSums(data)
		}
		x, err := readIndex(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if err := x.readFilter(); err != nil && !errors.Is(err, errIndexDamaged) {
			t.Fatal(err)
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

// mendSums lets what was changed in an index pass the checksums, so that what is
// behind them is tested.
func mendSums(data []byte) {
	if len(data) < pageSize {
		return
	}
	page := (*[pageSize]byte)(data)
	size := uint64(len(data))
	h := decodeHeaderNumbers(page)
	if h.meta.blocks <= size && h.buckets <= size && h.summaryAt() <= h.filterAt() && h.filterAt() <= int64(len(data)) {
		h.summarySum = crc32.Checksum(data[h.summaryAt():h.filterAt()], castagnoli)
		h.filterSum = crc32.Checksum(data[h.filterAt():], castagnoli)
		dir := directory(data[h.summaryAt()+int64(h.rootBytes) : h.filterAt()])
		for i := range h.buckets {
			at, n := dir.bucket(i)
			if end := at + uint64(n)*recordSize + sealSize; at <= size && pageSize+end <= size {
				seal(data[pageSize+at : pageSize+end])
			}
		}
	}
	copy(page[:], h.encode()[:])
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
	if err := b.write(context.Background(), path, indexMeta{}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
