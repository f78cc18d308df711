package piece

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ipfs/go-cid"
)

// indexHeader is the header page decoded: meta and the sizes of the summary.
type indexHeader struct {
	meta      indexMeta
	rootBytes uint32
	filter    uint32 // lines of the filter
	summary   uint32 // CRC-32C of the summary
}

const flagVerified = 1

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
	for _, n := range []uint32{h.rootBytes, h.filter, h.summary} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = append(b, m.sum[:]...)
	b = append(b, m.commP[:]...)
	page := (*[pageSize]byte)(b[:pageSize])
	sealPage(page)
	return page
}

// decodeIndexHeader reads the header page. Its numbers are not checked against
// the file yet.
func decodeIndexHeader(page *[pageSize]byte) (indexHeader, error) {
	if string(page[:8]) != indexMagic || !sealedPage(page) {
		return indexHeader{}, errIndexDamaged
	}
	if v := binary.BigEndian.Uint32(page[8:]); v != indexVersion {
		return indexHeader{}, fmt.Errorf("index has version %d, not %d", v, indexVersion)
	}
	var h indexHeader
	h.meta.verified = binary.BigEndian.Uint32(page[12:])&flagVerified != 0
	var when uint64
	b := page[16:]
	for _, n := range []*uint64{&h.meta.fileSize, &when, &h.meta.payload, &h.meta.blocks, &h.meta.blockSize, &h.meta.sections} {
		*n = binary.BigEndian.Uint64(b)
		b = b[8:]
	}
	h.meta.fileTime = int64(when)
	for _, n := range []*uint32{&h.rootBytes, &h.filter, &h.summary} {
		*n = binary.BigEndian.Uint32(b)
		b = b[4:]
	}
	b = b[copy(h.meta.sum[:], b):]
	copy(h.meta.commP[:], b)
	return h, nil
}

// pageCount returns how many pages hold n records.
func pageCount(n uint64) uint64 { return (n + recordsInPage - 1) / recordsInPage }

// readIndex opens the index file of size bytes in r, which must stay readable.
// It reads header and summary only; pages are checked as they are used. The
// memory taken is never more than size and a quarter.
func readIndex(r io.ReaderAt, size int64) (*index, error) {
	page := new([pageSize]byte)
	if n, err := r.ReadAt(page[:], 0); n < pageSize {
		return nil, fmt.Errorf("%w: %w", errIndexDamaged, cutShort(err))
	}
	h, err := decodeIndexHeader(page)
	if err != nil {
		return nil, err
	}
	if h.meta.blocks > uint64(size)/recordSize {
		return nil, errIndexDamaged
	}
	count := int64(pageCount(h.meta.blocks))
	summaryAt := (1 + count) * pageSize
	firsts, lines := count*int64(len(key{})), int64(h.filter)*filterLine
	if size != summaryAt+int64(h.rootBytes)+firsts+lines {
		return nil, errIndexDamaged
	}
	summary := make([]byte, size-summaryAt)
	if n, err := r.ReadAt(summary, summaryAt); n < len(summary) {
		return nil, fmt.Errorf("%w: %w", errIndexDamaged, cutShort(err))
	}
	if crc32.Checksum(summary, castagnoli) != h.summary {
		return nil, errIndexDamaged
	}
	x := &index{meta: h.meta, r: r}
	if x.meta.roots, err = parseCIDs(summary[:h.rootBytes]); err != nil {
		return nil, err
	}
	x.first = summary[h.rootBytes:][:firsts:firsts]
	x.fillHeads()
	x.filter = summary[int64(h.rootBytes)+firsts:]
	return x, nil
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
