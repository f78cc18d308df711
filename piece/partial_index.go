package piece

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/multiformats/go-multihash"
)

// blockIndex finds blocks by multihash. It keeps 8 bytes of a seeded hash
// and 8 of an offset for each block, about 37 bytes in all (see
// BenchmarkPartialIndex), and reads the file to be sure. The seed is random, so
// nobody can craft multihashes that meet; those that meet by chance are kept in
// full. It may be used concurrently.
type blockIndex struct {
	seed    maphash.Seed
	frameAt func(offset int64) (frame, error)

	mu    sync.RWMutex
	short map[uint64]int64 // guarded by mu
	full  map[string]int64 // guarded by mu; by multihash, where short is taken by another
}

func newBlockIndex(frameAt func(int64) (frame, error)) *blockIndex {
	return &blockIndex{
		seed:    maphash.MakeSeed(),
		frameAt: frameAt,
		short:   make(map[uint64]int64),
		full:    make(map[string]int64),
	}
}

// find returns the frame of the block with this multihash.
func (x *blockIndex) find(h multihash.Multihash) (frame, bool, error) {
	x.mu.RLock()
	at, ok := x.full[string(h)]
	if !ok {
		at, ok = x.short[shortKey(x.seed, h)]
	}
	x.mu.RUnlock()
	if !ok {
		return frame{}, false, nil
	}
	f, err := x.frameAt(at)
	if err != nil || !bytes.Equal(f.cid.Hash(), h) {
		return frame{}, false, err
	}
	return f, true, nil
}

// add files a block at an offset, instead of any other that it was filed at.
// Only one goroutine may add at a time.
func (x *blockIndex) add(h multihash.Multihash, at int64) error {
	key := shortKey(x.seed, h)
	x.mu.RLock()
	taken, ok := x.short[key]
	x.mu.RUnlock()
	if ok {
		f, err := x.frameAt(taken)
		if err != nil {
			return err
		}
		ok = !bytes.Equal(f.cid.Hash(), h) // taken by another
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if ok {
		x.full[string(h)] = at
	} else {
		x.short[key] = at
	}
	return nil
}

// shortKey is what the index keeps of a multihash.
func shortKey(seed maphash.Seed, h multihash.Multihash) uint64 { return maphash.Bytes(seed, h) }
