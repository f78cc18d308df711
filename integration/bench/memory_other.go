//go:build !linux

package main

// resident is known on Linux only.
func resident() (now, peak uint64) { return 0, 0 }
