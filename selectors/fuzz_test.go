package selectors

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// seeds are selectors in DAG-JSON of every kind, good and bad.
var seeds = []string{
	allJSON, entityJSON, stopAt, `{".":{"subset":{"[":-5,"]":9}}}`, `{"|":[{".":{}},{"a":{">":{".":{}}}}]}`,
	`{"R":{"l":{"depth":3},":>":{"|":[{"@":{}},{".":{}}]}}}`, `{"r":{"^":0,"$":9223372036854775807,">":{".":{}}}}`,
	`{"i":{"i":-1,">":{".":{}}}}`, `{"~":{"as":"unixfs-preload",">":{".":{}}}}`, `null`, `{"f":{"f>":{"a":{"@":{}}}}}`,
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := ParseJSON(s)
		if err != nil {
			if !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		var buf bytes.Buffer
		if err := dagjson.Encode(sel, &buf); err != nil {
			t.Fatal(err)
		}
		if again, err := ParseJSON(buf.String()); err != nil || !Equal(sel, again) {
			t.Fatalf("%s: %v", buf.String(), err)
		}
	})
}

// FuzzCheck holds what passes Check to it on a real walk: it ends, in time, and
// does not panic.
func FuzzCheck(f *testing.F) {
	for _, s := range seeds {
		var buf bytes.Buffer
		if err := dagcbor.Encode(json(s), &buf); err != nil {
			f.Fatal(err)
		}
		f.Add(buf.Bytes())
	}
	s := newStore()
	file, size := s.file(noise(1, 3000), 1000)
	shards, _ := s.sharded(8, s.names(20)...)
	dir, _ := s.dir(entry{"a", file, size}, entry{"b", shards, 1})
	root := s.list(dir, file, s.list(), dir)
	ls := s.linkSystem()
	f.Fuzz(func(t *testing.T, b []byte) {
		nb := basicnode.Prototype.Any.NewBuilder()
		if dagcbor.Decode(nb, bytes.NewReader(b)) != nil {
			return
		}
		sel := nb.Build()
		if err := Check(sel, Limits{}); err != nil {
			if !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		if !Equal(sel, sel) {
			t.Fatal("passes Check and is not equal to itself")
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		c, err := MeasureWith(ctx, ls, root, sel, 0, s.size)
		if ctx.Err() != nil {
			t.Fatalf("%v after %v", err, c)
		}
	})
}
