package selectors

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	"github.com/ipfs/go-unixfsnode/hamt"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/multiformats/go-multihash"
)

// store is a block store in memory that counts what is read of it.
type store struct {
	blocks map[cid.Cid][]byte
	reads  map[cid.Cid]int
}

func newStore() *store {
	return &store{blocks: map[cid.Cid][]byte{}, reads: map[cid.Cid]int{}}
}

// linkSystem reads the way graphsync's own storeutil does: a *bytes.Buffer.
func (s *store) linkSystem() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(_ linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		c := l.(cidlink.Link).Cid
		s.reads[c]++
		data, ok := s.blocks[c]
		if !ok {
			return nil, fmt.Errorf("no block %s", c)
		}
		return bytes.NewBuffer(data), nil
	}
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		buf := bytes.NewBuffer([]byte{})
		return buf, func(l datamodel.Link) error {
			s.blocks[l.(cidlink.Link).Cid] = buf.Bytes()
			return nil
		}, nil
	}
	AddReifiers(&ls)
	return ls
}

// size is the store's Sizer.
func (s *store) size(c cid.Cid) (uint64, bool) {
	data, ok := s.blocks[c]
	return uint64(len(data)), ok
}

// bytes returns the size of everything in the store.
func (s *store) bytes() (n uint64) {
	for _, data := range s.blocks {
		n += uint64(len(data))
	}
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// noise returns n bytes that do not repeat.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 7})
	_, _ = r.Read(b)
	return b
}

// file stores a UnixFS file in chunks of the given size.
func (s *store) file(data []byte, chunk int) (cid.Cid, uint64) {
	ls := s.linkSystem()
	l, size, err := builder.BuildUnixFSFile(bytes.NewReader(data), fmt.Sprintf("size-%d", chunk), &ls)
	if err != nil {
		panic(err)
	}
	return l.(cidlink.Link).Cid, size
}

type entry struct {
	name string
	cid  cid.Cid
	size uint64
}

func pbLinks(entries []entry) []dagpb.PBLink {
	links := make([]dagpb.PBLink, 0, len(entries))
	for _, e := range entries {
		links = append(links, must(builder.BuildUnixFSDirectoryEntry(e.name, int64(e.size), cidlink.Link{Cid: e.cid})))
	}
	return links
}

// dir stores a UnixFS directory in one block.
func (s *store) dir(entries ...entry) (cid.Cid, uint64) {
	ls := s.linkSystem()
	l, size, err := builder.BuildUnixFSDirectory(pbLinks(entries), &ls)
	if err != nil {
		panic(err)
	}
	return l.(cidlink.Link).Cid, size
}

// sharded stores a UnixFS directory in shards.
func (s *store) sharded(fanout int, entries ...entry) (cid.Cid, uint64) {
	ls := s.linkSystem()
	l, size, err := builder.BuildUnixFSShardedDirectory(fanout, hamt.HashMurmur3, pbLinks(entries), &ls)
	if err != nil {
		panic(err)
	}
	return l.(cidlink.Link).Cid, size
}

// cborPrototype makes dag-cbor links with SHA-256.
var cborPrototype = cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA2_256, MhLength: -1}}

// put stores a node as dag-cbor.
func (s *store) put(n datamodel.Node) cid.Cid {
	ls := s.linkSystem()
	return must(ls.Store(linking.LinkContext{}, cborPrototype, n)).(cidlink.Link).Cid
}

// list stores a dag-cbor list of links.
func (s *store) list(cids ...cid.Cid) cid.Cid {
	return s.put(must(qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
		for _, c := range cids {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: c}))
		}
	})))
}

// raw stores a raw block.
func (s *store) raw(data []byte) cid.Cid {
	c := must(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: -1}.Sum(data))
	s.blocks[c] = data
	return c
}

// plain counts the plainest way there is: it walks, lists what is asked of the
// store, and adds it up afterwards. Measure is held to it.
func plain(ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node) (c Count, asked []cid.Cid, err error) {
	data, read := map[cid.Cid][]byte{}, ls.StorageReadOpener
	ls.StorageReadOpener = func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		c := l.(cidlink.Link).Cid
		asked = append(asked, c)
		r, err := read(lc, l)
		if err != nil {
			return nil, traversal.SkipMe{}
		}
		data[c] = must(io.ReadAll(r))
		return bytes.NewBuffer(data[c]), nil
	}
	err = walkPlain(ls, root, sel)
	c = Count{Links: uint64(len(asked)), Blocks: uint64(len(data))}
	for _, d := range data {
		c.Bytes += uint64(len(d))
	}
	missing := map[cid.Cid]bool{}
	for _, a := range asked {
		if _, ok := data[a]; !ok && !missing[a] && len(missing) < MaxMissing {
			missing[a] = true
			c.Missing = append(c.Missing, a)
		}
	}
	return c, asked, err
}

func walkPlain(ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node) error {
	ctx := context.Background()
	chooser := dagpb.AddSupportToChooser(basicnode.Chooser)
	link := cidlink.Link{Cid: root}
	n, err := ls.Load(linking.LinkContext{Ctx: ctx}, link, must(chooser(link, linking.LinkContext{})))
	if err != nil {
		return err
	}
	return traversal.Progress{Cfg: &traversal.Config{Ctx: ctx, LinkSystem: ls, LinkTargetNodePrototypeChooser: chooser}}.
		WalkMatching(n, must(selector.CompileSelector(sel)), func(_ traversal.Progress, n datamodel.Node) error {
			if large, ok := n.(datamodel.LargeBytesNode); ok {
				_, _ = io.Copy(io.Discard, must(large.AsLargeBytes()))
			}
			return nil
		})
}

// wantCount fails unless the numbers of got are want's.
func wantCount(t *testing.T, got, want Count) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("counted %v, want %v", got, want)
	}
}
