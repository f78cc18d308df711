package piece

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ipfs/go-cid"
)

// indexHeader is the header page decoded: meta, and the sizes and checksums of what
// follows.
type indexHeader struct {
	meta        indexMeta
	rootBytes   uint32
	filterLines uint32
	summarySum  uint32 // CRC-32C of roots and directory
	filterSum   uint32 // CRC-32C of the filter
	seed        seed
	buckets     uint64
}

const flagVerified = 1

// errIndexOld says that an index is of an earlier version. It can be brought up to date.
var errIndexOld = errors.New("index is of an earlier version")

// bodySize returns the bytes of all buckets.
func (h indexHeader) bodySize() uint64 { return h.meta.blocks*recordSize + h.buckets*sealSize }

// summaryAt returns where roots and directory begin, filterAt where they end.
func (h indexHeader) summaryAt() int64 { return pageSize + int64(h.bodySize()) }
func (h indexHeader) filterAt() int64 {
	return h.summaryAt() + int64(h.rootBytes) + int64(directorySize(h.buckets))
}

// encode returns the header page.
func (h indexHeader) encode() *[pageSize]byte {
	m := h.meta
	var flags uint32
	if m.verified {
		flags |= flagVerified
	}
	b := append(make([]byte, 0, pageSize), indexMagic...)
	b = binary.BigEndian.AppendUint32(b, indexVersion)
	b = binary.BigEndian.AppendUint32(b, flags)
	for _, n := range []uint64{m.fileSize, uint64(m.fileTime), m.payload, m.blocks, m.blockSize, m.sections} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, n := range []uint32{h.rootBytes, h.filterLines, h.summarySum} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = append(b, m.sum[:]...)
	b = append(b, m.commP[:]...)
	b = binary.BigEndian.AppendUint32(b, h.filterSum)
	b = binary.BigEndian.AppendUint64(append(b, h.seed[:]...), h.buckets)
	page := (*[pageSize]byte)(b[:pageSize])
	seal(page[:])
	return page
}

// decodeIndexHeader reads the header page of an index of this version. Its numbers
// are not checked against the file yet.
func decodeIndexHeader(page *[pageSize]byte) (indexHeader, error) {
	if string(page[:8]) != indexMagic || !sealed(page[:]) {
		return indexHeader{}, errIndexDamaged
	}
	switch v := binary.BigEndian.Uint32(page[8:]); v {
	case indexVersion:
		return decodeHeaderNumbers(page), nil
	case oldIndexVersion:
		return decodeHeaderNumbers(page), errIndexOld
	default:
		return indexHeader{}, fmt.Errorf("index has version %d, not %d", v, indexVersion)
	}
}

func decodeHeaderNumbers(page *[pageSize]byte) (h indexHeader) {
	h.meta.verified = binary.BigEndian.Uint32(page[12:])&flagVerified != 0
	var when uint64
	b := page[16:]
	for _, n := range []*uint64{&h.meta.fileSize, &when, &h.meta.payload, &h.meta.blocks, &h.meta.blockSize, &h.meta.sections} {
		*n = binary.BigEndian.Uint64(b)
		b = b[8:]
	}
	h.meta.fileTime = int64(when)
	for _, n := range []*uint32{&h.rootBytes, &h.filterLines, &h.summarySum} {
		*n = binary.BigEndian.Uint32(b)
		b = b[4:]
	}
	b = b[copy(h.meta.sum[:], b):]
	b = b[copy(h.meta.commP[:], b):]
	h.filterSum = binary.BigEndian.Uint32(b)
	b = b[4:]
	b = b[copy(h.seed[:], b):]
	h.buckets = binary.BigEndian.Uint64(b)
	return h
}

// readHeaderPage reads the header page of an index.
func readHeaderPage(r io.ReaderAt) (indexHeader, error) {
	page := new([pageSize]byte)
	if n, err := r.ReadAt(page[:], 0); n < pageSize {
		return indexHeader{}, fmt.Errorf("%w: %w", errIndexDamaged, cutShort(err))
	}
	return decodeIndexHeader(page)
}

// readIndex opens the index file of size bytes in r, which must stay readable.
// It reads header, roots and directory; buckets are checked as they are used, and
// the filter when it is read. The memory taken is never more than size.
func readIndex(r io.ReaderAt, size int64) (*index, error) {
	h, err := readHeaderPage(r)
	if err != nil {
		return nil, err
	}
	if h.meta.blocks > uint64(size)/recordSize || h.buckets > uint64(size)/sealSize {
		return nil, errIndexDamaged
	}
	if size != h.filterAt()+int64(h.filterLines)*filterLine {
		return nil, errIndexDamaged
	}
	summary := make([]byte, h.filterAt()-h.summaryAt())
	if n, err := r.ReadAt(summary, h.summaryAt()); n < len(summary) {
		return nil, fmt.Errorf("%w: %w", errIndexDamaged, cutShort(err))
	}
	if crc32.Checksum(summary, castagnoli) != h.summarySum {
		return nil, errIndexDamaged
	}
	x := &index{indexHeader: h, r: r, dir: summary[h.rootBytes:]}
	x.meta.roots, err = parseCIDs(summary[:h.rootBytes])
	return x, err
}

// parseCIDs reads CIDs that lie one after the other.
func parseCIDs(b []byte) (out []cid.Cid, err error) {
	for len(b) > 0 {
		n, c, err := cid.CidFromBytes(b)
		if err != nil {
			return nil, fmt.Errorf("%w: root: %w", errIndexDamaged, err)
		}
		out, b = append(out, c), b[n:]
	}
	return out, nil
}
