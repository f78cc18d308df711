package voucher

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/filecoin-project/go-address"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

const (
	maxCID        = 256 // bytes; a CID with an inlined block of 128 fits
	maxAddress    = 64  // bytes
	maxAmountWire = 128 // bytes that Filecoin allows; what is no Amount is refused behind this
)

// reader takes the fields of one record from a node of a peer. The first field
// that is not what it should be stops it: behind it, every field reads as zero.
// finish returns the error.
type reader struct {
	what   string // names the record in errors
	fields map[string]datamodel.Node
	err    error
}

func (r *reader) fail(key string, err error) {
	if r.err != nil {
		return
	}
	if key != "" {
		key = "." + key
	}
	if !errors.Is(err, ErrMalformed) {
		err = fmt.Errorf("%w: %w", err, ErrMalformed)
	}
	r.err = fmt.Errorf("decode %s%s: %w", r.what, key, err)
}

func (r *reader) finish() error { return r.err }

// readMap reads the map n, which must have exactly the keys given, in any order.
func readMap(what string, n datamodel.Node, keys ...string) *reader {
	return readKeys(what, n, true, keys)
}

// readOpenMap reads the map n. Keys other than those given are left out.
func readOpenMap(what string, n datamodel.Node, keys ...string) *reader {
	return readKeys(what, n, false, keys)
}

func readKeys(what string, n datamodel.Node, exact bool, keys []string) *reader {
	r := &reader{what: what, fields: make(map[string]datamodel.Node, len(keys))}
	if n = r.kind("", n, datamodel.Kind_Map); n == nil {
		return r
	}
	for it := n.MapIterator(); !it.Done(); {
		k, v, err := it.Next()
		if err != nil {
			r.fail("", err)
			return r
		}
		key, err := k.AsString()
		if err != nil {
			r.fail("", fmt.Errorf("key: %w", err))
			return r
		}
		_, twice := r.fields[key]
		switch known := slices.Contains(keys, key); {
		case twice:
			r.fail(key, errors.New("there twice"))
			return r
		case known:
			r.fields[key] = v
		case exact:
			r.fail("", fmt.Errorf("unknown field %.40q", key))
			return r
		}
	}
	return r
}

// readTuple reads the list n, whose values are those of keys, in that order.
func readTuple(what string, n datamodel.Node, keys ...string) *reader {
	r := &reader{what: what, fields: make(map[string]datamodel.Node, len(keys))}
	if n = r.kind("", n, datamodel.Kind_List); n == nil {
		return r
	}
	if n.Length() != int64(len(keys)) {
		r.fail("", fmt.Errorf("%d fields instead of %d", n.Length(), len(keys)))
		return r
	}
	for i, key := range keys {
		v, err := n.LookupByIndex(int64(i))
		if err != nil {
			r.fail(key, err)
			return r
		}
		r.fields[key] = v
	}
	return r
}

// kind returns n as it is on the wire, nil if it is not of kind want.
func (r *reader) kind(key string, n datamodel.Node, want datamodel.Kind) datamodel.Node {
	if r.err != nil {
		return nil
	}
	if n != nil {
		n = plain(n)
	}
	if n == nil || n.IsAbsent() {
		r.fail(key, errors.New("missing"))
		return nil
	}
	if n.Kind() != want {
		r.fail(key, fmt.Errorf("%s instead of %s", n.Kind(), want))
		return nil
	}
	return n
}

// get returns the field, nil if it is missing or not of kind want.
func (r *reader) get(key string, want datamodel.Kind) datamodel.Node {
	return r.kind(key, r.fields[key], want)
}

// has reports whether the field is there and not null.
func (r *reader) has(key string) bool {
	n := r.fields[key]
	return n != nil && !n.IsAbsent() && !n.IsNull()
}

// null reports whether the field is there and null. A missing one is an error.
func (r *reader) null(key string) bool {
	if r.err == nil && r.fields[key] == nil {
		r.fail(key, errors.New("missing"))
	}
	return r.err == nil && !r.has(key)
}

// any returns the field as it is, nil if it is null.
func (r *reader) any(key string) datamodel.Node {
	if r.null(key) || r.err != nil {
		return nil
	}
	return plain(r.fields[key])
}

func (r *reader) uint(key string) uint64 {
	n := r.get(key, datamodel.Kind_Int)
	if n == nil {
		return 0
	}
	if wide, ok := n.(datamodel.UintNode); ok {
		v, err := wide.AsUint()
		if err != nil {
			r.fail(key, err)
			return 0
		}
		return v
	}
	v, err := n.AsInt()
	if err == nil && v < 0 {
		err = fmt.Errorf("%d is below zero", v)
	}
	if err != nil {
		r.fail(key, err)
		return 0
	}
	return uint64(v)
}

func (r *reader) int(key string) int64 {
	n := r.get(key, datamodel.Kind_Int)
	if n == nil {
		return 0
	}
	v, err := n.AsInt()
	if err != nil {
		r.fail(key, err)
	}
	return v
}

// bytes returns a copy of the field, nil if it is empty.
func (r *reader) bytes(key string, atMost int) []byte {
	n := r.get(key, datamodel.Kind_Bytes)
	if n == nil {
		return nil
	}
	b, err := n.AsBytes()
	if err == nil && len(b) > atMost {
		err = fmt.Errorf("%d bytes, %d at most", len(b), atMost)
	}
	if err != nil {
		r.fail(key, err)
		return nil
	}
	if len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

func (r *reader) text(key string) string {
	n := r.get(key, datamodel.Kind_String)
	if n == nil {
		return ""
	}
	s, err := n.AsString()
	if err == nil && len(s) > MaxMessage {
		err = fmt.Errorf("%d bytes, %d at most", len(s), MaxMessage)
	}
	if err != nil {
		r.fail(key, err)
		return ""
	}
	return s
}

func (r *reader) link(key string) cid.Cid {
	n := r.get(key, datamodel.Kind_Link)
	if n == nil {
		return cid.Undef
	}
	l, err := n.AsLink()
	if err == nil && l == nil {
		err = errors.New("missing")
	}
	if err != nil {
		r.fail(key, err)
		return cid.Undef
	}
	raw := l.Binary()
	if len(raw) > maxCID {
		r.fail(key, fmt.Errorf("CID of %d bytes, %d at most", len(raw), maxCID))
		return cid.Undef
	}
	c, err := cid.Cast([]byte(raw))
	if err != nil {
		r.fail(key, err)
		return cid.Undef
	}
	return c
}

// optLink returns nil for null.
func (r *reader) optLink(key string) *cid.Cid {
	if r.null(key) || r.err != nil {
		return nil
	}
	c := r.link(key)
	return &c
}

func (r *reader) amount(key string) Amount {
	a, err := amountFromWire(r.bytes(key, maxAmountWire))
	if err != nil {
		r.fail(key, err)
	}
	return a
}

func (r *reader) price(key string) Price {
	a := r.amount(key)
	if a.hi != 0 {
		r.fail(key, fmt.Errorf("price of %s attoFIL per byte is above 2^64-1", a))
		return 0
	}
	return Price(a.lo)
}

func (r *reader) address(key string) address.Address {
	a := r.optAddress(key)
	if a == address.Undef {
		r.fail(key, errors.New("address is undefined"))
	}
	return a
}

// optAddress returns Undef for no bytes.
func (r *reader) optAddress(key string) address.Address {
	a, err := address.NewFromBytes(r.bytes(key, maxAddress))
	if err != nil {
		r.fail(key, err)
		return address.Undef
	}
	return a
}
