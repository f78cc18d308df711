package piece

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree waits until everything in a directory is on disk. It syncs the file
// system that the directory is on, in one go for any number of files.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
