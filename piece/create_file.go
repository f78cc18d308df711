package piece

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// packFile packs a regular file: raw leaves of one chunk each, and above them a
// balanced tree. A file of one chunk is its leaf alone.
func (p *packer) packFile(ctx context.Context, path string, was fs.FileInfo) (pbLink, error) {
	if os.SameFile(was, p.temp) {
		return pbLink{}, errors.New("the output lies inside of what is packed; write it elsewhere")
	}
	f, err := os.Open(path)
	if err != nil {
		return pbLink{}, err
	}
	defer func() { _ = f.Close() }() // only read
	if now, err := f.Stat(); err != nil || !os.SameFile(was, now) {
		return pbLink{}, errors.Join(err, errors.New("it was replaced while it was read; try again"))
	}
	tree := fileTree{p: p}
	if err := p.readChunks(ctx, f, tree.addLeaf); err != nil {
		return pbLink{}, err
	}
	return tree.root()
}

// chunk is a piece of a file on its way through hashing.
type chunk struct {
	data []byte
	cid  cid.Cid
	err  error
	done chan struct{} // has a value when cid or err is set
}

// chunkPool is a ring of chunks: as many as are hashed at once, and their memory.
type chunkPool struct {
	ring []*chunk
}

func newChunkPool(size int) *chunkPool {
	pool := &chunkPool{ring: make([]*chunk, runtime.GOMAXPROCS(0)+1)}
	for i := range pool.ring {
		pool.ring[i] = &chunk{data: make([]byte, size), done: make(chan struct{}, 1)}
	}
	return pool
}

// readChunks cuts r into chunks, hashes several at once, and hands them over in
// order. The data is used again after add has returned.
func (p *packer) readChunks(ctx context.Context, r io.Reader, add func(cid.Cid, []byte) error) error {
	ring := p.chunks.ring
	first, next := 0, 0 // chunks first to next-1 are being hashed
	drain := func(room int) error {
		var failed error
		for ; next-first > room; first++ {
			c := ring[first%len(ring)]
			<-c.done // hashing always ends: nothing is left behind, also after an error
			if failed == nil {
				failed = c.err
			}
			if failed == nil {
				failed = add(c.cid, c.data)
			}
		}
		return failed
	}
	for {
		c := ring[next%len(ring)]
		n, err := io.ReadFull(r, c.data[:p.opt.ChunkSize])
		if n > 0 {
			c.data = c.data[:n]
			next++
			go c.hash() // waited for in drain
			p.fileBytes += uint64(n)
		}
		if err == nil {
			err = ctx.Err()
		} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return drain(0)
		}
		if err != nil {
			return errors.Join(err, drain(0))
		}
		if err := drain(len(ring) - 1); err != nil {
			return errors.Join(err, drain(0))
		}
	}
}

func (c *chunk) hash() {
	c.cid, c.err = rawBuilder.Sum(c.data)
	c.done <- struct{}{}
}

var (
	rawBuilder  = cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}
	nodeBuilder = cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256}
)

// fileTree builds the tree of a file from the left. A level that is full becomes
// a node of the level above, so that it holds MaxLinks links per level only.
type fileTree struct {
	p      *packer
	levels [][]pbLink
}

// addLeaf writes a leaf and puts it into the tree.
func (t *fileTree) addLeaf(c cid.Cid, data []byte) error {
	if err := t.p.car.put(c, data); err != nil {
		return err
	}
	return t.add(0, pbLink{cid: c, tree: uint64(len(data)), file: uint64(len(data))})
}

func (t *fileTree) add(level int, l pbLink) error {
	if level == len(t.levels) {
		t.levels = append(t.levels, nil)
	}
	t.levels[level] = append(t.levels[level], l)
	if len(t.levels[level]) < t.p.opt.MaxLinks {
		return nil
	}
	return t.close(level)
}

// close makes a node of the links of a level.
func (t *fileTree) close(level int) error {
	l, err := t.p.putFileNode(t.levels[level])
	if err != nil {
		return err
	}
	t.levels[level] = t.levels[level][:0]
	return t.add(level+1, l)
}

// root closes all levels and returns the top. All leaves are equally deep, so
// that the last node of a level may have a single link.
func (t *fileTree) root() (pbLink, error) {
	if len(t.levels) == 0 { // an empty file is an empty leaf
		c, err := rawBuilder.Sum(nil)
		if err != nil {
			return pbLink{}, err
		}
		return pbLink{cid: c}, t.p.car.put(c, nil)
	}
	for level := 0; ; level++ {
		top := level == len(t.levels)-1
		switch {
		case top && len(t.levels[level]) == 1:
			return t.levels[level][0], nil
		case len(t.levels[level]) == 0:
			continue // it has just been closed; there is a level above
		}
		if err := t.close(level); err != nil {
			return pbLink{}, err
		}
	}
}
