package piece

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// RemovePartial removes the file of a Partial and its mark, durably, and returns
// the size of the file in bytes. The error is ErrLocked if it is open, and wraps
// fs.ErrNotExist if there is none. What others read of it meanwhile they still have.
func RemovePartial(path string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	if err := lockFile(f); err != nil {
		return 0, errors.Join(fmt.Errorf("remove %s: %w", path, err), f.Close())
	}
	defer func() { err = errors.Join(err, f.Close()) }() // the lock is held until it is gone
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	// The file first: a mark does not vouch for another file.
	if err := os.Remove(path); err != nil {
		return 0, err
	}
	if err := (&mark{path: path + ".mark"}).remove(); err != nil {
		return info.Size(), err
	}
	return info.Size(), syncDir(filepath.Dir(path))
}
