package piece

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// oldIndexVersion is that of indexes with pages of 93 records, sorted by key, and a
// summary: roots, the first key of each page, and the filter.
const oldIndexVersion = 1

// renewIndex writes the index of an earlier version at path anew, to dst, without
// its piece, which may be sealed and have no other index. dir is for what does not
// fit into memory.
func renewIndex(ctx context.Context, path, dst, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	meta, err := oldIndexMeta(f, info.Size())
	if err != nil {
		return err
	}
	b := newIndexBuilder(dir)
	defer b.Close()
	if err := eachOldRecord(f, meta.blocks, during(ctx, b.add)); err != nil {
		return err
	}
	meta.blocks, meta.blockSize = 0, 0
	return b.write(ctx, dst, meta)
}

// oldIndexMeta reads header and summary of an old index of size bytes.
func oldIndexMeta(r io.ReaderAt, size int64) (indexMeta, error) {
	h, err := readHeaderPage(r)
	if !errors.Is(err, errIndexOld) {
		return indexMeta{}, errors.Join(errIndexDamaged, err)
	}
	if h.meta.blocks > uint64(size)/recordSize {
		return indexMeta{}, errIndexDamaged
	}
	pages := int64(oldPages(h.meta.blocks))
	at := (1 + pages) * pageSize
	if size != at+int64(h.rootBytes)+pages*int64(len(key{}))+int64(h.filterLines)*filterLine {
		return indexMeta{}, errIndexDamaged
	}
	summary := make([]byte, size-at)
	if err := readFull(r, summary, at); err != nil {
		return indexMeta{}, fmt.Errorf("%w: %w", errIndexDamaged, err)
	}
	if crc32.Checksum(summary, castagnoli) != h.summarySum {
		return indexMeta{}, errIndexDamaged
	}
	h.meta.roots, err = parseCIDs(summary[:h.rootBytes])
	return h.meta, err
}

// eachOldRecord calls visit for every record of an old index.
func eachOldRecord(r io.ReaderAt, blocks uint64, visit func(record) error) error {
	var buf [pageSize]byte
	for i := range oldPages(blocks) {
		if err := readFull(r, buf[:], int64(1+i)*pageSize); err != nil {
			return fmt.Errorf("%w: %w", errIndexDamaged, err)
		}
		if !sealed(buf[:]) {
			return errIndexDamaged
		}
		for j := range min(fullestBucket, blocks-i*fullestBucket) {
			if err := visit(parseRecord(buf[j*recordSize:])); err != nil {
				return err
			}
		}
	}
	return nil
}

// oldPages returns how many pages hold n records.
func oldPages(n uint64) uint64 { return (n + fullestBucket - 1) / fullestBucket }
