package piece

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// runRecords is how many records are sorted in memory, some 72 MiB of them;
// more go through sorted runs on disk.
const runRecords = 1 << 20

// indexBuilder collects records in any order and writes them as an index. Use
// one from one goroutine, and Close it.
type indexBuilder struct {
	dir   string // for the runs
	limit int    // records held in memory
	seed  seed
	held  []placed
	runs  []*os.File // sorted records
	total uint64
}

func newIndexBuilder(dir string) *indexBuilder {
	b := &indexBuilder{dir: dir, limit: runRecords}
	_, _ = rand.Read(b.seed[:]) // does not fail
	return b
}

// placed is a record with the place of its key.
type placed struct {
	record
	place uint64
}

// add takes one record.
func (b *indexBuilder) add(r record) error {
	b.held = append(b.held, placed{r, b.seed.place(r.key)})
	b.total++
	if len(b.held) < b.limit {
		return nil
	}
	return b.spill()
}

// compareRecords sorts by place; of equal blocks the first in the file comes first.
func compareRecords(x, y placed) int {
	if x.place != y.place {
		return cmp.Compare(x.place, y.place)
	}
	return cmp.Or(bytes.Compare(x.key[:], y.key[:]), cmp.Compare(x.off, y.off))
}

// spill writes the held records to a run of their own.
func (b *indexBuilder) spill() error {
	f, err := os.CreateTemp(b.dir, "run"+tempMark+"*")
	if err != nil {
		return fmt.Errorf("sort index: %w", err)
	}
	b.runs = append(b.runs, f)
	slices.SortFunc(b.held, compareRecords)
	w := bufio.NewWriterSize(f, 1<<20)
	var buf []byte
	for _, r := range b.held {
		buf = r.append(buf[:0])
		if _, err := w.Write(buf); err != nil {
			return fmt.Errorf("sort index: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("sort index: %w", err)
	}
	b.held = b.held[:0]
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// Close removes the runs.
func (b *indexBuilder) Close() {
	for _, f := range b.runs {
		_, _ = f.Close(), os.Remove(f.Name()) // what stays goes with the other half-written files
	}
	b.runs, b.held = nil, nil
}

// run is one sorted source in a merge: records in memory or on disk.
type run struct {
	held []placed
	disk *bufio.Reader
	seed seed
	head placed
}

// next moves to the next record; it returns io.EOF behind the last.
func (r *run) next() error {
	if r.disk == nil {
		if len(r.held) == 0 {
			return io.EOF
		}
		r.head, r.held = r.held[0], r.held[1:]
		return nil
	}
	var b [recordSize]byte
	if _, err := io.ReadFull(r.disk, b[:]); err != nil {
		return err
	}
	r.head.record = parseRecord(b[:])
	r.head.place = r.seed.place(r.head.key)
	return nil
}

// merge calls visit for every record in order, once per key.
func (b *indexBuilder) merge(visit func(placed) error) error {
	slices.SortFunc(b.held, compareRecords)
	all := []*run{{held: b.held}}
	for _, f := range b.runs {
		all = append(all, &run{disk: bufio.NewReaderSize(f, 256<<10), seed: b.seed})
	}
	var live []*run // few: one per runRecords
	for _, r := range all {
		if err := r.next(); err == nil {
			live = append(live, r)
		} else if err != io.EOF {
			return err
		}
	}
	var last key
	for began := false; len(live) > 0; began = true {
		least := 0
		for i := 1; i < len(live); i++ {
			if compareRecords(live[i].head, live[least].head) < 0 {
				least = i
			}
		}
		r := live[least].head
		if !began || last != r.key {
			if err := visit(r); err != nil {
				return err
			}
			last = r.key
		}
		if err := live[least].next(); err == io.EOF {
			live = slices.Delete(live, least, least+1)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// lookEvery is how many records are taken between two looks at a context.
const lookEvery = 4096

// during is visit, until ctx ends.
func during[T any](ctx context.Context, visit func(T) error) func(T) error {
	n := 0
	return func(v T) error {
		if n++; n%lookEvery == 1 && ctx.Err() != nil {
			return ctx.Err()
		}
		return visit(v)
	}
}

// write makes the index file at path, whole or not at all, durably. It fills in
// meta.blocks and meta.blockSize.
func (b *indexBuilder) write(ctx context.Context, path string, meta indexMeta) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+tempMark+"*")
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	err = errors.Join(b.writeTo(ctx, f, meta), f.Close())
	if err == nil {
		err = publish(f.Name(), path, true)
	}
	if err != nil {
		return fmt.Errorf("write index: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func (b *indexBuilder) writeTo(ctx context.Context, f *os.File, meta indexMeta) error {
	w := &indexWriter{w: bufio.NewWriterSize(f, 1<<20), filter: newFilter(b.total)}
	w.header = indexHeader{meta: meta, seed: b.seed, buckets: (b.total + bucketRecords - 1) / bucketRecords}
	if _, err := w.w.Write(make([]byte, pageSize)); err != nil { // the header's place
		return err
	}
	if err := b.merge(during(ctx, w.add)); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if _, err := f.WriteAt(w.header.encode()[:], 0); err != nil {
		return err
	}
	return f.Sync()
}

// indexWriter lays records out in buckets. They come in the order of their places.
type indexWriter struct {
	w      *bufio.Writer
	header indexHeader
	dir    directory
	filter filter
	full   uint64 // buckets that are written
	at     uint64 // where the next one begins, counted from the first
	bucket []byte // the records of the next one
}

func (w *indexWriter) add(r placed) error {
	if err := w.flush(bucketOf(r.place, w.header.buckets)); err != nil {
		return err
	}
	if len(w.bucket) == fullestBucket*recordSize {
		return errors.New("too many blocks fall together; try again")
	}
	w.bucket = r.append(w.bucket)
	w.filter.add(r.key)
	w.header.meta.blocks++
	w.header.meta.blockSize += uint64(r.size)
	return nil
}

// flush writes buckets until n are written: the one that is being filled, and empty ones.
func (w *indexWriter) flush(n uint64) error {
	for ; w.full < n; w.full++ {
		w.dir = w.dir.append(w.full, w.at, len(w.bucket)/recordSize)
		w.bucket = append(w.bucket, make([]byte, sealSize)...)
		seal(w.bucket)
		if _, err := w.w.Write(w.bucket); err != nil {
			return err
		}
		w.at, w.bucket = w.at+uint64(len(w.bucket)), w.bucket[:0]
	}
	return nil
}

// finish writes what comes behind the records and completes the header.
func (w *indexWriter) finish() error {
	if err := w.flush(w.header.buckets); err != nil {
		return err
	}
	var roots []byte
	for _, c := range w.header.meta.roots {
		roots = append(roots, c.Bytes()...)
	}
	for _, part := range [][]byte{roots, w.dir, w.filter} {
		if _, err := w.w.Write(part); err != nil {
			return err
		}
	}
	h := &w.header
	h.rootBytes, h.filterLines = uint32(len(roots)), uint32(len(w.filter)/filterLine)
	h.summarySum = crc32.Update(crc32.Checksum(roots, castagnoli), castagnoli, w.dir)
	h.filterSum = crc32.Checksum(w.filter, castagnoli)
	return w.w.Flush()
}
