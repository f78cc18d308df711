package piece

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"google.golang.org/protobuf/encoding/protowire"
)

// memory is a link system over a map, for DAGs that no file can have.
type memory map[string][]byte

func (m memory) put(t testing.TB, codec uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: codec, MhType: 0x12}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	m[c.KeyString()] = data
	return c
}

func (m memory) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(_ ipld.LinkContext, link ipld.Link) (io.Reader, error) {
		data, ok := m[link.(cidlink.Link).KeyString()]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return bytes.NewReader(data), nil
	}
	return ls
}

func (m memory) dir(t testing.TB, links ...pbLink) cid.Cid {
	return m.put(t, cid.DagProtobuf, encodeNode(links, unixfsType(unixfsTypeDirectory)))
}

func (m memory) symlink(t testing.TB, target string) cid.Cid {
	return m.put(t, cid.DagProtobuf, encodeNode(nil, unixfsSymlink(target)))
}

// unixfsFile is the data of a file node with these sizes.
func unixfsFile(sizes ...uint64) []byte {
	data := unixfsType(unixfsTypeFile)
	for _, s := range sizes {
		data = protowire.AppendVarint(protowire.AppendTag(data, 4, protowire.VarintType), s)
	}
	return data
}

// Hostile DAGs: nothing is written outside, nothing stays, nothing runs for ever.
func TestExtractHostile(t *testing.T) {
	m := memory{}
	leaf := m.put(t, cid.Raw, []byte("payload"))
	entry := func(name string, c cid.Cid) pbLink { return pbLink{cid: c, name: name, tree: 7} }
	bomb := leaf
	for range 40 { // 2^40 times the same seven bytes
		size := uint64(7)
		if node, err := decodeNode(m[bomb.KeyString()]); err == nil && node.hasData {
			fs, _ := decodeUnixFS(node.data)
			size = fs.sizes[0] * 2
		}
		bomb = m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: bomb}, {cid: bomb}}, unixfsFile(size, size)))
	}
	void := m.put(t, cid.DagProtobuf, encodeNode(nil, unixfsType(unixfsTypeFile)))
	for range 60 { // 2^60 times nothing
		void = m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: void}, {cid: void}}, unixfsFile(0, 0)))
	}
	deep := m.dir(t)
	for range maxDirectoryDepth + 1 {
		deep = m.dir(t, entry("d", deep))
	}
	tall := leaf
	for range maxFileDepth + 2 {
		tall = m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: tall}}, unixfsFile(7)))
	}
	shard := func(fanout uint64, links ...pbLink) cid.Cid {
		data := protowire.AppendTag(unixfsType(unixfsTypeHAMT), 5, protowire.VarintType)
		data = protowire.AppendVarint(data, hamtMurmur3)
		data = protowire.AppendTag(data, 6, protowire.VarintType)
		data = protowire.AppendVarint(data, fanout)
		return m.put(t, cid.DagProtobuf, encodeNode(links, data))
	}
	endless := shard(256, entry("00file", leaf))
	for range 8 { // one more than the hash has bits for
		endless = shard(256, entry("00", endless))
	}
	other := m.put(t, cid.DagCBOR, []byte{0xa0})
	for name, c := range map[string]struct {
		root cid.Cid
		want error // nil: any
	}{
		"up":                    {m.dir(t, entry("..", leaf)), ErrBadName},
		"slash":                 {m.dir(t, entry("../evil", leaf)), ErrBadName},
		"absolute":              {m.dir(t, entry("/tmp/evil", leaf)), ErrBadName},
		"dot":                   {m.dir(t, entry(".", leaf)), ErrBadName},
		"no name":               {m.dir(t, entry("", leaf)), ErrBadName},
		"NUL":                   {m.dir(t, entry("a\x00b", leaf)), ErrBadName},
		"up in a shard":         {shard(256, entry("00..", leaf)), ErrBadName},
		"below":                 {m.dir(t, entry("a", m.dir(t, entry("..", leaf)))), ErrBadName},
		"symlink then file":     {m.dir(t, entry("a", m.symlink(t, ".")), entry("a", leaf)), fs.ErrExist},
		"symlink then dir":      {m.dir(t, entry("a", m.symlink(t, ".")), entry("a", m.dir(t, entry("x", leaf)))), fs.ErrExist},
		"twice":                 {m.dir(t, entry("a", leaf), entry("a", leaf)), fs.ErrExist},
		"absolute symlink":      {m.dir(t, entry("a", m.symlink(t, "/etc/passwd"))), ErrUnsafeLink},
		"climbing symlink":      {m.dir(t, entry("a", m.symlink(t, "../x"))), ErrUnsafeLink},
		"climbing late":         {m.dir(t, entry("a", m.symlink(t, "b/../.."))), ErrUnsafeLink},
		"symlink of nothing":    {m.dir(t, entry("a", m.symlink(t, ""))), ErrUnsafeLink},
		"root symlink":          {m.symlink(t, "../x"), ErrUnsafeLink},
		"missing block":         {m.dir(t, entry("a", rawCID(t, []byte("never stored")))), ErrIncomplete},
		"wrong block":           {m.dir(t, entry("a", damaged(t, m))), ErrBadBlock},
		"bomb":                  {bomb, nil},
		"deep":                  {deep, nil},
		"tall":                  {tall, nil},
		"endless shards":        {endless, nil},
		"no fan-out":            {shard(0), nil},
		"odd fan-out":           {shard(100), nil},
		"huge fan-out":          {shard(1 << 40), nil},
		"name without slot":     {shard(256, entry("0", leaf)), nil},
		"directory as a shard":  {shard(256, entry("00", m.dir(t))), nil},
		"sizes are missing":     {m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: leaf}}, unixfsFile())), nil},
		"size too small":        {m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: leaf}}, unixfsFile(6))), errSize},
		"size too large":        {m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: leaf}}, unixfsFile(8))), errSize},
		"sizes overflow":        {m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: leaf}, {cid: leaf}}, unixfsFile(7, ^uint64(0)))), nil},
		"directory in a file":   {m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: m.dir(t)}}, unixfsFile(7))), nil},
		"not UnixFS":            {other, ErrNotUnixFS},
		"not UnixFS in a dir":   {m.dir(t, entry("a", other)), ErrNotUnixFS},
		"DAG-PB without data":   {m.put(t, cid.DagProtobuf, nil), ErrNotUnixFS},
		"DAG-PB, other data":    {m.put(t, cid.DagProtobuf, encodeNode(nil, []byte("hello"))), ErrNotUnixFS},
		"metadata":              {m.put(t, cid.DagProtobuf, encodeNode(nil, unixfsType(unixfsTypeMetadata))), ErrNotUnixFS},
		"no protobuf":           {m.put(t, cid.DagProtobuf, []byte("\xff\xff\xff")), nil},
		"link without a CID":    {m.put(t, cid.DagProtobuf, []byte{0x12, 0x00}), nil},
		"link with half a CID":  {m.put(t, cid.DagProtobuf, []byte{0x12, 0x04, 0x0a, 0x02, 0x01, 0x55}), nil},
		"name longer than fits": {m.dir(t, entry(strings.Repeat("x", 3000), leaf)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			out := filepath.Join(base, "out")
			_, err := Extract(context.Background(), m.links(), c.root, "", out, ExportOptions{MaxBytes: 1 << 20})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			wantOnly(t, base)
		})
	}
	void = m.put(t, cid.DagProtobuf, encodeNode([]pbLink{{cid: leaf}, {cid: void}}, unixfsFile(7, 0)))
	out := filepath.Join(t.TempDir(), "void")
	if r, err := Extract(context.Background(), m.links(), void, "", out, ExportOptions{}); err != nil || r.Bytes != 7 {
		t.Fatalf("2^60 times nothing: %+v, %v", r, err)
	}
}

// damaged stores a block under the CID of another.
func damaged(t testing.TB, m memory) cid.Cid {
	c := rawCID(t, []byte("promised"))
	m[c.KeyString()] = []byte("delivered")
	return c
}

func TestStaysInside(t *testing.T) {
	for _, c := range []struct {
		target string
		depth  int
		want   bool
	}{
		{"a", 0, true}, {"a/b", 0, true}, {"./a", 0, true}, {".", 0, true}, {"a//b/", 0, true},
		{"..", 0, false}, {"..", 1, true}, {"../..", 1, false}, {"../a", 1, true}, {"./../a", 1, true},
		{"a/..", 0, false}, {"a/..", 5, false}, {"../a/..", 5, false},
		{"/", 9, false}, {"", 0, false}, {"a\x00", 0, false}, {"...", 0, true}, {"..", -1, false}, {"a", -1, true},
	} {
		if got := staysInside(c.target, c.depth); got != c.want {
			t.Errorf("staysInside(%q, %d) = %v", c.target, c.depth, got)
		}
	}
}

func TestExtractAnySymlinks(t *testing.T) {
	m := memory{}
	root := m.dir(t, pbLink{name: "abs", cid: m.symlink(t, "/etc")}, pbLink{name: "up", cid: m.symlink(t, "../..")})
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Extract(context.Background(), m.links(), root, "", out, ExportOptions{AnySymlinks: true}); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, out); got != "\".\"/\n\"abs\" -> \"/etc\"\n\"up\" -> \"../..\"\n" {
		t.Fatal(got)
	}
}
