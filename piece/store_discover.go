package piece

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	carSuffix    = ".car"
	sealedSuffix = ".sealed"
	indexSuffix  = ".idx"
	// tempMark is in the names of files that are being written. Whoever has
	// IndexDir alone removes them.
	tempMark = ".tmp-"
)

// candidate is a file that may be a piece.
type candidate struct {
	path   string // absolute
	sealed bool
}

// carPath returns where the CAR is, or was before it was sealed.
func (c candidate) carPath() string {
	if c.sealed {
		return strings.TrimSuffix(c.path, sealedSuffix)
	}
	return c.path
}

// discover returns the files under the configured paths, those at hand first,
// each sorted by path and no file twice.
func (s *Store) discover() []candidate {
	seen := make(map[string]bool)
	var out []candidate
	take := func(path string) {
		if !seen[path] {
			seen[path] = true
			out = append(out, candidate{path: path, sealed: strings.HasSuffix(path, sealedSuffix)})
		}
	}
	for _, path := range s.cfg.Paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			s.problem(path, err, false)
			continue
		}
		info, err := os.Stat(abs)
		switch {
		case err != nil:
			s.problem(path, err, false)
		case info.IsDir():
			s.walk(abs, take)
		default:
			take(abs)
		}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		if a.sealed != b.sealed {
			if a.sealed {
				return 1
			}
			return -1
		}
		return strings.Compare(a.path, b.path)
	})
	return out
}

// walk calls take for every file under dir that has the name of a piece. It does
// not enter IndexDir, whose unsealed copies are no pieces of their own.
func (s *Store) walk(dir string, take func(string)) {
	// Errors are reported and passed over, so that the walk itself has none.
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			s.problem(path, err, false)
			return nil
		}
		if entry.IsDir() {
			if path == s.cfg.IndexDir {
				return fs.SkipDir
			}
			return nil
		}
		if name := entry.Name(); strings.HasSuffix(name, carSuffix) || strings.HasSuffix(name, carSuffix+sealedSuffix) {
			take(path)
		}
		return nil
	})
}

// indexPath returns where the index of a CAR is kept: under its own name, for
// people, and a hash of its path, for there may be others of that name.
func (s *Store) indexPath(car string) string {
	sum := sha256.Sum256([]byte(car))
	return filepath.Join(s.cfg.IndexDir, filepath.Base(car)+"-"+hex.EncodeToString(sum[:8])+indexSuffix)
}

// clearTemps removes what a crash left half-written. It must be called only by
// who has dir alone.
func clearTemps(dir string) error {
	var errs []error
	for _, pattern := range []string{"*" + tempMark + "*", filepath.Join("unsealed", "*"+tempMark+"*")} {
		names, err := filepath.Glob(filepath.Join(globQuote(dir), pattern))
		if err != nil {
			return fmt.Errorf("find half-written files: %w", err)
		}
		for _, name := range names {
			errs = append(errs, os.RemoveAll(name))
		}
	}
	return errors.Join(errs...)
}

// globQuote makes a path that matches itself only.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
