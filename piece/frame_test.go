package piece

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func TestParseFrame(t *testing.T) {
	data := noise(1, 200)
	c := rawCID(t, data)
	whole := append(appendFrameHead(nil, c, len(data)), data...)
	size := int64(len(whole))
	f, err := parseFrame(5, 5+size, whole)
	if want := (frame{at: 5, cid: c, head: 2 + 36, size: 200}); err != nil || f != want {
		t.Fatalf("frame %+v, %v, want %+v", f, err, want)
	}
	if f.data() != 43 || f.end() != 5+size {
		t.Fatalf("data at %d, end at %d", f.data(), f.end())
	}
	if again, err := parseFrame(5, 5+size, whole[:f.head]); err != nil || again != f { // the head is enough
		t.Fatalf("frame %+v, %v", again, err)
	}
	for end := range size {
		if _, err := parseFrame(5, 5+end, whole[:end]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: %v", end, err)
		}
	}
	digest := bytes.Repeat([]byte{1}, maxCIDSize)
	long, err := multihash.Encode(digest, multihash.IDENTITY)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"length zero":      {0, 1, 2, 3},
		"no minimal form":  {0x81, 0x00, 1, 2},
		"endless length":   bytes.Repeat([]byte{0xff}, 20),
		"length too large": appendFrameHead(nil, c, MaxBlockSize+maxCIDSize),
		"block too large":  append(appendFrameHead(nil, c, MaxBlockSize+1), 0),
		"no CID":           {5, 9, 9, 9, 9, 9},
		"half a CID":       append([]byte{10}, c.Bytes()[:10]...),
		"long CID":         appendFrameHead(nil, cid.NewCidV1(cid.Raw, long), 10),
	} {
		if f, err := parseFrame(0, 1<<40, b); err == nil || errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

// The header is what other readers read, for roots of any length.
func TestHeaderFor(t *testing.T) {
	short, _ := multihash.Encode([]byte("x"), multihash.IDENTITY)
	long, _ := multihash.Encode(bytes.Repeat([]byte("x"), 400), multihash.IDENTITY)
	sha := rawCID(t, []byte("root"))
	for _, root := range []cid.Cid{sha, cid.NewCidV0(sha.Hash()), cid.NewCidV1(cid.Raw, short), cid.NewCidV1(cid.Raw, long)} {
		b := headerFor(root)
		h, err := readHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil || h.version != 1 || h.body != int64(len(b)) || len(h.roots) != 1 || h.roots[0] != root {
			t.Fatalf("root %s reads as %+v, %v", root, h, err)
		}
	}
}
