//go:build unix

package piece

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shareDir joins those who use dir until the file is closed. Who comes first
// removes what a crash left behind.
func shareDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	alone := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
	if alone {
		err = clearTemps(dir)
	}
	// From alone to shared there is a moment without a lock, which does no harm:
	// nothing was written yet.
	if err := errors.Join(err, unix.Flock(int(f.Fd()), unix.LOCK_SH)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
