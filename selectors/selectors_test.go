package selectors

import (
	"bytes"
	"context"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

const allHex = "a16152a2616ca1646e6f6e65a0623a3ea16161a1613ea16140a0"

func TestCanonical(t *testing.T) {
	spaced := must(ParseJSON(`{ "R" : {":>":{"a":{">":{"@":{}}}}, "l":{"none":{}} } }`))
	for name, sel := range map[string]datamodel.Node{
		"All": All(), "nil": nil, "null": datamodel.Null, "other order": spaced,
		"path": must(Path("", ScopeAll)), "slashes": must(Path("//", ScopeAll)),
	} {
		got, err := Canonical(sel)
		if err != nil || hex.EncodeToString(got) != allHex {
			t.Errorf("%s: %x, %v, want %s", name, got, err, allHex)
		}
	}
	if b, err := Canonical(basicnode.NewString(strings.Repeat("x", 10<<20))); err == nil {
		t.Errorf("10 MiB string encoded to %d bytes", len(b))
	}
}

// TestCanonicalLength holds the sizes that Check counts to the encoder's.
func TestCanonicalLength(t *testing.T) {
	for _, sel := range []datamodel.Node{
		All(), Depth(1 << 40), must(Path("a/bc/"+strings.Repeat("d", 300), ScopeEntity)),
		must(EntityBytes("x", -70000, nil)), must(ParseJSON(stopAt)),
	} {
		w := weigher{maxNodes: 1 << 20, maxBytes: 1 << 20, maxNest: maxNest}
		if err := w.weigh(sel, 0); err != nil {
			t.Fatal(err)
		}
		if b := must(Canonical(sel)); w.bytes != len(b) {
			t.Errorf("%x: weighed %d bytes, encodes to %d", b, w.bytes, len(b))
		}
	}
}

func TestEqual(t *testing.T) {
	decoded := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(decoded, bytes.NewReader(must(hex.DecodeString(allHex)))); err != nil {
		t.Fatal(err)
	}
	bad := basicnode.NewString(strings.Repeat("x", 2<<20))
	for _, c := range []struct {
		name string
		a, b datamodel.Node
		want bool
	}{
		{"nil and All", nil, All(), true},
		{"nil and nil", nil, nil, true},
		{"null and All", datamodel.Null, All(), true},
		{"decoded and All", decoded.Build(), All(), true},
		{"nil and Depth", nil, Depth(3), false},
		{"two depths", Depth(3), Depth(4), false},
		{"same path", must(Path("a/b", ScopeAll)), must(Path("/a//b/", ScopeAll)), true},
		{"other scope", must(Path("a", ScopeAll)), must(Path("a", ScopeEntity)), false},
		{"no encoding", bad, bad, false},
	} {
		if got := Equal(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := Equal(c.b, c.a); got != c.want {
			t.Errorf("%s, turned: %v", c.name, got)
		}
	}
}

func TestDepthBytes(t *testing.T) {
	for limit, want := range map[uint64]string{
		0:       `{"R":{"l":{"depth":1},":>":{"a":{">":{"@":{}}}}}}`,
		3:       `{"R":{"l":{"depth":4},":>":{"a":{">":{"@":{}}}}}}`,
		1023:    `{"R":{"l":{"depth":1024},":>":{"a":{">":{"@":{}}}}}}`,
		1 << 63: "",
	} {
		if want == "" {
			if err := Check(Depth(limit), Limits{}); err == nil {
				t.Errorf("Depth(%d) passes Check", limit)
			}
			continue
		}
		if !Equal(Depth(limit), must(ParseJSON(want))) {
			t.Errorf("Depth(%d) is not %s", limit, want)
		}
	}
}

// TestDepthBlocks defines what a depth fetches.
func TestDepthBlocks(t *testing.T) {
	s := newStore()
	// dag-cbor: four blocks in a row, each holding the link to the next in a map,
	// and the first holding one more inside an inner list.
	chain := s.raw([]byte("end"))
	for range 2 {
		chain = s.put(must(qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "next", qp.Link(cidlink.Link{Cid: chain}))
		})))
	}
	deeper := s.raw([]byte("deeper"))
	chain = s.put(must(qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "next", qp.Link(cidlink.Link{Cid: chain}))
		qp.MapEntry(ma, "in", qp.List(-1, func(la datamodel.ListAssembler) { qp.ListEntry(la, qp.Link(cidlink.Link{Cid: deeper})) }))
	})))
	// dag-pb: a directory with a file of three chunks.
	f, size := s.file(noise(1, 3000), 1000)
	d, _ := s.dir(entry{"f", f, size})
	for _, c := range []struct {
		name   string
		root   cid.Cid
		limit  uint64
		blocks uint64
	}{
		{"dag-cbor", chain, 0, 1}, {"dag-cbor", chain, 1, 2}, {"dag-cbor", chain, 2, 4},
		{"dag-cbor", chain, 3, 5}, {"dag-cbor", chain, 4, 5},
		{"dag-pb", d, 0, 1}, {"dag-pb", d, 2, 1}, {"dag-pb", d, 3, 2}, {"dag-pb", d, 5, 2}, {"dag-pb", d, 6, 5},
	} {
		got, err := Measure(context.Background(), s.linkSystem(), c.root, Depth(c.limit), 0)
		if err != nil || got.Blocks != c.blocks {
			t.Errorf("%s depth %d: %d blocks, %v, want %d", c.name, c.limit, got.Blocks, err, c.blocks)
		}
	}
}
