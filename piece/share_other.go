//go:build !unix

package piece

import (
	"os"
	"path/filepath"
)

// shareDir joins those who use dir until the file is closed. Without locks that
// can be shared nobody knows to be alone, so what a crash left behind stays.
func shareDir(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
}
