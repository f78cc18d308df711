package piece

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
)

// maxFileDepth is how deep the tree of a file may be. With the fewest links, two
// in a node, it has room for 2^64 chunks.
const maxFileDepth = 64

// Cat writes the bytes [from, to) of the file at path below root to w, in order;
// to < 0 means to the end. What lies beyond the end is left out, and
// to < from is nothing. It reads only
// the blocks that hold these bytes, and those above them. path may be empty.
// The errors are ErrIsDirectory, ErrNotUnixFS, ErrNoEntry, ErrIncomplete, or
// that of w.
func Cat(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, path string, w io.Writer, from, to int64) error {
	if from < 0 {
		return fmt.Errorf("bytes from %d: want an offset of 0 or more", from)
	}
	if to < 0 {
		to = math.MaxInt64
	}
	to = max(from, to)
	r := &dagReader{ls: ls}
	n, err := r.resolve(ctx, root, path)
	switch {
	case err != nil:
		return err
	case n.kind == Directory:
		return fmt.Errorf("%s/%s: %w", root, path, ErrIsDirectory)
	case n.kind != File:
		return fmt.Errorf("%s/%s: is a %s, not a file", root, path, n.kind)
	}
	return r.copyFile(ctx, n, w, uint64(from), uint64(to))
}

// copyFile writes the bytes [from, to) of a file.
func (r *dagReader) copyFile(ctx context.Context, n fsNode, w io.Writer, from, to uint64) error {
	c := fileCopy{r: r, w: w, from: from, to: to}
	return c.node(ctx, n, 0)
}

// fileCopy is one walk over the tree of a file, from the left. A part whose
// bytes are not wanted is passed over on its parent's word about its size; one
// that is read must have the size that its parent says.
type fileCopy struct {
	r        *dagReader
	w        io.Writer
	from, to uint64
	at       uint64 // bytes of the file that lie behind
}

func (f *fileCopy) node(ctx context.Context, n fsNode, depth int) error {
	if n.kind != File {
		return fmt.Errorf("%s: a %s inside of a file", n.cid, n.kind)
	}
	if depth > maxFileDepth {
		return fmt.Errorf("%s: file is nested too deep", n.cid)
	}
	if len(n.fs.sizes) != len(n.links) {
		return fmt.Errorf("%s: file with %d parts and %d sizes", n.cid, len(n.links), len(n.fs.sizes))
	}
	if err := f.bytes(n.fs.data); err != nil {
		return err
	}
	for i, l := range n.links {
		size := n.fs.sizes[i]
		end := f.at + size
		switch {
		case end < f.at:
			return fmt.Errorf("%s: file of more than 2^64 bytes", n.cid)
		case f.at >= f.to:
			return nil
		case size == 0 || end <= f.from: // an empty part could be a tree without end
			f.at = end
			continue
		}
		child, err := f.r.node(ctx, l.cid)
		if err != nil {
			return err
		}
		if err := f.node(ctx, child, depth+1); err != nil {
			return err
		}
		if f.at != end && f.at < f.to {
			return fmt.Errorf("%s: part of a file has not the %d bytes that it should have: %w", l.cid, size, errSize)
		}
	}
	return nil
}

// errSize says that a file is not put together right.
var errSize = errors.New("the file's sizes disagree")

// bytes writes what is wanted of the next bytes of the file.
func (f *fileCopy) bytes(data []byte) error {
	start, end := f.at, f.at+uint64(len(data))
	f.at = end
	if end <= f.from || start >= f.to {
		return nil
	}
	if start < f.from {
		data = data[f.from-start:]
	}
	if end > f.to {
		data = data[:uint64(len(data))-(end-f.to)]
	}
	_, err := f.w.Write(data)
	return err
}
