package transport

import (
	"runtime"
	"sync"
)

// Received messages are large and short-lived: a fresh buffer for each is memory
// that the runtime clears, gives back to the system and asks for again. What holds
// a block, in graphsync, in a store or behind a selector, tells nobody when it lets
// go of it, so only the collector knows when a buffer is free. It is asked: a buffer
// has a finalizer, which runs when no slice of it is left, and goes from there to a
// pool, which the collector empties when it is not used.

// The two sizes of buffers, in bytes: for graphsync's messages, which it cuts at
// 512 KiB of blocks, and for one block of 1 MiB, each with what is around the blocks.
const (
	smallBuffer = 512<<10 + 64<<10
	largeBuffer = readStep
)

var (
	smallBuffers sync.Pool // of *[smallBuffer]byte
	largeBuffers sync.Pool // of *[largeBuffer]byte
)

// receiveBuffer returns n bytes of any content, at most twice as many with its
// capacity. Whoever holds a slice of it holds all of it, for as long as it likes.
func receiveBuffer(n int) []byte {
	switch {
	case n > smallBuffer/2 && n <= smallBuffer:
		b, ok := smallBuffers.Get().(*[smallBuffer]byte)
		if !ok {
			b = new([smallBuffer]byte)
		}
		runtime.SetFinalizer(b, func(b *[smallBuffer]byte) { smallBuffers.Put(b) })
		return b[:n]
	case n > largeBuffer/2 && n <= largeBuffer:
		b, ok := largeBuffers.Get().(*[largeBuffer]byte)
		if !ok {
			b = new([largeBuffer]byte)
		}
		runtime.SetFinalizer(b, func(b *[largeBuffer]byte) { largeBuffers.Put(b) })
		return b[:n]
	}
	return make([]byte, n)
}
