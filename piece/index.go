package piece

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"sort"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// An index file is a header page, the record pages, and a summary, in this
// order; numbers are big endian.
//
//	header   4096 bytes: magic, the numbers of indexMeta, CRC-32C of the page
//	pages    4096 bytes each: up to 93 records of 44 bytes, CRC-32C of the page
//	summary  roots (CIDs, one after the other), first key of each page, filter
//
// A record is the key (32), the place of the CID in the payload (7), the length
// of the CID (1) and the size of the block (4). Records are sorted by key and
// no key comes twice.
const (
	indexMagic    = "tollidx\n"
	indexVersion  = 1
	pageSize      = 4096
	recordSize    = 44
	recordsInPage = (pageSize - 4) / recordSize
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

// keyOf returns the key of a multihash.
func keyOf(mh multihash.Multihash) key {
	if len(mh) == 2+sha256.Size && mh[0] == multihash.SHA2_256 && mh[1] == sha256.Size {
		return key(mh[2:])
	}
	return sha512.Sum512_256(mh)
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

// index finds blocks in an index file. It may be used concurrently.
type index struct {
	meta   indexMeta
	r      io.ReaderAt
	first  []byte   // the first key of each page
	heads  []uint64 // the first eight bytes of each of them
	filter filter
}

// fillHeads makes heads of first.
func (x *index) fillHeads() {
	x.heads = make([]uint64, len(x.first)/len(key{}))
	for i := range x.heads {
		x.heads[i] = binary.BigEndian.Uint64(x.first[i*len(key{}):])
	}
}

// pageOf returns the page that k is in if it is anywhere, or -1. Keys are hashes,
// so that the number that k begins with says about where that is: it is looked
// for from there outwards, which touches a few lines of memory where halving
// would touch one for every doubling of the index. Keys that were chosen to lie
// badly cost twice as many steps as halving.
func (x *index) pageOf(k key) int {
	n := len(x.heads)
	head := binary.BigEndian.Uint64(k[:])
	above := func(i int) bool { // page i begins behind k
		if x.heads[i] != head {
			return x.heads[i] > head
		}
		return bytes.Compare(x.first[i*len(k):(i+1)*len(k)], k[:]) > 0
	}
	guess, _ := bits.Mul64(head, uint64(n))
	low, high := int(guess), int(guess) // page low-1 does not begin behind k, and page high does
	for step := 1; low > 0 && above(low-1); step *= 2 {
		high, low = low-1, max(low-step, 0)
	}
	for step := 1; high < n && !above(high); step *= 2 {
		low, high = high+1, min(high+step, n)
	}
	return low + sort.Search(high-low, func(i int) bool { return above(low + i) }) - 1
}

// pages is held by lookups only while they read.
var pages = sync.Pool{New: func() any { return new([pageSize]byte) }}

// find returns the record of k. The error is errIndexDamaged or that of the read.
func (x *index) find(k key) (record, bool, error) {
	if !x.filter.has(k) {
		return record{}, false, nil
	}
	page := x.pageOf(k)
	if page < 0 {
		return record{}, false, nil
	}
	buf := pages.Get().(*[pageSize]byte)
	defer pages.Put(buf)
	n, err := x.readPage(page, buf)
	if err != nil {
		return record{}, false, err
	}
	at := sort.Search(n, func(i int) bool {
		return bytes.Compare(buf[i*recordSize:i*recordSize+len(k)], k[:]) >= 0
	})
	if at == n || !bytes.Equal(buf[at*recordSize:at*recordSize+len(k)], k[:]) {
		return record{}, false, nil
	}
	r := parseRecord(buf[at*recordSize:])
	if r.size > MaxBlockSize || r.off > maxOffset-MaxBlockSize-maxRecordCID {
		return record{}, false, errIndexDamaged
	}
	return r, true, nil
}

// readPage reads and checks one page of records and returns how many it holds.
func (x *index) readPage(i int, buf *[pageSize]byte) (int, error) {
	n, err := x.r.ReadAt(buf[:], int64(1+i)*pageSize)
	if n < pageSize {
		if err == io.EOF {
			return 0, errIndexDamaged
		}
		return 0, fmt.Errorf("read index: %w", err)
	}
	if !sealedPage(buf) {
		return 0, errIndexDamaged
	}
	return int(min(recordsInPage, x.meta.blocks-uint64(i)*recordsInPage)), nil
}

// sealPage writes the checksum of a page at its end, sealedPage checks it.
func sealPage(buf *[pageSize]byte) {
	binary.BigEndian.PutUint32(buf[pageSize-4:], crc32.Checksum(buf[:pageSize-4], castagnoli))
}

func sealedPage(buf *[pageSize]byte) bool {
	return binary.BigEndian.Uint32(buf[pageSize-4:]) == crc32.Checksum(buf[:pageSize-4], castagnoli)
}

// size is the memory that the index holds, in bytes.
func (x *index) size() int { return len(x.first) + 8*len(x.heads) + len(x.filter) }
