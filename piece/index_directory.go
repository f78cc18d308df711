package piece

import "encoding/binary"

const (
	directoryLine = 64                // bytes; one line of memory says all of a bucket
	lineBuckets   = directoryLine - 8 // that a line tells of
)

// directory says where each bucket is and how many records it has: lines of eight
// bytes, where the first bucket of the line begins, counted from the first of all, and
// a byte for each bucket, its records. That is a byte for seven records.
type directory []byte

// directorySize returns the bytes of the directory of so many buckets.
func directorySize(buckets uint64) uint64 {
	return (buckets + lineBuckets - 1) / lineBuckets * directoryLine
}

// bucket returns where bucket i begins and how many records it has. The directory
// may come from anywhere: what it says is not checked.
func (d directory) bucket(i uint64) (at uint64, n int) {
	line := d[i/lineBuckets*directoryLine:][:directoryLine]
	before := i % lineBuckets
	var records uint64
	for _, n := range line[8 : 8+before] {
		records += uint64(n)
	}
	return binary.BigEndian.Uint64(line) + records*recordSize + before*sealSize, int(line[8+before])
}

// append tells of the next bucket, the one of number i, that begins there.
func (d directory) append(i, at uint64, n int) directory {
	if i%lineBuckets == 0 {
		d = append(d, make([]byte, directoryLine)...)
		binary.BigEndian.PutUint64(d[len(d)-directoryLine:], at)
	}
	d[i/lineBuckets*directoryLine+8+i%lineBuckets] = byte(n)
	return d
}
