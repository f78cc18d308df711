package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/ipld/go-ipld-prime"

	"github.com/tollgraph/tollgraph/piece"
	"github.com/tollgraph/tollgraph/selectors"
)

// output is where and how what was bought is written.
type output struct {
	path      string // "-" is standard output
	car       bool
	flat      bool // what is no file is an error, as it is on standard output
	overwrite bool
	anyLinks  bool // symlinks are made wherever they lead
}

// outputFor decides on the output of s. What is not made of whole files can
// only be kept as a CAR. Without a path it is named after what it is.
func outputFor(s selection, to string, car, overwrite bool) output {
	car = car || s.raw || !s.whole
	if to == "" {
		if to = path.Base(s.path); s.path == "" {
			to = s.root.String()
		}
		if to == ".." || to == "." {
			to = s.root.String()
		}
		if car {
			to += ".car"
		}
	}
	return output{path: to, car: car, overwrite: overwrite}
}

// check returns an error if nothing can be made at the path: piece.ErrOutputExists
// if there is something that may not be replaced.
func (o output) check() error {
	if o.path == "-" {
		return nil
	}
	if err := checkFolder(o.path); err != nil {
		return fmt.Errorf("%w; nothing was fetched or paid", err)
	}
	if o.overwrite {
		return nil
	}
	_, err := os.Lstat(o.path)
	if err == nil {
		return fmt.Errorf("%s: %w: choose another with -o, or allow --overwrite; nothing was fetched or paid", o.path, piece.ErrOutputExists)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// checkFolder returns an error if there is no folder in which to make path.
func checkFolder(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no folder %s: make it, or choose another output with -o", path, dir)
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s: %s is no folder: choose another output with -o", path, dir)
	}
	return err
}

// write writes s out of the CAR of blocks at from, every block of which is
// hashed as it is read, and returns what the selection comes to.
func (o output) write(ctx context.Context, from string, s selection, stdout io.Writer) (count selectors.Count, err error) {
	held, err := piece.OpenPartial(from, s.root)
	if err != nil {
		return count, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	ls := held.LinkSystem()
	selectors.AddReifiers(&ls)
	if count, err = selectors.Measure(ctx, ls, s.root, s.selector, 0); err != nil {
		return count, err
	}
	ls.TrustedStorage = false
	return count, o.export(ctx, ls, s, stdout)
}

// export writes s out of ls.
func (o output) export(ctx context.Context, ls ipld.LinkSystem, s selection, stdout io.Writer) error {
	if o.path == "-" {
		return o.stream(ctx, ls, s, stdout)
	}
	if !o.car && !o.flat && s.span == nil {
		_, err := piece.Extract(ctx, ls, s.root, s.path, o.path, piece.ExportOptions{Overwrite: o.overwrite, AnySymlinks: o.anyLinks})
		return incomplete(err)
	}
	return publish(o.path, o.overwrite, func(w io.Writer) error { return o.stream(ctx, ls, s, w) })
}

// stream writes s as one sequence of bytes.
func (o output) stream(ctx context.Context, ls ipld.LinkSystem, s selection, w io.Writer) error {
	if o.car {
		_, _, err := piece.WriteCAR(ctx, ls, s.root, s.selector, w)
		return err
	}
	from, to := int64(0), int64(-1)
	if s.span != nil {
		stat, err := piece.StatPath(ctx, ls, s.root, s.path)
		if err != nil {
			return err
		}
		if stat.Kind != piece.File {
			return fmt.Errorf("%s: a range of bytes needs a file, and this is a %s: use --car", s.target, stat.Kind)
		}
		from, to = s.span.in(int64(stat.Size))
	}
	return incomplete(piece.Cat(ctx, ls, s.root, s.path, w, from, to))
}

// incomplete explains an output that misses blocks although all that was
// selected is here.
func incomplete(err error) error {
	if errors.Is(err, piece.ErrIncomplete) {
		return fmt.Errorf("%w: the selection is not made of whole files; --car writes what there is, and is not paid again", err)
	}
	return err
}

// publish makes the file at path of what fill writes: whole and on disk, or not
// at all.
func publish(path string, overwrite bool, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if all went well
	if err := errors.Join(fill(f), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if overwrite {
		return os.Rename(f.Name(), path)
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fmt.Errorf("%s: %w", path, piece.ErrOutputExists)
}
