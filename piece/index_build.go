package piece

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// runRecords is how many records are sorted in memory, some 64 MiB of them;
// more go through sorted runs on disk.
const runRecords = 1 << 20

// indexBuilder collects records in any order and writes them as an index. Use
// one from one goroutine, and Close it.
type indexBuilder struct {
	dir   string // for the runs
	limit int    // records held in memory
	held  []record
	runs  []*os.File // sorted records
	total uint64
}

func newIndexBuilder(dir string) *indexBuilder {
	return &indexBuilder{dir: dir, limit: runRecords}
}

// add takes one record.
func (b *indexBuilder) add(r record) error {
	b.held = append(b.held, r)
	b.total++
	if len(b.held) < b.limit {
		return nil
	}
	return b.spill()
}

// compareRecords sorts by key; of equal blocks the first in the file comes first.
func compareRecords(x, y record) int {
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
	held []record
	disk *bufio.Reader
	head record
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
	r.head = parseRecord(b[:])
	return nil
}

// merge calls visit for every record in order, once per key.
func (b *indexBuilder) merge(visit func(record) error) error {
	slices.SortFunc(b.held, compareRecords)
	all := []*run{{held: b.held}}
	for _, f := range b.runs {
		all = append(all, &run{disk: bufio.NewReaderSize(f, 256<<10)})
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

// write makes the index file at path, whole or not at all, durably. It fills in
// meta.blocks and meta.blockSize.
func (b *indexBuilder) write(path string, meta indexMeta) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+tempMark+"*")
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	err = errors.Join(b.writeTo(f, meta), f.Close())
	if err == nil {
		err = publish(f.Name(), path, true)
	}
	if err != nil {
		return fmt.Errorf("write index: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func (b *indexBuilder) writeTo(f *os.File, meta indexMeta) error {
	w := &indexWriter{w: bufio.NewWriterSize(f, 1<<20), meta: meta, filter: newFilter(b.total)}
	if err := w.page(new([pageSize]byte)); err != nil { // the header's place
		return err
	}
	if err := b.merge(w.add); err != nil {
		return err
	}
	header, err := w.finish()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(header[:], 0); err != nil {
		return err
	}
	return f.Sync()
}

// indexWriter lays records out in pages.
type indexWriter struct {
	w      *bufio.Writer
	meta   indexMeta
	filter filter
	first  []byte
	buf    [pageSize]byte
	n      int // records in buf
}

func (w *indexWriter) add(r record) error {
	if w.n == 0 {
		w.first = append(w.first, r.key[:]...)
	}
	r.append(w.buf[:w.n*recordSize])
	w.n++
	w.filter.add(r.key)
	w.meta.blocks++
	w.meta.blockSize += uint64(r.size)
	if w.n < recordsInPage {
		return nil
	}
	return w.flush()
}

// flush writes the page that is being filled.
func (w *indexWriter) flush() error {
	sealPage(&w.buf)
	err := w.page(&w.buf)
	w.buf, w.n = [pageSize]byte{}, 0
	return err
}

func (w *indexWriter) page(p *[pageSize]byte) error {
	_, err := w.w.Write(p[:])
	return err
}

// finish writes the last page and the summary and returns the header.
func (w *indexWriter) finish() (*[pageSize]byte, error) {
	if w.n > 0 {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	var roots []byte
	for _, c := range w.meta.roots {
		roots = append(roots, c.Bytes()...)
	}
	var sum uint32
	for _, part := range [][]byte{roots, w.first, w.filter} {
		sum = crc32.Update(sum, castagnoli, part)
		if _, err := w.w.Write(part); err != nil {
			return nil, err
		}
	}
	h := indexHeader{
		meta: w.meta, summary: sum,
		rootBytes: uint32(len(roots)), filter: uint32(len(w.filter) / filterLine),
	}
	return h.encode(), w.w.Flush()
}
