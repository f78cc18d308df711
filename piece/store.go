package piece

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

var (
	// ErrNotFound says that no piece, or not the one asked for, holds a block.
	ErrNotFound = errors.New("not found in any piece")
	// ErrSealed says that a piece cannot be read before Unseal.
	ErrSealed = errors.New("piece is sealed; unseal it first")
	// ErrClosed says that a Store is used after Close.
	ErrClosed = errors.New("store is closed")
)

// Config says what a Store serves.
type Config struct {
	// Paths are CAR files, sealed pieces (NAME.sealed), or directories that are
	// searched for *.car and *.car.sealed, at any depth.
	Paths []string
	// IndexDir keeps indexes and unsealed copies. It is made if need be, and may
	// be shared by several stores, also of several processes. Required.
	IndexDir string
	// Unsealer brings sealed pieces back. Without one they are found, but Unseal fails.
	Unsealer Unsealer
	// UnsealTimeout bounds one run of the Unsealer; 0 means twelve hours.
	UnsealTimeout time.Duration
	// UnsealAtOnce is how many runs go on at the same time; 0 means one.
	UnsealAtOnce int
	// SkipVerify leaves out comparing every block with its CID when a piece is
	// indexed. Damaged blocks are then found by whoever buys them.
	SkipVerify bool
	// PieceCID computes the Filecoin piece CID (CommP) of every piece.
	PieceCID bool
	// Logger gets what happens while serving; nil is slog.Default().
	Logger *slog.Logger
}

// Info says what a piece is. It is a copy; Roots must not be changed.
type Info struct {
	ID          cid.Cid   // see the package comment
	PieceCID    cid.Cid   // CommP, cid.Undef if not computed; of the file as it lies there
	Path        string    // of the CAR or the sealed file
	Size        uint64    // bytes of the CAR file, also while it is sealed
	Blocks      uint64    // distinct blocks
	PayloadSize uint64    // bytes of the distinct blocks: what selling all of them sells
	Roots       []cid.Cid // as the CAR names them
	Sealed      bool      // Unseal must come before reading
}

// Problem is something about a path that an operator should know.
type Problem struct {
	Path   string
	Err    error
	Served bool // the piece is served all the same
}

// Store serves the blocks of pieces. All methods may be called concurrently.
type Store struct {
	cfg   Config
	log   *slog.Logger
	lock  *os.File
	built atomic.Uint64 // indexes made, rather than reused, by this store

	// pieces is sorted by path and never changes after Open.
	pieces []*piece
	byID   map[cid.Cid]*piece // by ID and by CommP

	unsealing flights
	closing   sync.Once
	closed    atomic.Bool    // stops what reads filters
	filters   sync.WaitGroup // done when they are in memory

	mu       sync.Mutex
	problems []Problem // guarded by mu
}

// piece is one piece as it is served.
type piece struct {
	info  Info // Sealed is not kept here
	idx   *index
	index *os.File
	path  string // of the index
	roots map[key]bool
	// file is the bytes at hand: the CAR, or an unsealed copy. Nil while sealed.
	file    atomic.Pointer[carFile]
	sealed  bool // comes from a sealed file
	damaged atomic.Bool
}

// carFile is an open CAR.
type carFile struct {
	*os.File
	start int64 // of the payload
}

// Open finds the pieces under cfg.Paths and opens their indexes, making those
// that are missing, which reads the whole piece. What cannot be served is named
// by Problems and does not stop the rest. The error is that IndexDir cannot be
// used, or that of ctx.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.IndexDir == "" {
		return nil, errors.New("piece store: IndexDir is empty; name a directory for indexes")
	}
	dir, err := filepath.Abs(cfg.IndexDir)
	if err != nil {
		return nil, fmt.Errorf("piece store: %w", err)
	}
	cfg.IndexDir = dir
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Store{cfg: cfg, log: cfg.Logger, byID: make(map[cid.Cid]*piece)}
	s.unsealing.init(cfg)
	if err := os.MkdirAll(s.unsealedDir(), 0o755); err != nil {
		return nil, fmt.Errorf("piece store: %w", err)
	}
	if s.lock, err = shareDir(dir); err != nil {
		return nil, fmt.Errorf("piece store: lock %s: %w", dir, err)
	}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if len(s.pieces) > 1 { // one alone has no use for its own
		s.filters.Go(s.readFilters)
	}
	return s, nil
}

func (s *Store) unsealedDir() string { return filepath.Join(s.cfg.IndexDir, "unsealed") }

// load opens every piece there is.
func (s *Store) load(ctx context.Context) error {
	for _, c := range s.discover() {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := s.open(ctx, c)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.problem(c.path, err, false)
			continue
		}
		s.adopt(p)
	}
	return nil
}

// adopt takes a piece in, unless it is there already. Pieces at hand come before
// sealed ones, so that a sealed copy of a piece at hand is not offered.
func (s *Store) adopt(p *piece) {
	if twin, ok := s.byID[p.info.ID]; ok {
		if !p.sealed {
			s.problem(p.info.Path, fmt.Errorf("is the same piece as %s; one of them can go", twin.info.Path), false)
		}
		p.close()
		return
	}
	s.byID[p.info.ID] = p
	if p.info.PieceCID.Defined() {
		s.byID[p.info.PieceCID] = p
	}
	s.pieces = append(s.pieces, p)
	for _, root := range p.info.Roots {
		if ok, err := p.has(root); err == nil && !ok {
			s.problem(p.info.Path, fmt.Errorf("root %s is not in the file", root), true)
		}
	}
}

// problem notes something for Problems.
func (s *Store) problem(path string, err error, served bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, Problem{Path: path, Err: err, Served: served})
}

// Problems returns what was wrong when the store was opened and what went wrong since.
func (s *Store) Problems() []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Problem(nil), s.problems...)
}

// Pieces returns every piece, those at hand first, each sorted by path.
func (s *Store) Pieces() []Info {
	out := make([]Info, 0, len(s.pieces))
	for _, p := range s.pieces {
		out = append(out, p.state())
	}
	return out
}

// Roots returns the roots of all pieces that are really in them, each once.
func (s *Store) Roots() []cid.Cid {
	var out []cid.Cid
	seen := make(map[cid.Cid]bool)
	for _, p := range s.pieces {
		for _, root := range p.info.Roots {
			if ok, err := p.has(root); err != nil || !ok || seen[root] {
				continue
			}
			seen[root] = true
			out = append(out, root)
		}
	}
	return out
}

// IndexPath returns where the index of a piece lies, to take it along with a
// sealed file.
func (s *Store) IndexPath(id cid.Cid) (string, bool) {
	p, ok := s.byID[id]
	if !ok {
		return "", false
	}
	return p.path, true
}

// Close stops running unseals and closes all files; from then on nothing can be
// read. Closing again does nothing.
func (s *Store) Close() error {
	var errs []error
	s.closing.Do(func() {
		s.closed.Store(true)
		s.filters.Wait()
		s.unsealing.close()
		for _, p := range s.pieces {
			errs = append(errs, p.close())
		}
		errs = append(errs, s.lock.Close())
	})
	return errors.Join(errs...)
}

// state returns the piece's Info as it is now.
func (p *piece) state() Info {
	info := p.info
	info.Sealed = p.file.Load() == nil
	return info
}

// has reports whether the piece holds the block of c.
func (p *piece) has(c cid.Cid) (bool, error) {
	if c.Prefix().MhType == multihash.IDENTITY {
		return true, nil
	}
	_, ok, err := p.idx.find(keyOf(c))
	return ok, err
}

func (p *piece) close() error {
	err := p.index.Close()
	if f := p.file.Load(); f != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}
