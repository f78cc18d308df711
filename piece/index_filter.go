package piece

import (
	"encoding/binary"
	"math/bits"
)

const (
	filterLine = 64 // bytes; one line holds all bits of a key, so that asking costs one cache miss
	filterBits = 10 // per key
	filterAsks = 6  // bits set per key
)

// filter says of a key that it is certainly not there, or that it may be, which
// is wrong for about one key in fifty. It is a Bloom filter cut into lines.
// The zero filter holds nothing.
type filter []byte

// newFilter returns a filter for n keys.
func newFilter(n uint64) filter {
	lines := (n*filterBits + filterLine*8 - 1) / (filterLine * 8)
	return make(filter, lines*filterLine)
}

// line returns the line of k and the nine-bit numbers of its bits, six of them,
// lowest first.
func (f filter) line(k key) ([]byte, uint64) {
	at, _ := bits.Mul64(binary.BigEndian.Uint64(k[8:]), uint64(len(f)/filterLine))
	return f[at*filterLine:][:filterLine], binary.BigEndian.Uint64(k[16:])
}

func (f filter) add(k key) {
	line, which := f.line(k)
	for range filterAsks {
		line[which>>3&63] |= 1 << (which & 7)
		which >>= 9
	}
}

func (f filter) has(k key) bool {
	if len(f) == 0 {
		return false
	}
	line, which := f.line(k)
	for range filterAsks {
		if line[which>>3&63]&(1<<(which&7)) == 0 {
			return false
		}
		which >>= 9
	}
	return true
}
