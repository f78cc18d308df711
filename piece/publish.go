package piece

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrOutputExists says that there is something at the path where output is
// wanted. Choose another path, or allow it to be overwritten.
var ErrOutputExists = errors.New("output exists")

// checkOutput returns ErrOutputExists if path is taken and must not be replaced.
// It serves to fail early: publish decides.
func checkOutput(path string, overwrite bool) error {
	if overwrite {
		return nil
	}
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, ErrOutputExists)
}

// publish gives a finished file the name dst, at once and durably. Without
// overwrite it returns ErrOutputExists rather than replace anything, also what
// came into being a moment ago.
func publish(temp, dst string, overwrite bool) error {
	err := rename(temp, dst, overwrite)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", dst, ErrOutputExists)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dst))
}

// renameChecked is rename without overwrite where the system cannot do it in one
// step: what appears at dst between the two is replaced.
func renameChecked(from, dst string) error {
	if _, err := os.Lstat(dst); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: dst, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(from, dst)
}
