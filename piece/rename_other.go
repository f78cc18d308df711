//go:build !linux

package piece

import "os"

// rename moves a file or directory. Without overwrite it fails with
// fs.ErrExist where dst exists.
func rename(from, dst string, overwrite bool) error {
	if overwrite {
		return os.Rename(from, dst)
	}
	return renameChecked(from, dst)
}
