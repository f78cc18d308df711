package piece

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// Unsealer turns a sealed file back into the CAR that it was made from. It
// writes outPath, which does not exist yet, and must stop soon after ctx ends.
// What it wrote is checked afterwards, so it need not be trusted. It may be
// called concurrently for different pieces.
type Unsealer interface {
	Unseal(ctx context.Context, sealedPath, outPath string) error
}

// ErrNoUnsealer says that there is a sealed piece and nothing to unseal it.
var ErrNoUnsealer = errors.New("piece is sealed and no unsealer is configured")

// openSealed opens a sealed piece by its index, and its unsealed copy if there
// is one.
func (s *Store) openSealed(ctx context.Context, c candidate) (*piece, error) {
	var errs []error
	own := s.indexPath(c.carPath())
	for _, path := range []string{own, c.carPath() + indexSuffix} {
		idx, file, err := s.openIndex(ctx, path, own)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p := newPiece(c, file.Name(), idx, file)
		if f, err := s.openCopy(p); err == nil {
			p.file.Store(f)
		} else if !errors.Is(err, os.ErrNotExist) {
			s.problem(s.copyPath(p), err, true)
		}
		return p, nil
	}
	return nil, fmt.Errorf("sealed piece has no index; serve the CAR once before it is sealed, or put its index beside it as %s%s: %w",
		filepath.Base(c.carPath()), indexSuffix, errors.Join(errs...))
}

// copyPath returns where the unsealed copy of a piece is kept.
func (s *Store) copyPath(p *piece) string {
	return filepath.Join(s.unsealedDir(), p.info.ID.String()+carSuffix)
}

// openCopy opens the unsealed copy of a piece. It was checked before it got its
// name.
func (s *Store) openCopy(p *piece) (*carFile, error) {
	f, err := os.Open(s.copyPath(p))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	h, err := readHeader(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &carFile{File: f, start: h.start}, nil
}

// Unseal makes a sealed piece readable and returns when it is. It joins a run
// that is under way, and does nothing for a piece at hand. The run ends early
// when nobody waits for it any more, when it exceeds UnsealTimeout, and with
// Close.
func (s *Store) Unseal(ctx context.Context, id cid.Cid) error {
	p, ok := s.byID[id]
	switch {
	case !ok:
		return fmt.Errorf("unseal %s: %w", id, ErrNotFound)
	case p.file.Load() != nil:
		return nil
	case s.cfg.Unsealer == nil:
		return fmt.Errorf("unseal %s: %w", p.info.Path, ErrNoUnsealer)
	}
	err := s.unsealing.do(ctx, p, func(ctx context.Context) error { return s.unseal(ctx, p) })
	if err != nil {
		return fmt.Errorf("unseal %s: %w", p.info.Path, err)
	}
	return nil
}

// unseal runs the Unsealer into a directory of its own, so that whatever it
// leaves behind is removed, checks the result and gives it its name.
func (s *Store) unseal(ctx context.Context, p *piece) (err error) {
	if p.file.Load() != nil {
		return nil
	}
	dir, err := os.MkdirTemp(s.unsealedDir(), p.info.ID.String()+tempMark+"*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out := filepath.Join(dir, "piece"+carSuffix)
	if err := s.cfg.Unsealer.Unseal(ctx, p.info.Path, out); err != nil {
		return errors.Join(err, ctx.Err())
	}
	if err := checkCopy(ctx, out, p.info.ID); err != nil {
		return err
	}
	if err := publish(out, s.copyPath(p), true); err != nil {
		return err
	}
	f, err := s.openCopy(p)
	if err != nil {
		return err
	}
	p.file.Store(f)
	return nil
}

// checkCopy returns an error unless the file at path is the piece id, and makes
// it durable.
func checkCopy(ctx context.Context, path string, id cid.Cid) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("unsealer wrote nothing: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := readHeader(f, info.Size())
	if err != nil {
		return fmt.Errorf("what was unsealed: %w", err)
	}
	got, err := scan(ctx, f, h, false, func(section) error { return nil })
	if err != nil {
		return fmt.Errorf("what was unsealed: %w", err)
	}
	if idOf(got.sum) != id {
		return fmt.Errorf("what was unsealed is piece %s, not %s", idOf(got.sum), id)
	}
	return f.Sync()
}

// Reseal removes the unsealed copy of a sealed piece, to have its space back. It
// does nothing for other pieces. Deals that read the piece fail.
func (s *Store) Reseal(id cid.Cid) error {
	p, ok := s.byID[id]
	if !ok {
		return fmt.Errorf("reseal %s: %w", id, ErrNotFound)
	}
	if !p.sealed {
		return nil
	}
	f := p.file.Swap(nil)
	if f == nil {
		return nil
	}
	return errors.Join(f.Close(), os.Remove(s.copyPath(p)))
}

// flights runs one thing per piece at a time, for all who want it.
type flights struct {
	limit   time.Duration
	slots   chan struct{}
	ctx     context.Context // ends with close; it belongs to the runs, not to a call
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool               // guarded by mu
	active map[*piece]*flight // guarded by mu
}

// flight is one run.
type flight struct {
	waiters int // guarded by flights.mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when err is set
	err     error
}

func (fs *flights) init(cfg Config) {
	fs.limit = cfg.UnsealTimeout
	if fs.limit <= 0 {
		fs.limit = 12 * time.Hour
	}
	fs.slots = make(chan struct{}, max(1, cfg.UnsealAtOnce))
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
	fs.active = make(map[*piece]*flight)
}

// do runs fn for p, or joins who does, and returns its error.
func (fs *flights) do(ctx context.Context, p *piece, fn func(context.Context) error) error {
	fs.mu.Lock()
	if fs.closed {
		fs.mu.Unlock()
		return ErrClosed
	}
	f, ok := fs.active[p]
	if !ok {
		f = fs.start(p, fn)
	}
	f.waiters++
	fs.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		if fs.active[p] == f {
			delete(fs.active, p) // who comes now must not join a run that is ending
		}
	}
	return ctx.Err()
}

// start begins a run; fs.mu is held.
func (fs *flights) start(p *piece, fn func(context.Context) error) *flight {
	ctx, cancel := context.WithTimeout(fs.ctx, fs.limit)
	f := &flight{cancel: cancel, done: make(chan struct{})}
	fs.active[p] = f
	fs.running.Go(func() {
		defer cancel()
		f.err = fs.inSlot(ctx, fn)
		fs.mu.Lock()
		if fs.active[p] == f {
			delete(fs.active, p)
		}
		fs.mu.Unlock()
		close(f.done)
	})
	return f
}

// inSlot waits for its turn and runs fn.
func (fs *flights) inSlot(ctx context.Context, fn func(context.Context) error) error {
	select {
	case fs.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-fs.slots }()
	return fn(ctx)
}

// close ends all runs and waits for them. No more begin.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	fs.cancel()
	fs.running.Wait()
}
