package piece

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/multiformats/go-multihash"
)

// readAll reads a CAR from memory the way indexing does.
func readAll(data []byte) (scanned, []section, error) {
	r := bytes.NewReader(data)
	h, err := readHeader(r, int64(len(data)))
	if err != nil {
		return scanned{}, nil, err
	}
	var out []section
	got, err := scan(context.Background(), r, h, true, func(s section) error {
		out = append(out, s)
		return nil
	})
	return got, out, err
}

func carBytes(t testing.TB, roots []cid.Cid, blocks []testBlock, v1 bool) []byte {
	t.Helper()
	data, err := os.ReadFile(writeCAR(t, filepath.Join(t.TempDir(), "a.car"), roots, blocks, v1))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A CAR that is cut anywhere but between two sections is never taken for whole.
func TestTruncated(t *testing.T) {
	blocks := testBlocks(30, 5, 60)
	for _, v1 := range []bool{true, false} {
		data := carBytes(t, []cid.Cid{blocks[0].cid}, blocks, v1)
		_, sections, err := readAll(data)
		if err != nil || len(sections) != len(blocks) {
			t.Fatal(len(sections), err)
		}
		between := make(map[int]bool)
		for _, s := range sections {
			between[int(s.at)] = v1 // a CARv2 knows its length
		}
		last := sections[len(sections)-1]
		end := len(data)
		if !v1 {
			end = int(last.at) + 1 + last.cidLen + last.size // the index behind it is not used
		}
		for n := range end {
			_, _, err := readAll(data[:n])
			if between[n] {
				if err != nil {
					t.Errorf("v1=%v cut between sections at %d: %v", v1, n, err)
				}
			} else if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrNotCAR) {
				t.Errorf("v1=%v cut at %d of %d: error is %v", v1, n, end, err)
			}
		}
	}
}

// A flipped bit anywhere in a CARv1 is found, or changes the ID.
func TestFlipped(t *testing.T) {
	blocks := testBlocks(31, 4, 60)
	data := carBytes(t, []cid.Cid{blocks[0].cid}, blocks, true)
	good, sections, err := readAll(data)
	if err != nil {
		t.Fatal(err)
	}
	first := int(sections[0].at)
	for at := range data {
		for bit := range 8 {
			flipped := slices.Clone(data)
			flipped[at] ^= 1 << bit
			got, _, err := readAll(flipped)
			if err == nil && got.sum == good.sum {
				t.Fatalf("bit %d of byte %d: not noticed", bit, at)
			}
			// The version and codec of a block's CID are not covered by its hash.
			if err == nil && at > first && !isCodec(sections, at) {
				t.Errorf("bit %d of byte %d: no error", bit, at)
			}
		}
	}
}

// isCodec reports whether byte at is the codec of a section's CID.
func isCodec(sections []section, at int) bool {
	return slices.ContainsFunc(sections, func(s section) bool { return int64(at) == s.off+1 })
}

// The first bad block is named with its place.
func TestBadBlockIsNamed(t *testing.T) {
	blocks := testBlocks(32, 3000, 2000)
	blocks[1700].data = slices.Clone(blocks[1700].data)
	blocks[1700].data[3] ^= 1
	blocks[2900].data = nil
	path := writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, blocks, true)
	s := openStore(t, Config{Paths: []string{path}})
	ps := s.Problems()
	if len(ps) != 1 || ps[0].Served || len(s.Pieces()) != 0 {
		t.Fatalf("problems are %v", ps)
	}
	var bad *SectionError
	if !errors.As(ps[0].Err, &bad) || !errors.Is(bad, ErrBadBlock) || bad.Block != blocks[1700].cid.String() {
		t.Fatalf("error is %v", ps[0].Err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 50)
	if _, err := f.ReadAt(head, bad.Offset); err != nil {
		t.Fatal(err)
	}
	_, n := binary.Uvarint(head)
	if _, c, err := cid.CidFromBytes(head[n:]); err != nil || c != blocks[1700].cid {
		t.Errorf("offset %d is of %v, %v", bad.Offset, c, err)
	}
	if s := openStore(t, Config{Paths: []string{path}, SkipVerify: true}); len(s.Pieces()) != 1 {
		t.Errorf("with SkipVerify: %v", s.Problems())
	}
}

// sectionBytes returns a section as a CAR has it.
func sectionBytes(c, data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(c)+len(data)))
	return append(append(b, c...), data...)
}

func TestHostileCAR(t *testing.T) {
	block := testBlocks(33, 1, 60)[0]
	head := carBytes(t, []cid.Cid{block.cid}, nil, true)
	good := sectionBytes(block.cid.Bytes(), block.data)
	long, _ := multihash.Encode(make([]byte, 3000), multihash.IDENTITY)
	unknown, _ := multihash.Encode(make([]byte, 32), 0x300539)
	big := make([]byte, MaxBlockSize+1)
	v2 := carBytes(t, nil, []testBlock{block}, false)
	patched := func(at int, n uint64) []byte {
		b := slices.Clone(v2)
		binary.LittleEndian.PutUint64(b[at:], n)
		return b
	}
	for name, data := range map[string][]byte{
		"huge header":           binary.AppendUvarint(nil, 1<<62),
		"header over limit":     append(binary.AppendUvarint(nil, maxHeaderSize+1), make([]byte, maxHeaderSize+1)...),
		"endless varint":        bytes.Repeat([]byte{0xff}, 100),
		"version 3":             {0x0a, 0xa1, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 3},
		"no version":            {0x01, 0xa0},
		"huge section":          append(slices.Clone(head), binary.AppendUvarint(nil, 1<<60)...),
		"section over limit":    append(slices.Clone(head), append(binary.AppendUvarint(nil, MaxBlockSize+maxCIDSize+1), make([]byte, MaxBlockSize+maxCIDSize+1)...)...),
		"block over limit":      append(slices.Clone(head), sectionBytes(makeBlock(big, cid.Raw, multihash.SHA2_256).cid.Bytes(), big)...),
		"endless length":        append(slices.Clone(head), bytes.Repeat([]byte{0x80}, 20)...),
		"length not minimal":    append(slices.Clone(head), append([]byte{good[0] | 0x80, 0}, good[1:]...)...),
		"no CID":                append(slices.Clone(head), 4, 9, 9, 9, 9),
		"long CID":              append(slices.Clone(head), sectionBytes(cid.NewCidV1(cid.Raw, long).Bytes(), nil)...),
		"unknown hash":          append(slices.Clone(head), sectionBytes(cid.NewCidV1(cid.Raw, unknown).Bytes(), nil)...),
		"wrong identity":        append(slices.Clone(head), sectionBytes(makeBlock([]byte("x"), cid.Raw, multihash.IDENTITY).cid.Bytes(), []byte("y"))...),
		"zero, then something":  slices.Concat(head, []byte{0}, good),
		"v2 data in header":     patched(27, 3),
		"v2 data behind file":   patched(27, 1<<40),
		"v2 data wraps around":  patched(27, ^uint64(0)),
		"v2 data longer":        patched(35, uint64(len(v2))),
		"v2 length wraps":       patched(35, ^uint64(0)),
		"v2 not finished":       patched(35, 0),
		"v2 cut in its section": patched(35, uint64(len(head)+3)),
		"v2 in v2":              append(slices.Clone(v2[:51]), v2...),
	} {
		if _, _, err := readAll(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, data := range map[string][]byte{
		"nothing in it": head,
		"duplicates":    slices.Concat(head, good, good, good),
		"padding":       slices.Concat(head, good, make([]byte, 1<<17)),
	} {
		if _, _, err := readAll(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain, _, _ := readAll(slices.Concat(head, good))
	padded, _, _ := readAll(slices.Concat(head, good, make([]byte, 1000)))
	if plain.sum != padded.sum {
		t.Error("padding changes the ID")
	}
}

func TestScanCancel(t *testing.T) {
	data := carBytes(t, nil, testBlocks(34, 2000, 4000), true)
	h, err := readHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	_, err = scan(ctx, bytes.NewReader(data), h, true, func(section) error {
		if n++; n == 300 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	broken := errors.New("full")
	if _, err := scan(context.Background(), bytes.NewReader(data), h, true, func(section) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

// FuzzCAR: no CAR makes the reader panic or take memory that the file does not
// hold, and what it takes for whole go-car reads the same.
func FuzzCAR(f *testing.F) {
	blocks := testBlocks(35, 3, 40)
	blocks = append(blocks, makeBlock([]byte("in"), cid.Raw, multihash.IDENTITY))
	for _, v1 := range []bool{true, false} {
		data := carBytes(f, []cid.Cid{blocks[0].cid}, blocks, v1)
		f.Add(data)
		f.Add(data[:len(data)/2])
		f.Add(append(slices.Clone(data), make([]byte, 50)...))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, sections, err := readAll(data)
		if err != nil {
			return
		}
		r, err := car.NewBlockReader(bytes.NewReader(data), car.ZeroLengthSectionAsEOF(true))
		if err != nil {
			return // stricter in the header: roots must not be absent
		}
		for i := 0; ; i++ {
			b, err := r.Next()
			if errors.Is(err, io.EOF) && i == len(sections) {
				return
			}
			if err != nil || i == len(sections) || b.Cid() != sections[i].cid || len(b.RawData()) != sections[i].size {
				t.Fatalf("section %d of %d: go-car says %v", i, len(sections), err)
			}
		}
	})
}
