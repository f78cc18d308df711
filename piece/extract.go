package piece

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
)

// maxDirectoryDepth is how deep directories may be nested: each level keeps a
// file descriptor and a block while it is extracted.
const maxDirectoryDepth = 512

// ErrUnsafeLink says that a symlink in a DAG points out of what is extracted.
var ErrUnsafeLink = errors.New("symlink leads out of the output")

// ExportOptions say how Extract writes.
type ExportOptions struct {
	// Overwrite replaces a directory by a directory, and a file or symlink by a
	// file or symlink; a directory may also replace a symlink. Nothing is merged.
	Overwrite bool
	// AnySymlinks makes symlinks also where they lead out of the output.
	AnySymlinks bool
	// MaxBytes bounds the bytes of all files, since a small DAG can name the same
	// block any number of times. Zero means no bound.
	MaxBytes uint64
}

// ExportResult says what Extract wrote.
type ExportResult struct {
	Kind     Kind
	Files    uint64
	Dirs     uint64 // the top one included
	Symlinks uint64
	Bytes    uint64 // of files
}

// Extract writes the file, directory or symlink at path below root to dst. path
// may be empty. Files get mode 0644, directories 0755; nothing of the DAG's
// modes and times is used.
//
// Everything is written beside dst (as .NAME.*.tmp) and gets its name when it is
// whole and on disk; on an error nothing stays. Memory is bounded by the
// nesting, not by sizes. Names that are no file names fail with ErrBadName,
// and symlinks out of the output with ErrUnsafeLink: a hostile DAG writes nowhere
// else. Further errors are ErrOutputExists, ErrNotUnixFS, ErrNoEntry and
// ErrIncomplete.
func Extract(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, path, dst string, opt ExportOptions) (ExportResult, error) {
	dst = filepath.Clean(dst)
	r := &dagReader{ls: ls}
	n, err := r.resolve(ctx, root, path)
	if err != nil {
		return ExportResult{}, fmt.Errorf("extract: %w", err)
	}
	if err := checkReplace(dst, n.kind, opt.Overwrite); err != nil {
		return ExportResult{}, err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dst), "."+filepath.Base(dst)+".*.tmp")
	if err != nil {
		return ExportResult{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // by now empty, if all went well
	x := extraction{r: r, opt: opt}
	x.result.Kind = n.kind
	if err := x.into(ctx, temp, n); err != nil {
		return ExportResult{}, fmt.Errorf("extract %s: %w", dst, err)
	}
	if err := replace(temp, dst, n.kind, opt.Overwrite); err != nil {
		return ExportResult{}, err
	}
	return x.result, nil
}

// outName is the name of the output inside of the temporary directory.
const outName = "out"

// checkReplace returns an error if what is at dst may not give way to something
// of this kind.
func checkReplace(dst string, kind Kind, overwrite bool) error {
	info, err := os.Lstat(dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !overwrite:
		return fmt.Errorf("%s: %w", dst, ErrOutputExists)
	case info.IsDir() != (kind == Directory) && info.Mode().Type() != fs.ModeSymlink:
		// a tree is never lost to a file, nor the reverse
		return fmt.Errorf("%s: is there and not a %s; remove it first: %w", dst, kind, ErrOutputExists)
	}
	return nil
}

// replace gives the output in temp the name dst. What is there is set aside where
// it cannot be replaced in one step, which is so if either is a directory; it
// comes back if the output cannot take its place.
func replace(temp, dst string, kind Kind, overwrite bool) error {
	out, old := filepath.Join(temp, outName), filepath.Join(temp, "old")
	if !overwrite || kind != Directory {
		return publish(out, dst, overwrite)
	}
	err := os.Rename(dst, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	aside := err == nil
	if err := publish(out, dst, false); err != nil {
		if aside {
			err = errors.Join(err, os.Rename(old, dst))
		}
		return err
	}
	return nil
}

// extraction is one run of Extract.
type extraction struct {
	r      *dagReader
	opt    ExportOptions
	result ExportResult
}

// into writes n as outName in the directory temp, and waits until it is on disk.
func (x *extraction) into(ctx context.Context, temp string, n fsNode) error {
	dir, err := os.OpenRoot(temp)
	if err != nil {
		return err
	}
	err = x.write(ctx, dir, outName, n, nil)
	if err == nil && n.kind == Directory {
		err = syncTree(temp)
	}
	return errors.Join(err, dir.Close())
}

// write writes n as name in dir. at is where that is in the output, nil for the
// output itself.
func (x *extraction) write(ctx context.Context, dir *os.Root, name string, n fsNode, at []string) error {
	switch n.kind {
	case Directory:
		return x.directory(ctx, dir, name, n, at)
	case Symlink:
		return x.symlink(dir, name, string(n.fs.data), at)
	default:
		return x.file(ctx, dir, name, n)
	}
}

func (x *extraction) file(ctx context.Context, dir *os.Root, name string, n fsNode) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(&limitedWriter{x: x, f: f}, 128<<10)
	err = x.r.copyFile(ctx, n, w, 0, ^uint64(0))
	if err == nil {
		err = w.Flush()
	}
	if err == nil && x.result.Kind == File { // files of a tree are synced together
		err = f.Sync()
	}
	x.result.Files++
	return errors.Join(err, f.Close())
}

// limitedWriter counts the bytes of all files and stops at the bound.
type limitedWriter struct {
	x *extraction
	f *os.File
}

func (w *limitedWriter) Write(b []byte) (int, error) {
	w.x.result.Bytes += uint64(len(b))
	if limit := w.x.opt.MaxBytes; limit > 0 && w.x.result.Bytes > limit {
		return 0, fmt.Errorf("the files have more than the %d bytes that are allowed", limit)
	}
	return w.f.Write(b)
}

func (x *extraction) directory(ctx context.Context, dir *os.Root, name string, n fsNode, at []string) error {
	if len(at) >= maxDirectoryDepth {
		return fmt.Errorf("directories nested more than %d deep", maxDirectoryDepth)
	}
	if err := dir.Mkdir(name, 0o755); err != nil {
		return err
	}
	x.result.Dirs++
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return err
	}
	err = x.r.entries(ctx, n, func(name string, c cid.Cid) error {
		if err := checkName(name); err != nil {
			return fmt.Errorf("in /%s: %w", path.Join(at...), err)
		}
		here := append(at[:len(at):len(at)], name)
		child, err := x.r.node(ctx, c)
		if err == nil {
			err = x.write(ctx, sub, name, child, here)
		}
		if _, told := errors.AsType[*entryError](err); err != nil && !told {
			err = &entryError{path: path.Join(here...), err: err}
		}
		return err
	})
	return errors.Join(err, sub.Close())
}

// entryError says in which entry of the output something went wrong.
type entryError struct {
	path string
	err  error
}

func (e *entryError) Error() string { return fmt.Sprintf("/%s: %v", e.path, e.err) }
func (e *entryError) Unwrap() error { return e.err }

func (x *extraction) symlink(dir *os.Root, name, target string, at []string) error {
	if !x.opt.AnySymlinks && !staysInside(target, len(at)-1) {
		return fmt.Errorf("to %q: %w", target, ErrUnsafeLink)
	}
	x.result.Symlinks++
	return dir.Symlink(target, name)
}

// staysInside reports whether a symlink, depth directories below the top of the
// output, cannot lead out of it. It may climb at its start only: behind a name,
// which may be a symlink itself, nobody knows where ".." leads.
func staysInside(target string, depth int) bool {
	if target == "" || path.IsAbs(target) || filepath.IsAbs(target) || filepath.VolumeName(target) != "" ||
		strings.Contains(target, "\x00") || filepath.Separator != '/' && strings.ContainsRune(target, filepath.Separator) {
		return false
	}
	climbing := true
	for part := range strings.SplitSeq(target, "/") {
		switch {
		case part == "" || part == ".":
		case part != "..":
			climbing = false
		case !climbing || depth <= 0:
			return false
		default:
			depth--
		}
	}
	return true
}
