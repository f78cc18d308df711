package voucher

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge is wrapped by the error of ReadMessage for a message above the
// limit.
var ErrTooLarge = errors.New("message too large")

// ReadMessage reads one CBOR item of at most atMost bytes from r and returns its
// bytes. A stream of queries carries one without a length before it, and the
// other side may keep the stream open behind it: ReadMessage returns as soon as
// the item is complete. It may have taken more than the item from r. It looks at
// the structure only: the content is for the decoders. The error is io.EOF if r
// ends before the item begins, wraps ErrMalformed or ErrTooLarge, or is r's.
func ReadMessage(r io.Reader, atMost int) ([]byte, error) {
	s := scanner{r: bufio.NewReader(r), atMost: max(atMost, 0)}
	for missing := 1; missing > 0; missing-- {
		children, err := s.head()
		if errors.Is(err, io.EOF) && len(s.item) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		missing += children
		if missing-1 > s.left() { // each takes at least a byte
			return nil, fmt.Errorf("read message: above %d bytes: %w", atMost, ErrTooLarge)
		}
	}
	return s.item, nil
}

// scanner copies CBOR from r, never more than atMost bytes.
type scanner struct {
	r      *bufio.Reader
	item   []byte
	atMost int
}

func (s *scanner) left() int { return s.atMost - len(s.item) }

// take copies the next n bytes and returns them. They are valid until the next
// call.
func (s *scanner) take(n int) ([]byte, error) {
	if n > s.left() {
		return nil, fmt.Errorf("above %d bytes: %w", s.atMost, ErrTooLarge)
	}
	at := len(s.item)
	s.item = append(s.item, make([]byte, n)...)
	got, err := io.ReadFull(s.r, s.item[at:])
	s.item = s.item[:at+got]
	return s.item[at:], err
}

// head copies the head of an item and what a string has behind it, and returns
// how many items belong into this one.
func (s *scanner) head() (children int, err error) {
	first, err := s.take(1)
	if err != nil {
		return 0, err
	}
	major, info := first[0]>>5, first[0]&0x1f
	if info > 27 {
		return 0, fmt.Errorf("CBOR item of indefinite length: %w", ErrMalformed)
	}
	arg := uint64(info)
	if info >= 24 {
		b, err := s.take(1 << (info - 24))
		if err != nil {
			return 0, err
		}
		var wide [8]byte
		copy(wide[8-len(b):], b)
		arg = binary.BigEndian.Uint64(wide[:])
	}
	if 2 <= major && major <= 5 && arg > uint64(s.left()) {
		return 0, fmt.Errorf("above %d bytes: %w", s.atMost, ErrTooLarge)
	}
	switch major {
	case 2, 3: // bytes, text
		_, err := s.take(int(arg))
		return 0, err
	case 4: // list
		return int(arg), nil
	case 5: // map
		return 2 * int(arg), nil
	case 6: // tag
		return 1, nil
	default: // integers, floats, true, false, null
		return 0, nil
	}
}
