package piece

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-varint"
)

// maxFrameHead is the longest head of a frame: length and CID.
const maxFrameHead = varint.MaxLenUvarint63 + maxCIDSize

// frame is one section of a CARv1 (a length as a varint, a CID, a block) by its
// measures alone: it is made without reading the block.
type frame struct {
	at   int64 // offset of the length
	cid  cid.Cid
	head int // bytes of length and CID
	size int // bytes of the block
}

// data is the offset of the block.
func (f frame) data() int64 { return f.at + int64(f.head) }

// end is the offset of the next frame.
func (f frame) end() int64 { return f.at + int64(f.head) + int64(f.size) }

// parseFrame reads the head of the frame that starts at offset at, from the
// bytes found there. The frames end at offset end.
func parseFrame(at, end int64, found []byte) (frame, error) {
	length, n, err := varint.FromUvarint(found)
	switch {
	case errors.Is(err, varint.ErrUnderflow):
		return frame{}, ErrTruncated
	case err != nil:
		return frame{}, fmt.Errorf("length: %w", err)
	case length == 0:
		return frame{}, errors.New("length is zero")
	case length > MaxBlockSize+maxCIDSize:
		return frame{}, fmt.Errorf("length is %d bytes, at most %d are allowed", length, MaxBlockSize+maxCIDSize)
	case int64(length) > end-at-int64(n):
		return frame{}, ErrTruncated
	}
	body := found[n:]
	if uint64(len(body)) > length {
		body = body[:length]
	}
	used, c, err := cid.CidFromBytes(body)
	if err != nil {
		return frame{}, fmt.Errorf("CID: %w", err)
	}
	if used > maxCIDSize {
		return frame{}, fmt.Errorf("CID of %d bytes, at most %d are allowed", used, maxCIDSize)
	}
	f := frame{at: at, cid: c, head: n + used, size: int(length) - used}
	if f.size > MaxBlockSize {
		return frame{}, fmt.Errorf("block of %d bytes, at most %d are allowed", f.size, MaxBlockSize)
	}
	return f, nil
}

// appendFrameHead appends the head of a frame for a block of size bytes.
func appendFrameHead(b []byte, c cid.Cid, size int) []byte {
	raw := c.Bytes()
	b = binary.AppendUvarint(b, uint64(len(raw)+size))
	return append(b, raw...)
}

// frameWalker reads the heads of frames one after the other. Heads that lie
// close together share one read; the blocks of large frames are not read.
type frameWalker struct {
	r   io.ReaderAt
	end int64 // where the frames end
	buf [16 << 10]byte
	at  int64 // offset of buf[0]
	n   int   // bytes held in buf
	far bool  // the last frame was longer than buf
	pad bool  // zeros up to the end are padding, not a frame
}

// next returns the frame at offset at. The error is io.EOF at the end, a
// *SectionError if the frame is malformed or torn, and anything else if the
// file could not be read.
func (w *frameWalker) next(at int64) (frame, error) {
	if at >= w.end {
		return frame{}, io.EOF
	}
	found, err := w.peek(at)
	if err != nil {
		return frame{}, err
	}
	if w.pad && found[0] == 0 {
		return frame{}, w.padding(at)
	}
	f, err := parseFrame(at, w.end, found)
	if err != nil {
		return frame{}, &SectionError{Offset: at, Err: err}
	}
	w.far = f.head+f.size > len(w.buf)
	return f, nil
}

// peek returns at least maxFrameHead bytes from offset at, fewer only at the end.
func (w *frameWalker) peek(at int64) ([]byte, error) {
	want := min(int64(maxFrameHead), w.end-at)
	if off := at - w.at; off >= 0 && off+want <= int64(w.n) {
		return w.buf[off:w.n], nil
	}
	fill := min(int64(len(w.buf)), w.end-at)
	if w.far {
		fill = want
	}
	n, err := w.r.ReadAt(w.buf[:fill], at)
	w.at, w.n = at, n
	if int64(n) < fill {
		w.n = 0
		if err == nil || errors.Is(err, io.EOF) { // the file became shorter since it was measured
			return nil, &SectionError{Offset: at, Err: ErrTruncated}
		}
		return nil, fmt.Errorf("read section at offset %d: %w", at, err)
	}
	return w.buf[:n], nil
}

// padding returns io.EOF if there are only zeros from offset at.
func (w *frameWalker) padding(at int64) error {
	rest := io.NewSectionReader(w.r, at, w.end-at)
	for {
		n, err := rest.Read(w.buf[:])
		w.n = 0
		if len(bytes.Trim(w.buf[:n], "\x00")) > 0 {
			return &SectionError{Offset: at, Err: errors.New("length is zero, and what follows is not padding")}
		}
		if err != nil {
			return err
		}
	}
}

// headerFor returns the header of a CARv1 with one root, its length included.
// Roots of equal length have headers of equal length.
func headerFor(root cid.Cid) []byte {
	raw := append([]byte{0}, root.Bytes()...) // DAG-CBOR puts the identity multibase before a CID
	body := append([]byte{0xa2, 0x65}, "roots"...)
	body = append(body, 0x81, 0xd8, 0x2a) // one item, tag 42
	switch n := len(raw); {
	case n < 24:
		body = append(body, 0x40|byte(n))
	case n < 1<<8:
		body = append(body, 0x58, byte(n))
	default:
		body = append(body, 0x59, byte(n>>8), byte(n))
	}
	body = append(body, raw...)
	body = append(body, 0x67)
	body = append(body, "version"...)
	body = append(body, 0x01)
	return append(varint.ToUvarint(uint64(len(body))), body...)
}
