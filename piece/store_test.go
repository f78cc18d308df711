package piece

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testBlock is a block with its CID.
type testBlock struct {
	cid  cid.Cid
	data []byte
}

func makeBlock(data []byte, codec, hash uint64) testBlock {
	mh, err := multihash.Sum(data, hash, -1)
	if err != nil {
		panic(err)
	}
	return testBlock{cid.NewCidV1(codec, mh), data}
}

// testBlocks returns n raw blocks of up to size bytes, always the same for a seed.
func testBlocks(seed uint64, n, size int) []testBlock {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	r := rand.NewChaCha8(key)
	var out []testBlock
	for i := range n {
		data := make([]byte, 9+(i*7919)%size)
		_, _ = r.Read(data)
		out = append(out, makeBlock(data, cid.Raw, multihash.SHA2_256))
	}
	return out
}

// writeCAR makes a CAR with go-car and returns its path.
func writeCAR(t testing.TB, path string, roots []cid.Cid, blocks []testBlock, v1 bool) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := storage.NewWritable(f, roots, car.WriteAsCarV1(v1), car.AllowDuplicatePuts(true), car.StoreIdentityCIDs(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := w.Put(context.Background(), b.cid.KeyString(), b.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Finalize(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// openStore opens a store over paths, with its indexes in dir.
func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.IndexDir == "" {
		cfg.IndexDir = t.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func load(ls ipld.LinkSystem, c cid.Cid) ([]byte, error) {
	r, err := ls.StorageReadOpener(ipld.LinkContext{}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, err
	}
	return r.(*bytes.Buffer).Bytes(), nil
}

// checkServes fails unless s serves exactly these blocks from piece id.
func checkServes(t *testing.T, s *Store, id cid.Cid, blocks []testBlock) {
	t.Helper()
	ls := s.LinkSystem(id)
	for i, b := range blocks {
		got, err := load(ls, b.cid)
		if err != nil || !bytes.Equal(got, b.data) {
			t.Fatalf("block %d: %d bytes, error %v", i, len(got), err)
		}
		if size, ok := s.Size(b.cid); !ok || size != uint64(len(b.data)) {
			t.Fatalf("block %d: size %d, %v; want %d", i, size, ok, len(b.data))
		}
		if info, ok := s.Find(b.cid, nil); !ok || info.ID != id {
			t.Fatalf("block %d: found in %v, %v", i, info.ID, ok)
		}
	}
}

func checkNoProblems(t *testing.T, s *Store) {
	t.Helper()
	for _, p := range s.Problems() {
		t.Errorf("problem with %s: %v", p.Path, p.Err)
	}
}

func TestServe(t *testing.T) {
	blocks := testBlocks(1, 300, 5000)
	blocks = append(blocks, blocks[7]) // a duplicate
	blocks = append(blocks, makeBlock([]byte("inside"), cid.Raw, multihash.IDENTITY))
	blocks = append(blocks, makeBlock([]byte("blake"), cid.Raw, multihash.BLAKE2B_MIN+31))
	blocks = append(blocks, makeBlock([]byte("long hash"), cid.Raw, multihash.SHA2_512))
	blocks = append(blocks, makeBlock(nil, cid.Raw, multihash.SHA2_256)) // an empty block
	roots := []cid.Cid{blocks[0].cid, blocks[5].cid}
	var ids []cid.Cid
	for _, v1 := range []bool{true, false} {
		t.Run(fmt.Sprintf("v1=%v", v1), func(t *testing.T) {
			path := writeCAR(t, filepath.Join(t.TempDir(), "a.car"), roots, blocks, v1)
			s := openStore(t, Config{Paths: []string{path}})
			checkNoProblems(t, s)
			stat, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			pieces := s.Pieces()
			if len(pieces) != 1 {
				t.Fatalf("%d pieces", len(pieces))
			}
			p := pieces[0]
			if p.Size != uint64(stat.Size()) || p.Blocks != 303 || p.Path != path || p.Sealed || p.PieceCID.Defined() {
				t.Errorf("info is %+v", p)
			}
			if !slices.Equal(s.Roots(), roots) || !slices.Equal(p.Roots, roots) {
				t.Errorf("roots are %v", s.Roots())
			}
			checkServes(t, s, p.ID, slices.DeleteFunc(slices.Clone(blocks), func(b testBlock) bool { return b.cid.Prefix().MhType == multihash.IDENTITY }))
			if got, err := load(s.LinkSystem(p.ID), blocks[301].cid); err != nil || string(got) != "inside" {
				t.Errorf("identity block is %q, %v", got, err)
			}
			ids = append(ids, p.ID)
		})
	}
	if ids[0] != ids[1] {
		t.Errorf("the same payload has IDs %s as v1 and %s as v2", ids[0], ids[1])
	}
}

// A CID finds its block whatever codec and version it names.
func TestOtherCodec(t *testing.T) {
	b := testBlocks(2, 1, 100)[0]
	s := openStore(t, Config{Paths: []string{writeCAR(t, filepath.Join(t.TempDir(), "a.car"), []cid.Cid{b.cid}, []testBlock{b}, true)}})
	for _, c := range []cid.Cid{cid.NewCidV0(b.cid.Hash()), cid.NewCidV1(cid.DagCBOR, b.cid.Hash())} {
		got, err := load(s.LinkSystem(cid.Undef), c)
		if err != nil || !bytes.Equal(got, b.data) {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestAbsent(t *testing.T) {
	blocks := testBlocks(3, 200, 100)
	s := openStore(t, Config{Paths: []string{writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, blocks, true)}})
	id := s.Pieces()[0].ID
	for _, b := range testBlocks(4, 500, 100) {
		if _, ok := s.Find(b.cid, nil); ok {
			t.Fatal("found what is not there")
		}
		if _, ok := s.Size(b.cid); ok {
			t.Fatal("size of what is not there")
		}
		if _, err := load(s.LinkSystem(id), b.cid); !errors.Is(err, ErrNotFound) {
			t.Fatalf("error is %v", err)
		}
	}
	other := testBlocks(5, 1, 10)[0].cid
	if _, err := load(s.LinkSystem(other), blocks[0].cid); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an unknown piece: %v", err)
	}
	if _, ok := s.Find(blocks[0].cid, &other); ok {
		t.Error("found in an unknown piece")
	}
	if _, ok := s.Find(cid.Undef, nil); ok {
		t.Error("found cid.Undef")
	}
	if _, err := load(s.LinkSystem(cid.Undef), cid.Undef); err == nil {
		t.Error("read cid.Undef")
	}
	ls := s.LinkSystem(id)
	if _, _, err := ls.StorageWriteOpener(ipld.LinkContext{}); err == nil {
		t.Error("can be written to")
	}
}

// One bad piece does not stop the others.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "deep", "er")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	a, b := testBlocks(6, 20, 1000), testBlocks(7, 20, 1000)
	writeCAR(t, filepath.Join(dir, "a.car"), []cid.Cid{a[0].cid}, a, true)
	writeCAR(t, filepath.Join(sub, "b.car"), []cid.Cid{b[0].cid}, b, false)
	bad := map[string]string{"text.car": "this is no CAR at all", "empty.car": ""}
	for name, content := range bad {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("not looked at"), 0o644); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(dir, "gone.car")
	s := openStore(t, Config{Paths: []string{dir, gone, dir}, IndexDir: filepath.Join(dir, "index")})
	if len(s.Pieces()) != 2 {
		t.Fatalf("%d pieces", len(s.Pieces()))
	}
	problems := s.Problems()
	var names []string
	for _, p := range problems {
		names = append(names, filepath.Base(p.Path))
		if p.Served {
			t.Errorf("%s is served", p.Path)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"empty.car", "gone.car", "text.car", "text.car"}[:3]) {
		t.Errorf("problems with %v: %v", names, problems)
	}
	for _, block := range slices.Concat(a, b) {
		if _, err := load(s.LinkSystem(cid.Undef), block.cid); err != nil {
			t.Fatal(err)
		}
	}
}

// Find prefers what the caller can have at once and whole.
func TestFindPrefers(t *testing.T) {
	dir := t.TempDir()
	blocks := testBlocks(8, 10, 1000)
	writeCAR(t, filepath.Join(dir, "a.car"), []cid.Cid{blocks[0].cid}, blocks, true)
	writeCAR(t, filepath.Join(dir, "b.car"), []cid.Cid{blocks[1].cid}, blocks, true)
	s := openStore(t, Config{Paths: []string{dir}})
	a, b := s.Pieces()[0], s.Pieces()[1]
	for c, want := range map[cid.Cid]Info{blocks[0].cid: a, blocks[1].cid: b, blocks[2].cid: a} {
		if got, ok := s.Find(c, nil); !ok || got.ID != want.ID {
			t.Errorf("%s found in %s", c, got.Path)
		}
	}
	if got, ok := s.Find(blocks[0].cid, &b.ID); !ok || got.ID != b.ID {
		t.Error("not found in the piece that was asked for")
	}
}

func TestSamePieceTwice(t *testing.T) {
	dir := t.TempDir()
	blocks := testBlocks(9, 10, 1000)
	writeCAR(t, filepath.Join(dir, "a.car"), nil, blocks, true)
	writeCAR(t, filepath.Join(dir, "b.car"), nil, blocks, false)
	s := openStore(t, Config{Paths: []string{dir}})
	if len(s.Pieces()) != 1 || len(s.Problems()) != 1 || !strings.Contains(s.Problems()[0].Err.Error(), "same piece") {
		t.Errorf("pieces %v, problems %v", s.Pieces(), s.Problems())
	}
}

func TestMissingRoot(t *testing.T) {
	blocks := testBlocks(10, 10, 1000)
	lost := testBlocks(11, 1, 10)[0].cid
	s := openStore(t, Config{Paths: []string{writeCAR(t, filepath.Join(t.TempDir(), "a.car"), []cid.Cid{lost, blocks[0].cid}, blocks, true)}})
	if got := s.Roots(); !slices.Equal(got, []cid.Cid{blocks[0].cid}) {
		t.Errorf("roots are %v", got)
	}
	if ps := s.Problems(); len(ps) != 1 || !ps[0].Served || !strings.Contains(ps[0].Err.Error(), lost.String()) {
		t.Errorf("problems are %v", ps)
	}
	checkServes(t, s, s.Pieces()[0].ID, blocks)
}

func TestConcurrentReaders(t *testing.T) {
	blocks := testBlocks(15, 500, 2000)
	s := openStore(t, Config{Paths: []string{writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, blocks, true)}})
	ls := s.LinkSystem(s.Pieces()[0].ID)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				b := blocks[(i*(g+1))%len(blocks)]
				got, err := load(ls, b.cid)
				if err != nil || !bytes.Equal(got, b.data) {
					t.Errorf("block %s: %v", b.cid, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A file that is changed in place while it is served is noticed.
func TestChangedWhileServed(t *testing.T) {
	path := writeCAR(t, filepath.Join(t.TempDir(), "a.car"), nil, testBlocks(16, 10, 1000), true)
	blocks := testBlocks(16, 10, 1000)
	s := openStore(t, Config{Paths: []string{path}})
	writeCAR(t, path, nil, testBlocks(17, 10, 1000), true)
	if _, err := s.Get(blocks[3].cid); err == nil {
		t.Error("served a changed file")
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(blocks[3].cid); !errors.Is(err, ErrTruncated) {
		t.Errorf("error is %v", err)
	}
}
