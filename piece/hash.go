package piece

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// A SectionError says which section of a CAR is bad. It wraps the reason;
// errors.Is(err, ErrBadBlock) tells a wrong hash from a malformed file.
type SectionError struct {
	Offset int64  // where the section starts in the file
	Block  string // its CID, empty where that could not be read
	Err    error
}

func (e *SectionError) Error() string {
	if e.Block == "" {
		return fmt.Sprintf("section at offset %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("section at offset %d, block %s: %v", e.Offset, e.Block, e.Err)
}

func (e *SectionError) Unwrap() error { return e.Err }

// firstBad keeps the bad section with the lowest offset.
type firstBad struct {
	mu  sync.Mutex
	bad *SectionError // guarded by mu
}

func (f *firstBad) add(e *SectionError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad == nil || e.Offset < f.bad.Offset {
		f.bad = e
	}
}

func (f *firstBad) get() *SectionError {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bad
}

// hashFrames reads the sections that walker finds from offset from on and hashes
// every block, on all processors. visit, which may be nil, is called for each section in file
// order from one goroutine, before the block's hash is known. The error is a
// *SectionError for the first bad section in the file, or the error of ctx, of
// visit or of a read.
func hashFrames(ctx context.Context, walker *frameWalker, from int64, visit func(frame) error) error {
	var bad firstBad
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan frame, 64)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return hashWorker(walker.r, work, &bad) })
	}
	group.Go(func() error {
		defer close(work)
		return feedFrames(ctx, walker, from, visit, work, &bad)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if e := bad.get(); e != nil {
		return e
	}
	return nil
}

// feedFrames hands the frames from offset at to the workers, until the end or
// the first one that is known to be bad: those behind it do not matter.
func feedFrames(ctx context.Context, walker *frameWalker, at int64, visit func(frame) error, work chan<- frame, bad *firstBad) error {
	for bad.get() == nil {
		f, err := walker.next(at)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if damage, ok := errors.AsType[*SectionError](err); ok {
			bad.add(damage)
			return nil
		}
		if err != nil {
			return err
		}
		if visit != nil {
			if err := visit(f); err != nil {
				return err
			}
		}
		select {
		case work <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
		at = f.end()
	}
	return nil
}

// hashWorker hashes sections until there are no more. A bad one does not stop
// it: an earlier one may still be on its way through another worker.
func hashWorker(r io.ReaderAt, work <-chan frame, bad *firstBad) error {
	var buf []byte
	for s := range work {
		if cap(buf) < s.size {
			buf = make([]byte, s.size)
		}
		data := buf[:s.size]
		if n, err := r.ReadAt(data, s.data()); n < len(data) {
			if !errors.Is(err, io.EOF) {
				return fmt.Errorf("read block at offset %d: %w", s.at, err)
			}
			bad.add(&SectionError{Offset: s.at, Block: s.cid.String(), Err: ErrTruncated})
		} else if err := checkBlock(s.cid, data); err != nil {
			bad.add(&SectionError{Offset: s.at, Block: s.cid.String(), Err: err})
		}
	}
	return nil
}
