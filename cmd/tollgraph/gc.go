package main

import "os"

// spareHeap is how much the program may allocate between two garbage collections,
// beyond Go's default of as much as is in use. Blocks on their way live for milliseconds
// beside some 20 MiB that stay, so that by the default the collector runs thirty times a
// second; without that 1 GiB between two processes takes three quarters of the time, for
// some 60 MiB resident on each side.
const spareHeap = 64 << 20

// spare makes the collector wait for spareHeap, by memory that is allocated and never
// touched, so that it is never resident: what is in use counts the same, however much that is,
// which a higher GOGC would multiply. The caller keeps it. It is nil where the user has
// bounded the memory of the process, which it would count against.
func spare() []byte {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make([]byte, spareHeap)
}
