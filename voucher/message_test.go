package voucher

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// openStream is the side of a peer that has written and keeps the stream open:
// reading on blocks for ever, which here is an error.
type openStream struct{ r io.Reader }

var errBlocks = errors.New("read beyond what was written")

func (s openStream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err == io.EOF {
		err = errBlocks
	}
	return n, err
}

// TestReadMessage: every message is read to its last byte and not waited on
// beyond, however it is cut.
func TestReadMessage(t *testing.T) {
	for _, v := range vectors(t) {
		b := unhex(t, v.hex)
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(b), "by byte": iotest.OneByteReader(bytes.NewReader(b)),
			"with EOF": iotest.DataErrReader(bytes.NewReader(b)), "by halves": iotest.HalfReader(bytes.NewReader(b)),
		} {
			got, err := ReadMessage(openStream{r}, len(b))
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s, %s: %x, %v; want %x", v.name, name, got, err, b)
			}
		}
		if got, err := ReadMessage(bytes.NewReader(append(b, 0xff)), 1<<20); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s, more behind it: %x, %v", v.name, got, err)
		}
		if _, err := ReadMessage(bytes.NewReader(b), len(b)-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s, a byte too large: %v", v.name, err)
		}
		if _, err := ReadMessage(bytes.NewReader(b[:len(b)-1]), len(b)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, cut: %v", v.name, err)
		}
	}
}

func TestReadMessageRefuses(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want error
	}{
		{"", io.EOF}, {"18", io.ErrUnexpectedEOF}, {"81", io.ErrUnexpectedEOF}, {"a100", io.ErrUnexpectedEOF},
		{"61", io.ErrUnexpectedEOF}, {"d82a", io.ErrUnexpectedEOF},
		{"9f", ErrMalformed}, {"5f", ErrMalformed}, {"ff", ErrMalformed}, {"1c", ErrMalformed}, {"7e", ErrMalformed},
		{"9bffffffffffffffff", ErrTooLarge}, {"bbffffffffffffffff", ErrTooLarge}, {"bb8000000000000000", ErrTooLarge},
		{"5bffffffffffffffff", ErrTooLarge}, {"7b7fffffffffffffff", ErrTooLarge}, {"5a00010000", ErrTooLarge},
		{"9a00010000", ErrTooLarge}, {strings.Repeat("81", 1<<16), ErrTooLarge}, {strings.Repeat("c1", 1<<17), ErrTooLarge},
	} {
		got, err := ReadMessage(bytes.NewReader(unhex(t, c.hex)), 1<<16)
		if !errors.Is(err, c.want) {
			t.Errorf("%.20s: %x, %v; want %v", c.hex, got, err, c.want)
		}
	}
	if _, err := ReadMessage(iotest.ErrReader(errBlocks), 9); !errors.Is(err, errBlocks) {
		t.Errorf("the reader's error: %v", err)
	}
	if _, err := ReadMessage(strings.NewReader("\x00"), -1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("no room: %v", err)
	}
	for _, kind := range []string{"00", "20", "f4", "f6", "f7", "f97e00", "fa7fc00000", "fb7ff8000000000000", "f8ff", "40", "80", "a0"} {
		if got, err := ReadMessage(openStream{bytes.NewReader(unhex(t, kind))}, 9); err != nil || len(got) != len(kind)/2 {
			t.Errorf("%s: %x, %v", kind, got, err)
		}
	}
}

// TestReadMessageAny: any data is read as far as it goes and no further.
func TestReadMessageAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := genNode(4).Draw(t, "node")
		b, err := MarshalNode(n)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ReadMessage(openStream{bytes.NewReader(b)}, 1<<20); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%x, %v; want %x", got, err, b)
		}
	})
}
