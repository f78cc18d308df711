package piece

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// An index file is a header page, the buckets, the roots, the directory and the
// filter, in this order; numbers are big endian.
//
//	header     4096 bytes: magic, the numbers of indexHeader, CRC-32C of the page
//	buckets    up to 93 records of 44 bytes each, on average 8, and their CRC-32C
//	roots      CIDs, one after the other
//	directory  says where each bucket is, see directory
//	filter     see filter
//
// A record is the key (32), the place of the CID in the payload (7), the length
// of the CID (1) and the size of the block (4). No key comes twice. In which
// bucket a key is follows from it and a seed that is drawn for each index, so
// that nobody can make keys that fill one; a bucket that is too full by chance is
// not to be seen by anybody.
const (
	indexMagic    = "tollidx\n"
	indexVersion  = 2
	pageSize      = 4096
	recordSize    = 44
	sealSize      = 4 // the CRC-32C behind a bucket, or at the end of a page
	bucketRecords = 8 // on average: few lines of memory to copy, and a small directory
	fullestBucket = (pageSize - sealSize) / recordSize
	maxOffset     = 1<<56 - 1
	maxRecordCID  = 1<<8 - 1 // longest CID of a record: its length has one byte
)

// errIndexDamaged says that an index file cannot be used. It is made again.
var errIndexDamaged = errors.New("index is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// key is what a block is found by: the digest of a full SHA-256 multihash, and
// for every other multihash the SHA-512/256 of all its bytes. Nobody can make
// two multihashes meet, which a shorter key or SHA-256 again would allow.
type key [sha256.Size]byte

// keyOf returns the key of the multihash of c.
func keyOf(c cid.Cid) (k key) {
	mh := hashOf(c)
	if len(mh) == 2+len(k) && mh[0] == multihash.SHA2_256 && mh[1] == sha256.Size {
		copy(k[:], mh[2:])
		return k
	}
	return sha512.Sum512_256([]byte(mh))
}

// hashOf returns the multihash of c as c.Hash does, but not a copy of it: memory
// that every lookup asks for anew made its slowest hundredth.
func hashOf(c cid.Cid) string {
	mh := c.KeyString()
	if mh == "" || c.Version() == 0 {
		return mh
	}
	for range 2 { // version and codec, each a varint: the last byte of one is below 0x80
		for mh[0] >= 0x80 {
			mh = mh[1:]
		}
		mh = mh[1:]
	}
	return mh
}

// record says where one block lies.
type record struct {
	key    key
	off    int64 // of the CID, from the start of the payload
	cidLen int
	size   int
}

func (r record) append(b []byte) []byte {
	b = append(b, r.key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.off)<<8|uint64(r.cidLen))
	return binary.BigEndian.AppendUint32(b, uint32(r.size))
}

func parseRecord(b []byte) record {
	place := binary.BigEndian.Uint64(b[len(key{}):])
	return record{
		key:    key(b),
		off:    int64(place >> 8),
		cidLen: int(place & 0xff),
		size:   int(binary.BigEndian.Uint32(b[len(key{})+8:])),
	}
}

// indexMeta is what an index says about its piece as a whole.
type indexMeta struct {
	fileSize  uint64 // of the CAR when it was indexed
	fileTime  int64  // its modification time, Unix nanoseconds
	payload   uint64 // bytes of the CARv1 payload, padding included
	blocks    uint64 // distinct blocks, which is the number of records
	blockSize uint64 // their bytes
	sections  uint64
	verified  bool // every block was compared with its CID
	sum       [sha256.Size]byte
	commP     [sha256.Size]byte // zero if not computed
	roots     []cid.Cid
}

// seed is what decides, with its key, in which bucket a record is.
type seed [16]byte

// place returns a number that says nothing to who does not know s, and everything
// about the bucket of k.
func (s seed) place(k key) uint64 {
	sum := sha256.Sum256(append(append(make([]byte, 0, len(s)+len(k)), s[:]...), k[:]...))
	return binary.BigEndian.Uint64(sum[:])
}

// bucketOf returns the bucket of a place. It rises with the place.
func bucketOf(place, buckets uint64) uint64 {
	b, _ := bits.Mul64(place, buckets)
	return b
}

// index finds blocks in an index file. It may be used concurrently.
type index struct {
	indexHeader
	r   io.ReaderAt
	dir directory

	filter atomic.Pointer[filter] // nil until readFilter
}

// lacks reports that k is certainly not there. It says so of nearly every key
// that is not, without a read, once the filter is in memory; before that, of none.
func (x *index) lacks(k key) bool {
	f := x.filter.Load()
	return f != nil && !f.has(k)
}

// bucketBytes is held by lookups only while they read.
var bucketBytes = sync.Pool{New: func() any { return new([pageSize]byte) }}

// find returns the record of k, with one read of one bucket. The error is
// errIndexDamaged or that of the read.
func (x *index) find(k key) (record, bool, error) {
	if x.buckets == 0 {
		return record{}, false, nil
	}
	buf := bucketBytes.Get().(*[pageSize]byte)
	defer bucketBytes.Put(buf)
	records, err := x.bucket(bucketOf(x.seed.place(k), x.buckets), buf)
	if err != nil {
		return record{}, false, err
	}
	for ; len(records) > 0; records = records[recordSize:] {
		if key(records) != k {
			continue
		}
		r := parseRecord(records)
		if r.size > MaxBlockSize || r.off > maxOffset-MaxBlockSize-maxRecordCID {
			return record{}, false, errIndexDamaged
		}
		return r, true, nil
	}
	return record{}, false, nil
}

// bucket reads the records of bucket i into buf and checks them.
func (x *index) bucket(i uint64, buf *[pageSize]byte) ([]byte, error) {
	at, n := x.dir.bucket(i)
	if n == 0 {
		return nil, nil
	}
	if n > fullestBucket || at > x.bodySize() {
		return nil, errIndexDamaged
	}
	b := buf[:n*recordSize+sealSize]
	if n, err := x.r.ReadAt(b, pageSize+int64(at)); n < len(b) {
		if err == io.EOF {
			return nil, errIndexDamaged
		}
		return nil, fmt.Errorf("read index: %w", err)
	}
	if !sealed(b) {
		return nil, errIndexDamaged
	}
	return b[:n*recordSize], nil
}

// each calls visit for every record.
func (x *index) each(visit func(record) error) error {
	var buf [pageSize]byte
	for i := range x.buckets {
		records, err := x.bucket(i, &buf)
		if err != nil {
			return err
		}
		for ; len(records) > 0; records = records[recordSize:] {
			if err := visit(parseRecord(records)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFilter brings the filter into memory. The error is errIndexDamaged or that of
// the read; the index can be used all the same.
func (x *index) readFilter() error {
	f := make(filter, int64(x.filterLines)*filterLine)
	if n, err := x.r.ReadAt(f, x.filterAt()); n < len(f) {
		return fmt.Errorf("%w: %w", errIndexDamaged, cutShort(err))
	}
	if crc32.Checksum(f, castagnoli) != x.filterSum {
		return errIndexDamaged
	}
	x.filter.Store(&f)
	return nil
}

// seal writes the checksum of b over its last bytes, sealed checks it.
func seal(b []byte) {
	body := b[:len(b)-sealSize]
	binary.BigEndian.PutUint32(b[len(body):], crc32.Checksum(body, castagnoli))
}

func sealed(b []byte) bool {
	body := b[:len(b)-sealSize]
	return binary.BigEndian.Uint32(b[len(body):]) == crc32.Checksum(body, castagnoli)
}

// size is the memory that the index holds, in bytes.
func (x *index) size() int {
	size := len(x.dir)
	if f := x.filter.Load(); f != nil {
		size += len(*f)
	}
	return size
}
