package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache makes the system forget what it holds in memory of a file that is on
// disk, and reports whether it was told so.
func dropCache(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // it was only read
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) == nil
}
