package transport

import (
	"encoding/binary"
	"fmt"
	"io"
)

// cborReader walks CBOR in memory. It never copies: what it returns are slices
// of buf. Every length is checked against what is left before it is used.
type cborReader struct {
	buf   []byte
	pos   int
	nodes int // IPLD nodes seen by skip, all calls together
}

// head reads one head. Arguments that are not in their shortest form and
// indefinite lengths are refused, as DAG-CBOR demands. Floats and simple
// values (major 7) are for skip alone.
func (r *cborReader) head() (major byte, arg uint64, err error) {
	if r.pos >= len(r.buf) {
		return 0, 0, io.ErrUnexpectedEOF
	}
	c := r.buf[r.pos]
	r.pos++
	major, info := c>>5, c&0x1f
	if info < 24 {
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, fmt.Errorf("%w: head 0x%02x", errMalformed, c)
	}
	n := 1 << (info - 24)
	if len(r.buf)-r.pos < n {
		return 0, 0, io.ErrUnexpectedEOF
	}
	p := r.buf[r.pos : r.pos+n]
	r.pos += n
	least := uint64(24)
	switch n {
	case 1:
		arg = uint64(p[0])
	case 2:
		arg, least = uint64(binary.BigEndian.Uint16(p)), 1<<8
	case 4:
		arg, least = uint64(binary.BigEndian.Uint32(p)), 1<<16
	case 8:
		arg, least = binary.BigEndian.Uint64(p), 1<<32
	}
	if arg < least && major != majorSimple {
		return 0, 0, fmt.Errorf("%w: number not in its shortest form", errMalformed)
	}
	return major, arg, nil
}

// expect reads a head that must be of the given major type.
func (r *cborReader) expect(major byte, what string) (uint64, error) {
	got, arg, err := r.head()
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s: %w", what, err)
	case got == majorTag:
		return 0, fmt.Errorf("%w: tag %d on %s", ErrMessageForm, arg, what)
	case got != major:
		return 0, fmt.Errorf("%w: %s has CBOR type %d, not %d", errMalformed, what, got, major)
	}
	return arg, nil
}

// take returns the next n bytes.
func (r *cborReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.buf)-r.pos) {
		return nil, io.ErrUnexpectedEOF
	}
	end := r.pos + int(n)
	p := r.buf[r.pos:end:end]
	r.pos = end
	return p, nil
}

// count reads the head of a list or map of at most most entries. Every entry
// takes at least one byte, so a count beyond what is left cannot be met.
func (r *cborReader) count(major byte, what string, most int) (int, error) {
	n, err := r.expect(major, what)
	if err != nil {
		return 0, err
	}
	if n > uint64(len(r.buf)-r.pos) {
		return 0, fmt.Errorf("%s: %w", what, io.ErrUnexpectedEOF)
	}
	if n > uint64(most) {
		return 0, limitError(what, n, uint64(most))
	}
	return int(n), nil
}

func (r *cborReader) bytes(what string) ([]byte, error) {
	n, err := r.expect(majorBytes, what)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

func (r *cborReader) text(what string) ([]byte, error) {
	n, err := r.expect(majorString, what)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// link reads a CID's bytes: tag 42 and a byte string that begins with a zero.
func (r *cborReader) link(what string) ([]byte, error) {
	major, arg, err := r.head()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if major != majorTag || arg != linkTag {
		return nil, fmt.Errorf("%w: %s is not a link", errMalformed, what)
	}
	p, err := r.bytes(what)
	if err != nil {
		return nil, err
	}
	if len(p) == 0 || p[0] != 0 {
		return nil, fmt.Errorf("%w: %s is a link without the identity multibase", errMalformed, what)
	}
	if len(p) > MaxCIDLength {
		return nil, limitError("bytes of CID", uint64(len(p)), MaxCIDLength)
	}
	return p[1:], nil
}

// skip passes one value of any type that begins at the given depth and
// returns its bytes. It counts nodes and depth; that the value is valid
// DAG-CBOR besides is for the codec to say.
func (r *cborReader) skip(depth int) ([]byte, error) {
	start := r.pos
	if err := r.pass(depth); err != nil {
		return nil, err
	}
	return r.buf[start:r.pos:r.pos], nil
}

func (r *cborReader) pass(depth int) error {
	if r.nodes++; r.nodes > MaxMessageNodes {
		return limitError("nodes", uint64(r.nodes), MaxMessageNodes)
	}
	major, arg, err := r.head()
	for major == majorTag && err == nil {
		major, arg, err = r.head()
	}
	if err != nil {
		return err
	}
	switch major {
	case majorBytes, majorString:
		_, err := r.take(arg)
		return err
	case majorArray, majorMap:
		if depth >= MaxMessageDepth {
			return limitError("levels", uint64(depth)+1, MaxMessageDepth)
		}
		if arg > uint64(len(r.buf)-r.pos) {
			return io.ErrUnexpectedEOF
		}
		if major == majorMap {
			arg *= 2
		}
		for ; arg > 0; arg-- {
			if err := r.pass(depth + 1); err != nil {
				return err
			}
		}
	}
	return nil
}
