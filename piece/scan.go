package piece

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// batchSize is how many bytes of sections go to the hashing workers at once.
const batchSize = 1 << 20

// batch is some whole sections that lie one after the other.
type batch struct {
	buf      []byte // their bytes, length prefixes included
	sections []section
	starts   []int // of each block in buf
	users    atomic.Int32
}

// scanned is what one pass over a payload taught.
type scanned struct {
	sum      [sha256.Size]byte // SHA-256 of the payload without padding: the digest in a piece's ID
	sections uint64
}

// scan reads the CAR in r once, in order, calls visit for each section from the
// calling goroutine, and hashes the payload and, if verify is set, every block
// on all cores meanwhile. What visit was given counts only if scan returns no
// error: a bad block is found after it was visited. Memory is bounded by a few
// batches and blocks.
func scan(ctx context.Context, r io.ReaderAt, h carHeader, verify bool, visit func(section) error) (scanned, error) {
	s := &scanner{
		verify: verify,
		free:   make(chan *batch, runtime.GOMAXPROCS(0)+3),
		blocks: make(chan *batch),
		stream: make(chan *batch, 1),
		bad:    &firstBad{},
	}
	for range cap(s.free) {
		s.free <- &batch{}
	}
	var out scanned
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(s.blocks)
		defer close(s.stream)
		var err error
		out.sections, err = s.read(ctx, sectionsOf(r, h), visit)
		return err
	})
	group.Go(func() error {
		var err error
		out.sum, err = s.sum(ctx, r, h)
		return err
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { s.check(); return nil })
	}
	err := group.Wait()
	if bad := s.bad.get(); bad != nil { // it comes before any malformed section that was read
		return scanned{}, bad
	}
	return out, err
}

// scanner is the state of one scan. A batch goes from free to stream and to
// blocks, and back to free when both are done with it.
type scanner struct {
	verify               bool
	free, blocks, stream chan *batch
	bad                  *firstBad
}

// read fills batches until the payload ends.
func (s *scanner) read(ctx context.Context, r *sectionReader, visit func(section) error) (n uint64, err error) {
	for {
		var b *batch
		select {
		case b = <-s.free:
		case <-ctx.Done():
			return n, ctx.Err()
		}
		last, err := b.fill(r, visit)
		if err != nil {
			return n, err
		}
		n += uint64(len(b.sections))
		for _, ch := range s.users(b) {
			select {
			case ch <- b:
			case <-ctx.Done():
				return n, ctx.Err()
			}
		}
		if last || s.bad.get() != nil {
			return n, nil
		}
	}
}

// users returns who must see b before it is free again.
func (s *scanner) users(b *batch) []chan *batch {
	if !s.verify {
		b.users.Store(1)
		return []chan *batch{s.stream}
	}
	b.users.Store(2)
	return []chan *batch{s.stream, s.blocks}
}

// release says that one user of b is done.
func (s *scanner) release(b *batch) {
	if b.users.Add(-1) == 0 {
		s.free <- b // never blocks: free has room for all batches
	}
}

// fill replaces what is in b by the next sections. It reports whether they are
// the last.
func (b *batch) fill(r *sectionReader, visit func(section) error) (last bool, err error) {
	b.buf, b.sections, b.starts = b.buf[:0], b.sections[:0], b.starts[:0]
	for len(b.buf) < batchSize {
		buf, sec, err := r.next(b.buf)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if err := visit(sec); err != nil {
			return false, err
		}
		b.buf = buf
		b.sections = append(b.sections, sec)
		b.starts = append(b.starts, len(buf)-sec.size)
	}
	return false, nil
}

// sum hashes header and sections in the order of the file.
func (s *scanner) sum(ctx context.Context, r io.ReaderAt, h carHeader) (out [sha256.Size]byte, err error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(r, h.start, h.body)); err != nil {
		return out, fmt.Errorf("read header: %w", err)
	}
	for b := range s.stream {
		hash.Write(b.buf)
		s.release(b)
	}
	hash.Sum(out[:0])
	return out, ctx.Err()
}

// check compares blocks with their CIDs until there are no more.
func (s *scanner) check() {
	for b := range s.blocks {
		for i, sec := range b.sections {
			if err := checkBlock(sec.cid, b.buf[b.starts[i]:b.starts[i]+sec.size]); err != nil {
				s.bad.add(&SectionError{Offset: sec.at, Block: sec.cid.String(), Err: err})
				break
			}
		}
		s.release(b)
	}
}
