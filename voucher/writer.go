package voucher

import (
	"fmt"
	"math"

	"github.com/filecoin-project/go-address"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// writer gathers the fields of one record, in the order of its tuple form. The
// first field that cannot be written stops it.
type writer struct {
	what   string // names the record in errors
	fields []entry
	err    error
}

func (w *writer) fail(key string, err error) {
	if w.err == nil {
		w.err = fmt.Errorf("encode %s.%s: %w", w.what, key, err)
	}
}

// asMap returns the record as a map.
func (w *writer) asMap() (datamodel.Node, error) {
	if w.err != nil {
		return nil, w.err
	}
	n, err := mapNode(w.fields)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", w.what, err)
	}
	return n, nil
}

// asTuple returns the record as a list of its values.
func (w *writer) asTuple() (datamodel.Node, error) {
	if w.err != nil {
		return nil, w.err
	}
	values := make([]datamodel.Node, len(w.fields))
	for i, f := range w.fields {
		values[i] = f.value
	}
	n, err := listNode(values)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", w.what, err)
	}
	return n, nil
}

func (w *writer) node(key string, n datamodel.Node) { w.fields = append(w.fields, entry{key, n}) }

// sub writes what a nested record's asMap or asTuple returned.
func (w *writer) sub(key string, n datamodel.Node, err error) {
	if err != nil {
		w.fail(key, err)
		return
	}
	w.node(key, n)
}

// any writes n as it is on the wire, null if it is nil.
func (w *writer) any(key string, n datamodel.Node) {
	if n == nil {
		n = datamodel.Null
	}
	w.node(key, plain(n))
}

func (w *writer) uint(key string, v uint64) { w.node(key, uintNode(v)) }

func (w *writer) int(key string, v int64) { w.node(key, basicnode.NewInt(v)) }

func (w *writer) bytes(key string, b []byte, atMost int) {
	if len(b) > atMost {
		w.fail(key, fmt.Errorf("%d bytes, %d at most", len(b), atMost))
		return
	}
	w.node(key, basicnode.NewBytes(b))
}

func (w *writer) text(key, s string) {
	if len(s) > MaxMessage {
		w.fail(key, fmt.Errorf("%d bytes, %d at most", len(s), MaxMessage))
		return
	}
	w.node(key, basicnode.NewString(s))
}

func (w *writer) link(key string, c cid.Cid) {
	if !c.Defined() || c.ByteLen() > maxCID {
		w.fail(key, fmt.Errorf("CID is undefined or longer than %d bytes", maxCID))
		return
	}
	w.node(key, basicnode.NewLink(cidlink.Link{Cid: c}))
}

// optLink writes null for nil.
func (w *writer) optLink(key string, c *cid.Cid) {
	if c == nil {
		w.node(key, datamodel.Null)
		return
	}
	w.link(key, *c)
}

func (w *writer) amount(key string, a Amount) { w.node(key, basicnode.NewBytes(a.wire())) }

func (w *writer) price(key string, p Price) { w.amount(key, Atto(uint64(p))) }

// address writes a, which must be defined.
func (w *writer) address(key string, a address.Address) {
	if a == address.Undef {
		w.fail(key, fmt.Errorf("address is undefined"))
		return
	}
	w.optAddress(key, a)
}

// optAddress writes no bytes for Undef.
func (w *writer) optAddress(key string, a address.Address) {
	w.node(key, basicnode.NewBytes(a.Bytes()))
}

// uintNode returns v as a signed node where it fits: only then can any code that
// reads nodes take it.
func uintNode(v uint64) datamodel.Node {
	if v > math.MaxInt64 {
		return basicnode.NewUint(v)
	}
	return basicnode.NewInt(int64(v))
}
