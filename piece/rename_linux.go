package piece

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// rename moves a file or directory. Without overwrite it fails with
// fs.ErrExist where dst exists.
func rename(from, dst string, overwrite bool) error {
	if overwrite {
		return os.Rename(from, dst)
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, dst, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not known to this file system
		return renameChecked(from, dst)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: dst, Err: err}
	}
	return nil
}
