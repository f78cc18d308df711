package piece

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// ErrBadBlock says that the bytes of a block are not those that its CID names.
var ErrBadBlock = errors.New("block does not match its CID; fetch or make the file again")

// section is one block as it lies in a CAR.
type section struct {
	cid    cid.Cid
	at     int64 // of its length, in the file
	off    int64 // of the CID, from the start of the payload
	cidLen int   // bytes of the CID as written
	size   int   // bytes of the block, which follows the CID
}

// sectionReader reads the sections of one CARv1 payload in order. It reads
// ahead, and never takes memory for a length that the payload cannot hold.
type sectionReader struct {
	r     *bufio.Reader
	start int64 // of the payload, in the file
	pos   int64 // from the start of the payload
	left  int64 // bytes of the payload that are not read yet
}

// sectionsOf returns a reader of the sections in r that h describes.
func sectionsOf(r io.ReaderAt, h carHeader) *sectionReader {
	body := io.NewSectionReader(r, h.start+h.body, h.size-h.body)
	ahead := int(min(body.Size(), 1<<20))
	return &sectionReader{r: bufio.NewReaderSize(body, ahead), start: h.start, pos: h.body, left: h.size - h.body}
}

// next appends the bytes of the next section to buf, its length prefix
// included, and returns buf and where the section lies. The error is io.EOF at
// the end of the payload, or where only zero padding remains, and else a
// *SectionError.
func (s *sectionReader) next(buf []byte) ([]byte, section, error) {
	if s.left == 0 {
		return buf, section{}, io.EOF
	}
	at := s.start + s.pos
	buf, sec, err := s.read(buf)
	if err != nil && err != io.EOF {
		return buf, section{}, &SectionError{Offset: at, Err: err}
	}
	sec.at = at
	return buf, sec, err
}

func (s *sectionReader) read(buf []byte) ([]byte, section, error) {
	length, err := varint.ReadUvarint(s.r)
	if err != nil {
		return buf, section{}, cutShort(err)
	}
	if length == 0 {
		return buf, section{}, s.padding()
	}
	width := int64(varint.UvarintSize(length))
	s.pos, s.left = s.pos+width, s.left-width
	switch {
	case length > MaxBlockSize+maxCIDSize:
		return buf, section{}, fmt.Errorf("length is %d bytes, at most %d are allowed", length, MaxBlockSize+maxCIDSize)
	case s.left < int64(length):
		return buf, section{}, ErrTruncated
	}
	buf = binary.AppendUvarint(buf, length)
	head := len(buf)
	buf = append(buf, make([]byte, length)...)
	if _, err := io.ReadFull(s.r, buf[head:]); err != nil {
		return buf, section{}, cutShort(err)
	}
	sec, err := parseSection(buf[head:], s.pos)
	s.pos, s.left = s.pos+int64(length), s.left-int64(length)
	return buf, sec, err
}

// parseSection splits the body of a section, which begins at byte off of the
// payload, into CID and block.
func parseSection(body []byte, off int64) (section, error) {
	n, c, err := cid.CidFromBytes(body)
	if err != nil {
		return section{}, fmt.Errorf("CID: %w", err)
	}
	if size := len(body) - n; n > maxCIDSize || size > MaxBlockSize {
		return section{}, fmt.Errorf("CID of %d and block of %d bytes, at most %d and %d are allowed", n, size, maxCIDSize, MaxBlockSize)
	}
	return section{cid: c, off: off, cidLen: n, size: len(body) - n}, nil
}

// padding reads to the end of the payload. It returns io.EOF if there is
// nothing but zeros, which is how a piece is padded to a power of two.
func (s *sectionReader) padding() error {
	chunk := make([]byte, 64<<10)
	for {
		n, err := s.r.Read(chunk)
		for _, b := range chunk[:n] {
			if b != 0 {
				return errors.New("length is zero, and what follows is not padding")
			}
		}
		if err != nil {
			return err
		}
	}
}

// minDigest is the shortest digest, in bytes, that names a block: below it, and
// at zero for certain, other data with the same CID can be made.
const minDigest = 20

// checkBlock returns an error unless data is what c names: ErrBadBlock, or that
// the hash function is not known or the digest too short to mean anything.
func checkBlock(c cid.Cid, data []byte) error {
	want, err := multihash.Decode(c.Hash())
	if err != nil {
		return err
	}
	switch {
	case want.Code == multihash.SHA2_256 && want.Length == sha256.Size:
		if sum := sha256.Sum256(data); bytes.Equal(sum[:], want.Digest) {
			return nil
		}
	case want.Code == multihash.IDENTITY:
		if bytes.Equal(data, want.Digest) {
			return nil
		}
	case want.Length < minDigest:
		return fmt.Errorf("digest of %d bytes, at least %d are needed", want.Length, minDigest)
	default:
		sum, err := multihash.Sum(data, want.Code, want.Length)
		if err != nil {
			return fmt.Errorf("block cannot be checked: %w", err)
		}
		if bytes.Equal(sum, c.Hash()) {
			return nil
		}
	}
	return ErrBadBlock
}
