package piece

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multihash"
)

// The ID of a CARv1 is what sha256sum says.
func TestID(t *testing.T) {
	path := writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, testBlocks(40, 700, 3000), true)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info := openStore(t, Config{Paths: []string{path}}).Pieces()[0]
	mh, err := multihash.Encode(sum256(data), multihash.SHA2_256)
	if err != nil {
		t.Fatal(err)
	}
	if want := cid.NewCidV1(0x0202, mh); info.ID != want {
		t.Errorf("ID is %s, want %s", info.ID, want)
	}
}

func sum256(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// linking returns the DAG-CBOR list of links as a block.
func linking(t *testing.T, hash uint64, links ...cid.Cid) testBlock {
	t.Helper()
	node, err := qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
		for _, c := range links {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: c}))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(node, &buf); err != nil {
		t.Fatal(err)
	}
	return makeBlock(buf.Bytes(), cid.DagCBOR, hash)
}

// What is inside a CID is found where all its links are.
func TestFindIdentity(t *testing.T) {
	dir := t.TempDir()
	a, b := testBlocks(41, 5, 100), testBlocks(42, 5, 100)
	writeCAR(t, filepath.Join(dir, "a.car"), nil, a, true)
	writeCAR(t, filepath.Join(dir, "b.car"), nil, append(b, a[0]), true)
	s := openStore(t, Config{Paths: []string{dir}})
	const id = multihash.IDENTITY
	inner := linking(t, id, b[0].cid).cid
	many := make([]cid.Cid, maxIdentityLinks+1)
	for i := range many {
		many[i] = a[0].cid
	}
	deep := a[0].cid
	for range maxIdentityDepth + 1 {
		deep = linking(t, id, deep).cid
	}
	for _, c := range []struct {
		name string
		cid  cid.Cid
		in   string // empty: nowhere
	}{
		{"only in a", linking(t, id, a[1].cid).cid, "a.car"},
		{"only in b together", linking(t, id, a[0].cid, b[1].cid).cid, "b.car"},
		{"nested", linking(t, id, a[0].cid, inner).cid, "b.car"},
		{"in no piece together", linking(t, id, a[1].cid, b[1].cid).cid, ""},
		{"too many", linking(t, id, many...).cid, ""},
		{"as many as may be", linking(t, id, many[1:]...).cid, "a.car"},
		{"too deep", deep, ""},
		{"not decodable", makeBlock([]byte{0xff}, cid.DagCBOR, id).cid, ""},
		{"codec unknown", makeBlock([]byte{1}, 0x300001, id).cid, ""},
		{"too long", makeBlock(make([]byte, maxIdentitySize+1), cid.Raw, id).cid, ""},
	} {
		info, ok := s.Find(c.cid, nil)
		if got := filepath.Base(info.Path); ok != (c.in != "") || ok && got != c.in {
			t.Errorf("%s: found in %s, %v", c.name, got, ok)
		}
	}
	if size, ok := s.Size(inner); !ok || size == 0 {
		t.Errorf("size is %d, %v", size, ok)
	}
}

func TestPieceCID(t *testing.T) {
	path := writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, testBlocks(43, 50, 1000), true)
	cfg := Config{Paths: []string{path}, IndexDir: t.TempDir()}
	plain := openStore(t, cfg).Pieces()[0]
	cfg.PieceCID = true
	s := openStore(t, cfg)
	info := s.Pieces()[0]
	if !strings.HasPrefix(info.PieceCID.String(), "baga6ea4sea") {
		t.Fatalf("piece CID is %s", info.PieceCID)
	}
	if s.built.Load() != 0 || plain.ID != info.ID || plain.Blocks != info.Blocks || plain.PayloadSize != info.PayloadSize {
		t.Errorf("was %+v, is %+v", plain, info)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want, err := commPOf(context.Background(), f); err != nil || pieceCID(want) != info.PieceCID {
		t.Errorf("piece CID is %s, want %s (%v)", info.PieceCID, pieceCID(want), err)
	}
	blocks := testBlocks(43, 50, 1000)
	checkServes(t, s, info.ID, blocks)
	if found, ok := s.Find(blocks[9].cid, &info.PieceCID); !ok || found.ID != info.ID {
		t.Error("not found by its piece CID")
	}
	if got, err := load(s.LinkSystem(info.PieceCID), blocks[9].cid); err != nil || !bytes.Equal(got, blocks[9].data) {
		t.Errorf("not read by its piece CID: %v", err)
	}
	cfg.PieceCID = false
	if got := openStore(t, cfg).Pieces()[0]; got.PieceCID != info.PieceCID {
		t.Error("is not kept")
	}
}

// The known CommP of 2032 zero bytes, the empty 2 KiB piece.
func TestCommPKnown(t *testing.T) {
	digest, err := commPOf(context.Background(), bytes.NewReader(make([]byte, 2032)))
	if err != nil {
		t.Fatal(err)
	}
	const want = "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy"
	if got := pieceCID(digest).String(); got != want {
		t.Errorf("is %s, want %s", got, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := commPOf(ctx, bytes.NewReader(make([]byte, 5000))); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// Who opens IndexDir alone removes what a crash left; who shares it does not.
func TestTemps(t *testing.T) {
	cfg := Config{IndexDir: filepath.Join(t.TempDir(), "in[de]x"), Logger: quiet()}
	if _, err := Open(context.Background(), Config{}); err == nil {
		t.Error("opened without IndexDir")
	}
	s := openStore(t, cfg)
	var temps []string
	for _, dir := range []string{cfg.IndexDir, filepath.Join(cfg.IndexDir, "unsealed")} {
		temp := filepath.Join(dir, "x"+tempMark+"1")
		if err := os.MkdirAll(filepath.Join(temp, "inside"), 0o755); err != nil {
			t.Fatal(err)
		}
		temps = append(temps, temp)
	}
	exist := func() bool {
		return !slices.ContainsFunc(temps, func(name string) bool { _, err := os.Stat(name); return err != nil })
	}
	other := openStore(t, cfg)
	if !exist() {
		t.Error("removed what another may be writing")
	}
	if err := errors.Join(s.Close(), other.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	openStore(t, cfg)
	if exist() {
		t.Error("did not clear up")
	}
}

func TestOpenCancel(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
	for i := range 3 {
		writeCAR(t, filepath.Join(dir, fmt.Sprint(i, ".car")), nil, testBlocks(uint64(50+i), 5, 100), true)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if s := openStore(t, cfg); len(s.Pieces()) != 3 {
		t.Errorf("%d pieces after it", len(s.Pieces()))
	}
}

// A sealed copy of a piece that is at hand is not offered and not a problem.
func TestSealedTwin(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
	blocks, path := sealedPiece(t, cfg, dir)
	writeCAR(t, path, []cid.Cid{blocks[0].cid}, blocks, true)
	s := openStore(t, cfg)
	checkNoProblems(t, s)
	if len(s.Pieces()) != 1 || s.Pieces()[0].Sealed {
		t.Errorf("pieces are %+v", s.Pieces())
	}
}

// Nothing can be read after Close, and nothing panics.
func TestClosed(t *testing.T) {
	blocks := testBlocks(60, 5, 100)
	s := openStore(t, Config{Paths: []string{writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, blocks, true)}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Find(blocks[0].cid, nil); ok {
		t.Error("found after Close")
	}
	if _, err := s.Get(blocks[0].cid); err == nil {
		t.Error("read after Close")
	}
	checkNoProblems(t, s)
}

// A piece at hand comes before a sealed one, even if that begins at the block.
func TestFindPrefersUnsealed(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet(), Unsealer: unsealFunc(turnOver)}
	blocks, path := sealedPiece(t, cfg, dir)
	plain := writeCAR(t, filepath.Join(dir, "plain.car"), nil, blocks, true)
	s := openStore(t, cfg)
	if info, ok := s.Find(blocks[0].cid, nil); !ok || info.Path != plain || info.Sealed {
		t.Errorf("found in %s, %v", info.Path, ok)
	}
	sealed := s.Pieces()[1]
	if info, ok := s.Find(blocks[0].cid, &sealed.ID); !ok || info.Path != path+sealedSuffix || !info.Sealed {
		t.Errorf("asked for the sealed one: found in %s, %v", info.Path, ok)
	}
	if err := s.Unseal(context.Background(), sealed.ID); err != nil {
		t.Fatal(err)
	}
	if info, ok := s.Find(blocks[0].cid, nil); !ok || info.ID != sealed.ID {
		t.Errorf("with both at hand: found in %s, %v", info.Path, ok)
	}
}

// Unsealed copies are no pieces of their own where IndexDir lies among the pieces.
func TestIndexDirAmongPieces(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: filepath.Join(dir, "index"), Logger: quiet(), Unsealer: unsealFunc(turnOver)}
	_, path := sealedPiece(t, cfg, dir)
	s := openStore(t, cfg)
	if err := s.Unseal(context.Background(), s.Pieces()[0].ID); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	checkNoProblems(t, s)
	if ps := s.Pieces(); len(ps) != 1 || ps[0].Path != path+sealedSuffix || ps[0].Sealed {
		t.Errorf("pieces are %+v", ps)
	}
}
