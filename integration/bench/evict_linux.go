package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// evict drops a file from the system's memory.
func evict(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	err = f.Sync() // only what is on disk can be dropped
	return errors.Join(err, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
}
