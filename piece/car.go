package piece

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-varint"
)

const (
	// MaxBlockSize is the longest block, in bytes, that a piece may hold. It is
	// go-car's limit on a section; a longer one could not be sent in one message.
	MaxBlockSize = 8 << 20

	maxCIDSize    = 2 << 10 // longest CID in a section; only identity CIDs come near it
	maxHeaderSize = 1 << 20 // longest CAR header: room for some 25,000 roots
	carV2Pragma   = 11      // bytes before the fixed CARv2 header
	carV2Header   = 40      // bytes of the fixed CARv2 header
)

// ErrNotCAR says that a file does not begin like a CAR.
var ErrNotCAR = errors.New("not a CAR file")

// ErrTruncated says that a CAR ends in the middle of something.
var ErrTruncated = errors.New("file is cut short; fetch or make it again")

// carHeader is what the first bytes of a CAR say.
type carHeader struct {
	version uint64 // of the file: 1 or 2
	start   int64  // where in the file the CARv1 payload begins
	size    int64  // of the payload, in bytes, zero padding included
	body    int64  // where in the payload the first section begins
	roots   []cid.Cid
}

// readHeader reads the header of the CAR of the given size in r. No number in
// the file is believed before it was held against size.
func readHeader(r io.ReaderAt, size int64) (carHeader, error) {
	version, roots, n, err := readV1Header(r, 0, size)
	if err != nil {
		return carHeader{}, err
	}
	switch version {
	case 1:
		return carHeader{version: 1, size: size, body: n, roots: roots}, nil
	case 2:
		return readV2Header(r, size)
	}
	return carHeader{}, fmt.Errorf("%w: version %d, can read 1 and 2", ErrNotCAR, version)
}

// readV2Header reads the fixed header of a CARv2 and the header of the payload
// in it.
func readV2Header(r io.ReaderAt, size int64) (carHeader, error) {
	var fixed [carV2Header]byte
	if _, err := r.ReadAt(fixed[:], carV2Pragma); err != nil {
		return carHeader{}, cutShort(err)
	}
	start := binary.LittleEndian.Uint64(fixed[16:])
	length := binary.LittleEndian.Uint64(fixed[24:])
	switch {
	case length == 0:
		return carHeader{}, fmt.Errorf("%w: CARv2 without data, it was not finished", ErrTruncated)
	case start < carV2Pragma+carV2Header:
		return carHeader{}, fmt.Errorf("%w: CARv2 data begins at byte %d, inside the header", ErrNotCAR, start)
	case start > uint64(size) || length > uint64(size)-start:
		return carHeader{}, fmt.Errorf("%w: CARv2 data of %d bytes at byte %d, file has %d bytes", ErrTruncated, length, start, size)
	}
	version, roots, n, err := readV1Header(r, int64(start), int64(length))
	if err != nil {
		return carHeader{}, err
	}
	if version != 1 {
		return carHeader{}, fmt.Errorf("%w: version %d inside a CARv2", ErrNotCAR, version)
	}
	return carHeader{version: 2, start: int64(start), size: int64(length), body: n, roots: roots}, nil
}

// readV1Header reads the length-prefixed header at byte at, of which size bytes
// remain, and returns how many bytes it takes.
func readV1Header(r io.ReaderAt, at, size int64) (version uint64, roots []cid.Cid, n int64, err error) {
	var prefix [varint.MaxLenUvarint63]byte
	got, err := r.ReadAt(prefix[:min(int64(len(prefix)), size)], at)
	if err != nil && err != io.EOF {
		return 0, nil, 0, err
	}
	length, width, err := varint.FromUvarint(prefix[:got])
	switch {
	case err == varint.ErrUnderflow:
		return 0, nil, 0, ErrTruncated
	case err != nil:
		return 0, nil, 0, fmt.Errorf("%w: header length: %w", ErrNotCAR, err)
	case length == 0 || length > maxHeaderSize:
		return 0, nil, 0, fmt.Errorf("%w: header of %d bytes, at most %d", ErrNotCAR, length, maxHeaderSize)
	case int64(length) > size-int64(width):
		return 0, nil, 0, fmt.Errorf("header: %w", ErrTruncated)
	}
	raw := make([]byte, length)
	if _, err := r.ReadAt(raw, at+int64(width)); err != nil && err != io.EOF {
		return 0, nil, 0, fmt.Errorf("header: %w", cutShort(err))
	}
	version, roots, err = decodeHeader(raw)
	return version, roots, int64(width) + int64(length), err
}

// decodeHeader decodes the DAG-CBOR map {version, roots}.
func decodeHeader(raw []byte) (version uint64, roots []cid.Cid, err error) {
	nb := basicnode.Prototype.Map.NewBuilder()
	if err := dagcbor.Decode(nb, bytes.NewReader(raw)); err != nil {
		return 0, nil, fmt.Errorf("%w: header: %w", ErrNotCAR, err)
	}
	node := nb.Build()
	v, err := node.LookupByString("version")
	if err != nil {
		return 0, nil, fmt.Errorf("%w: header without a version", ErrNotCAR)
	}
	number, err := v.AsInt()
	if err != nil || number < 0 {
		return 0, nil, fmt.Errorf("%w: header with an odd version", ErrNotCAR)
	}
	list, err := node.LookupByString("roots")
	if err != nil || list.IsNull() { // a CARv2 has none here, and go-car writes no roots as null
		return uint64(number), nil, nil
	}
	if list.Kind() != datamodel.Kind_List {
		return 0, nil, fmt.Errorf("%w: roots are not a list", ErrNotCAR)
	}
	for it := list.ListIterator(); !it.Done(); {
		_, item, err := it.Next()
		if err != nil {
			return 0, nil, fmt.Errorf("%w: roots: %w", ErrNotCAR, err)
		}
		link, err := item.AsLink()
		if err != nil {
			return 0, nil, fmt.Errorf("%w: a root is not a CID", ErrNotCAR)
		}
		roots = append(roots, link.(cidlink.Link).Cid)
	}
	return uint64(number), roots, nil
}

// cutShort turns an end of file where none may be into ErrTruncated.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}
