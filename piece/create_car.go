package piece

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// carWriter writes a CARv1 whose root is known last: it starts with a header of
// the right length and sets the root in finish. Each block is written once.
type carWriter struct {
	file    *os.File
	held    *blockIndex
	end     int64
	blocks  uint64
	bytes   uint64
	scratch []byte
}

// newCARWriter returns a writer into an empty file, which the caller closes.
func newCARWriter(file *os.File) *carWriter {
	w := &carWriter{file: file, end: int64(len(headerFor(placeholder)))}
	w.held = newBlockIndex(func(at int64) (frame, error) { return frameAt(file, at) })
	return w
}

// placeholder is a CID as long as every root that Create makes: version 1, a
// codec below 128, SHA-256.
var placeholder = cid.NewCidV1(cid.DagProtobuf, append(multihash.Multihash{multihash.SHA2_256, 32}, make([]byte, 32)...))

// put writes a block unless it was written before.
func (w *carWriter) put(c cid.Cid, data []byte) error {
	if _, ok, err := w.held.find(c.Hash()); ok || err != nil {
		return err
	}
	head, err := writeFrame(w.file, &w.scratch, w.end, c, data)
	if err != nil {
		return err
	}
	if err := w.held.add(c.Hash(), w.end); err != nil {
		return err
	}
	w.end += int64(head) + int64(len(data))
	w.blocks++
	w.bytes += uint64(len(data))
	return nil
}

// finish sets the root and waits until the file is on disk.
func (w *carWriter) finish(root cid.Cid) error {
	header := headerFor(root)
	if len(header) != len(headerFor(placeholder)) {
		return fmt.Errorf("root %s is longer or shorter than expected", root)
	}
	if _, err := w.file.WriteAt(header, 0); err != nil {
		return err
	}
	if err := w.file.Chmod(0o644); err != nil { // temporary files are private
		return err
	}
	return w.file.Sync()
}

// copyBelow is the size of block that is copied behind its head, so that both
// go out in one write. Larger blocks are written from where they are.
const copyBelow = 16 << 10

// writeFrame writes a frame at offset at and returns the length of its head.
// scratch is memory that is used again.
func writeFrame(w io.WriterAt, scratch *[]byte, at int64, c cid.Cid, data []byte) (head int, err error) {
	b := appendFrameHead((*scratch)[:0], c, len(data))
	head = len(b)
	small := len(data) < copyBelow
	if small {
		b = append(b, data...)
	}
	*scratch = b
	if _, err = w.WriteAt(b, at); err != nil || small {
		return head, err
	}
	_, err = w.WriteAt(data, at+int64(head))
	return head, err
}

// frameAt reads the head of the frame at an offset where there is a whole one.
func frameAt(r io.ReaderAt, at int64) (frame, error) {
	var found [maxFrameHead]byte
	n, err := r.ReadAt(found[:], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return frame{}, fmt.Errorf("read section at offset %d: %w", at, err)
	}
	f, err := parseFrame(at, math.MaxInt64, found[:n])
	if err != nil {
		return frame{}, &SectionError{Offset: at, Err: err}
	}
	return f, nil
}
