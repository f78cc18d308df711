package transport

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// pieces keeps what was written to it, and how it was cut; it fails at the write
// of that number, counted from 1.
type pieces struct {
	all  bytes.Buffer
	cuts []int
	fail int
}

var errNoMore = errors.New("no more")

func (p *pieces) Write(b []byte) (int, error) {
	if len(p.cuts)+1 == p.fail {
		return 0, errNoMore
	}
	p.cuts = append(p.cuts, len(b))
	return p.all.Write(b)
}

// TestPieces: however a message is written, what leaves is whole pieces and one
// rest, in order.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var out pieces
		var want []byte
		p := pieceWriter{buf: make([]byte, 0, writePiece)}
		p.reset(&out)
		for i := range rapid.IntRange(0, 6).Draw(t, "writes") {
			size := rapid.OneOf(rapid.IntRange(0, 64), rapid.IntRange(writePiece-2, writePiece+2), rapid.IntRange(0, 5*writePiece)).Draw(t, "size")
			b := bytes.Repeat([]byte{byte(i + 1)}, size)
			want = append(want, b...)
			if n, err := p.Write(b); n != size || err != nil {
				t.Fatalf("%d of %d bytes taken: %v", n, size, err)
			}
		}
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.all.Bytes(), want) {
			t.Fatal("other bytes left than were written")
		}
		for i, n := range out.cuts {
			if last := i == len(out.cuts)-1; n == 0 || !last && n%writePiece != 0 {
				t.Fatalf("cut into %v", out.cuts)
			}
		}
	})
}

// TestPiecesFail: an error of the stream ends the message, and what did not leave
// is not in the next one.
func TestPiecesFail(t *testing.T) {
	for _, size := range []int{1, writePiece - 1, writePiece, 3*writePiece + 1} {
		p := pieceWriter{buf: make([]byte, 0, writePiece)}
		p.reset(&pieces{fail: 1})
		_, err := p.Write(make([]byte, size))
		if err == nil {
			err = p.flush()
		}
		if !errors.Is(err, errNoMore) {
			t.Errorf("%d bytes: %v", size, err)
		}
		var next pieces
		p.reset(&next)
		_, _ = p.Write([]byte("next"))
		if err := p.flush(); err != nil || next.all.String() != "next" {
			t.Errorf("after %d bytes that failed: %q, %v", size, next.all.String(), err)
		}
	}
}
