package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"

	"github.com/tollgraph/tollgraph/piece"
)

// goods are what is fetched: a DAG, as a CAR and block by block in memory.
type goods struct {
	car    string // its path, or that of a folder of CARs
	root   cid.Cid
	roots  []cid.Cid // if there are several
	bytes  uint64    // of all blocks; with several roots, of each
	order  []cid.Cid
	blocks map[cid.Cid][]byte
	memory piecesInMemory
}

// makeGoods packs size random bytes in chunks: as one file, or, deep, as files
// in 32 folders, each inside the one before.
func makeGoods(ctx context.Context, dir string, size, chunk int64, deep bool) (*goods, error) {
	src := filepath.Join(dir, "source")
	err := writeSource(src, size, chunk, deep)
	if err != nil {
		return nil, err
	}
	g := &goods{car: filepath.Join(dir, "goods.car"), blocks: make(map[cid.Cid][]byte)}
	if g.root, g.bytes, err = pack(ctx, src, g.car, chunk); err != nil {
		return nil, err
	}
	g.memory = piecesInMemory{g}
	return g, g.load()
}

// pack makes a CAR of a file or folder, which it removes.
func pack(ctx context.Context, src, car string, chunk int64) (cid.Cid, uint64, error) {
	res, err := piece.Create(ctx, car, []string{src}, piece.CreateOptions{ChunkSize: chunk})
	return res.Root, res.Bytes, errors.Join(err, os.RemoveAll(src))
}

// load reads the CAR into memory.
func (g *goods) load() error {
	f, err := os.Open(g.car)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	r, err := carv2.NewBlockReader(f)
	if err != nil {
		return err
	}
	for {
		b, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		g.order = append(g.order, b.Cid())
		g.blocks[b.Cid()] = b.RawData()
	}
}

// makeFiles packs count files of size random bytes, each a CAR in one folder,
// and leaves them on disk.
func makeFiles(ctx context.Context, dir string, count int, size, chunk int64) (*goods, error) {
	g := &goods{car: filepath.Join(dir, "goods")}
	if err := os.MkdirAll(g.car, 0o700); err != nil {
		return nil, err
	}
	src := filepath.Join(dir, "source")
	for i := range count {
		if err := writeFile(src, noise(size, chunk, i), size); err != nil {
			return nil, err
		}
		root, n, err := pack(ctx, src, filepath.Join(g.car, fmt.Sprintf("%d.car", i)), chunk)
		if err != nil {
			return nil, err
		}
		g.root, g.roots, g.bytes = root, append(g.roots, root), n
	}
	return g, nil
}

// makeSmall makes count files of one block of size bytes each, in memory.
func makeSmall(count int, size int64) (*goods, error) {
	g := &goods{blocks: make(map[cid.Cid][]byte), bytes: uint64(size)}
	for i := range count {
		b := make([]byte, size)
		if _, err := io.ReadFull(noise(size, size, i), b); err != nil {
			return nil, err
		}
		c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum(b)
		if err != nil {
			return nil, err
		}
		g.blocks[c], g.roots = b, append(g.roots, c)
	}
	g.root, g.memory = g.roots[0], piecesInMemory{g}
	return g, nil
}

// noise is random, and always the same for the same arguments.
func noise(size, chunk int64, n int) io.Reader {
	return mrand.NewChaCha8([32]byte{byte(size >> 20), byte(chunk >> 10), 9, byte(n), byte(n >> 8)})
}

const folders = 32

func writeSource(src string, size, chunk int64, deep bool) error {
	rng := noise(size, chunk, 0)
	if !deep {
		return writeFile(src, rng, size)
	}
	for i := range int64(folders) {
		if err := os.MkdirAll(src, 0o700); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(src, "data"), rng, size/folders+i); err != nil {
			return err
		}
		src = filepath.Join(src, "more")
	}
	return nil
}

func writeFile(path string, from io.Reader, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, from, size)
	return errors.Join(err, f.Close())
}

// links reads the blocks from memory.
func (g *goods) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		b, has := g.blocks[l.(cidlink.Link).Cid]
		if !has {
			return nil, fmt.Errorf("no block %s", l)
		}
		return bytes.NewBuffer(b), nil
	}
	return ls
}

// sink takes in blocks. It keeps those that lead to others and counts the rest,
// so that a benchmark does not measure the paging of memory that it never reads.
type sink struct {
	first func() // called with the first block, if not nil
	mu    sync.Mutex
	nodes map[cid.Cid][]byte
	leafs map[cid.Cid]int
	bytes uint64
	marks []int64 // when each further MiB was there, Unix nanoseconds
}

func newSink() *sink {
	return &sink{nodes: make(map[cid.Cid][]byte), leafs: make(map[cid.Cid]int)}
}

func (s *sink) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.nodes)
	clear(s.leafs)
	s.bytes, s.marks = 0, nil
}

func (s *sink) put(c cid.Cid, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.leafs[c]; has {
		return
	}
	if s.bytes == 0 && s.first != nil {
		s.first()
	}
	s.bytes += uint64(len(b))
	if uint64(len(s.marks)+1)<<20 <= s.bytes {
		s.mark(time.Now().UnixNano())
	}
	s.leafs[c] = len(b)
	if c.Prefix().Codec != cid.Raw {
		s.nodes[c] = bytes.Clone(b)
	}
}

// mark notes that every MiB of what is held was there at t. s.mu is held.
func (s *sink) mark(t int64) {
	for uint64(len(s.marks)+1)<<20 <= s.bytes {
		s.marks = append(s.marks, t)
	}
}

// times returns when each MiB was there, Unix nanoseconds.
func (s *sink) times() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.marks)
}

func (s *sink) held() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

func (s *sink) node(c cid.Cid) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, has := s.nodes[c]
	return b, has
}

// links is the sink as graphsync sees it.
func (s *sink) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		if b, has := s.node(l.(cidlink.Link).Cid); has {
			return bytes.NewBuffer(b), nil
		}
		return nil, fmt.Errorf("no block %s", l)
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		w := &sinkWriter{}
		return w, func(l ipld.Link) error {
			s.put(l.(cidlink.Link).Cid, w.block())
			return nil
		}, nil
	}
	return ls
}

// sinkWriter holds one block, which mostly comes in one piece.
type sinkWriter struct {
	one []byte
	all bytes.Buffer
}

func (w *sinkWriter) Write(b []byte) (int, error) {
	if w.one == nil && w.all.Len() == 0 {
		w.one = b
		return len(b), nil
	}
	w.all.Write(w.one)
	w.one = nil
	return w.all.Write(b)
}

// BorrowBytes takes a block that is not held after the commit.
func (w *sinkWriter) BorrowBytes(b []byte) error {
	w.one = b
	return nil
}

func (w *sinkWriter) block() []byte {
	if w.one != nil {
		return w.one
	}
	return w.all.Bytes()
}

// The sink as bitswap sees it.

func (s *sink) DeleteBlock(context.Context, cid.Cid) error { return errors.ErrUnsupported }

func (s *sink) Has(_ context.Context, c cid.Cid) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.leafs[c]
	return has, nil
}

func (s *sink) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	if b, has := s.node(c); has {
		return blocks.NewBlockWithCid(b, c)
	}
	return nil, format.ErrNotFound{Cid: c}
}

func (s *sink) GetSize(_ context.Context, c cid.Cid) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, has := s.leafs[c]; has {
		return n, nil
	}
	return -1, format.ErrNotFound{Cid: c}
}

func (s *sink) Put(_ context.Context, b blocks.Block) error {
	s.put(b.Cid(), b.RawData())
	return nil
}

func (s *sink) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		_ = s.Put(ctx, b) // it cannot fail
	}
	return nil
}

func (s *sink) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, errors.ErrUnsupported
}

// source is goods as bitswap sees them.
type source struct {
	*sink
	g *goods
}

func (s source) Has(_ context.Context, c cid.Cid) (bool, error) {
	_, has := s.g.blocks[c]
	return has, nil
}

func (s source) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	if b, has := s.g.blocks[c]; has {
		return blocks.NewBlockWithCid(b, c)
	}
	return nil, format.ErrNotFound{Cid: c}
}

func (s source) GetSize(_ context.Context, c cid.Cid) (int, error) {
	if b, has := s.g.blocks[c]; has {
		return len(b), nil
	}
	return -1, format.ErrNotFound{Cid: c}
}
