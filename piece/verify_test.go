package piece

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"google.golang.org/protobuf/encoding/protowire"
)

// carReads reads blocks out of a CAR with an index.
func carReads(f *os.File, held *blockIndex) ipld.BlockReadOpener {
	return func(_ ipld.LinkContext, link datamodel.Link) (io.Reader, error) {
		c, err := linkCID(link)
		if err != nil {
			return nil, err
		}
		at, ok, err := held.find(c.Hash())
		if err != nil || !ok {
			return nil, errors.Join(err, ErrIncomplete)
		}
		return io.NewSectionReader(f, at.data(), int64(at.size)), nil
	}
}

// Any byte of a CAR that changes is found, and the section is named. Only the
// codec in a CID may change: blocks are the same if their hashes are.
func TestVerifyFindsEveryFlip(t *testing.T) {
	ctx := context.Background()
	car, r := create(t, CreateOptions{ChunkSize: 20, MaxLinks: 3}, write(t, filepath.Join(t.TempDir(), "f"), noise(1, 100)))
	whole, err := os.ReadFile(car)
	if err != nil {
		t.Fatal(err)
	}
	header := int64(len(headerFor(r.Root)))
	codecs := make(map[int64]bool)
	walker := frameWalker{r: bytes.NewReader(whole), end: int64(len(whole))}
	for at := header; at < walker.end; {
		s, err := walker.next(at)
		if err != nil {
			t.Fatal(err)
		}
		codecs[s.data()-int64(s.cid.ByteLen())+1] = true
		at = s.end()
	}
	for i := range whole {
		if codecs[int64(i)] {
			continue
		}
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		if err := os.WriteFile(car, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := VerifyCAR(ctx, car)
		if err == nil {
			t.Fatalf("byte %d was flipped, and nobody saw", i)
		}
		var section *SectionError
		if int64(i) >= header && (!errors.As(err, &section) || section.Offset > int64(i)) {
			t.Fatalf("byte %d was flipped: %v", i, err)
		}
	}
	for n := range whole {
		if err := os.WriteFile(car, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyCAR(ctx, car); err == nil {
			t.Fatalf("cut to %d bytes, and nobody saw", n)
		}
	}
}

// Of several bad blocks, the first is named.
func TestVerifyNamesTheFirst(t *testing.T) {
	car, r := create(t, CreateOptions{ChunkSize: 1000}, write(t, filepath.Join(t.TempDir(), "f"), noise(1, 64_000)))
	raw, err := os.ReadFile(car)
	if err != nil {
		t.Fatal(err)
	}
	walker := frameWalker{r: bytes.NewReader(raw), end: int64(len(raw))}
	at := int64(len(headerFor(r.Root)))
	var third int64
	for i := range 64 {
		s, err := walker.next(at)
		if err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			third = s.at
		}
		if i >= 3 {
			raw[s.data()] ^= 1
		}
		at = s.end()
	}
	if err := os.WriteFile(car, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = VerifyCAR(context.Background(), car)
	var section *SectionError
	if !errors.As(err, &section) || section.Offset != third || section.Block == "" || !errors.Is(err, ErrBadBlock) {
		t.Fatalf("error %v, want the bad block at %d", err, third)
	}
}

// CARs of version 2, and padded ones, are verified as well.
func TestVerifyOtherCARs(t *testing.T) {
	ctx := context.Background()
	car, r := create(t, CreateOptions{}, makeTree(t))
	want, err := VerifyCAR(ctx, car)
	if err != nil {
		t.Fatal(err)
	}
	v2 := filepath.Join(t.TempDir(), "2.car")
	if err := carv2.WrapV1File(car, v2); err != nil {
		t.Fatal(err)
	}
	padded, err := os.OpenFile(car, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer padded.Close()
	if _, err := padded.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{v2, car} {
		got, err := VerifyCAR(ctx, path)
		if err != nil || got.Blocks != want.Blocks || got.Reachable != r.Blocks || got.Bytes != want.Bytes {
			t.Fatalf("%s: %+v, %v", path, got, err)
		}
	}
	if _, err := padded.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyCAR(ctx, car); err == nil {
		t.Fatal("took a byte behind the padding")
	}
}

func TestVerifyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	car, _ := create(t, CreateOptions{ChunkSize: 10}, write(t, filepath.Join(t.TempDir(), "f"), noise(1, 5000)))
	if _, err := VerifyCAR(ctx, car); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
}

// WriteCAR with a selector of everything, and without one, writes the same
// blocks in the same order, and what go-car can read.
func TestWriteCAR(t *testing.T) {
	ctx := context.Background()
	dir := makeTree(t)
	car, r := create(t, CreateOptions{}, dir)
	p := received(t, car, r.Root)
	mustPut(t, p, []byte("not in the DAG"))
	ls := p.LinkSystem()
	var all, selected bytes.Buffer
	blocks, written, err := WriteCAR(ctx, ls, r.Root, nil, &all)
	if err != nil || blocks != r.Blocks || written != r.Bytes {
		t.Fatalf("wrote %d blocks, %d bytes, %v, want %d, %d", blocks, written, err, r.Blocks, r.Bytes)
	}
	if _, _, err := WriteCAR(ctx, ls, r.Root, selectorparse.CommonSelector_ExploreAllRecursively, &selected); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(all.Bytes(), selected.Bytes()) {
		t.Fatal("a selector of everything selects something else")
	}
	reader, err := carv2.NewBlockReader(&all)
	if err != nil || len(reader.Roots) != 1 || reader.Roots[0] != r.Root {
		t.Fatalf("roots %v, %v", reader.Roots, err)
	}
	for n := uint64(0); ; n++ {
		b, err := reader.Next()
		if errors.Is(err, io.EOF) && n == blocks {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && b.Cid() != r.Root {
			t.Fatalf("first block is %s", b.Cid())
		}
	}
}

// A selection along a path has the blocks on it alone.
func TestWriteCARSelected(t *testing.T) {
	ctx := context.Background()
	car, r := create(t, CreateOptions{}, makeTree(t))
	ls := received(t, car, r.Root).LinkSystem()
	b := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	sel := b.ExploreInterpretAs("unixfs", b.ExploreFields(func(f builder.ExploreFieldsSpecBuilder) {
		f.Insert("large", b.ExploreRecursive(selector.RecursionLimitNone(), b.ExploreAll(b.ExploreRecursiveEdge())))
	})).Node()
	out := filepath.Join(t.TempDir(), "s.car")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blocks, _, err := WriteCAR(ctx, ls, r.Root, sel, f)
	if err != nil || blocks != 1+1+19 { // root, node, leaves
		t.Fatalf("%d blocks, %v", blocks, err)
	}
	part := received(t, out, r.Root).LinkSystem()
	var got bytes.Buffer
	if err := Cat(ctx, part, r.Root, "large", &got, 0, -1); err != nil || got.Len() != 18<<20+5 {
		t.Fatalf("%d bytes, %v", got.Len(), err)
	}
	if err := Cat(ctx, part, r.Root, "small", &got, 0, -1); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("outside of the selection: %v", err)
	}
	if _, _, err := WriteCAR(ctx, part, r.Root, selectorparse.CommonSelector_ExploreAllRecursively, io.Discard); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("more than is here: %v", err)
	}
	if _, _, err := WriteCAR(ctx, part, r.Root, basicnode.NewString("no selector"), io.Discard); err == nil {
		t.Fatal("took a string for a selector")
	}
}

// DAG-CBOR blocks and their links are walked too.
func TestWriteCARDagCBOR(t *testing.T) {
	m := memory{}
	leaf := m.put(t, cid.Raw, []byte("leaf"))
	raw := append([]byte{0xd8, 0x2a, 0x58, 0x25, 0x00}, leaf.Bytes()...)
	root := m.put(t, cid.DagCBOR, append(append([]byte{0x82}, raw...), raw...)) // the leaf twice
	blocks, _, err := WriteCAR(context.Background(), m.links(), root, nil, io.Discard)
	if err != nil || blocks != 2 {
		t.Fatalf("%d blocks, %v", blocks, err)
	}
}

func FuzzDecodeNode(f *testing.F) {
	leaf := pbLink{cid: rawCID(f, []byte("leaf")), name: "name", tree: 4}
	f.Add(encodeNode([]pbLink{leaf, leaf}, unixfsFile(4, 4)))
	f.Add(encodeNode(nil, unixfsSymlink("x")))
	f.Add(protowire.AppendTag(nil, 7, protowire.Fixed64Type))
	f.Fuzz(func(t *testing.T, block []byte) {
		node, err := decodeNode(block)
		if err != nil {
			return
		}
		again, err := decodeNode(encodeNode(node.links, node.data))
		if err != nil || len(again.links) != len(node.links) || !bytes.Equal(again.data, node.data) {
			t.Fatalf("does not come back: %v", err)
		}
		for i, l := range node.links {
			if again.links[i] != l {
				t.Fatalf("link %d does not come back", i)
			}
		}
		if fs, err := decodeUnixFS(node.data); err == nil && len(fs.sizes) > len(node.data) {
			t.Fatal("more sizes than bytes")
		}
		m := memory{}
		root := m.put(t, cid.DagProtobuf, block)
		_ = Cat(context.Background(), m.links(), root, "", io.Discard, 0, -1)
		_, _, _ = WriteCAR(context.Background(), m.links(), root, nil, io.Discard)
	})
}
