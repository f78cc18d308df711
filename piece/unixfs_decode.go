package piece

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"
)

// ErrNotUnixFS says that a node is no file, directory or symlink. It can be kept
// as a CAR (--car) only.
var ErrNotUnixFS = errors.New("not a UnixFS file, directory or symlink; keep it as a CAR (--car)")

// More UnixFS types, which Create does not make.
const (
	unixfsTypeRaw      = 0
	unixfsTypeMetadata = 3
)

// pbNode is a decoded DAG-PB block. Its data is a part of the block.
type pbNode struct {
	links   []pbLink
	data    []byte
	hasData bool
}

// decodeNode decodes a DAG-PB block. It is lenient: links and data may come in
// any order, as blocks of old writers have them.
func decodeNode(block []byte) (pbNode, error) {
	var node pbNode
	err := eachField(block, func(number protowire.Number, value field) error {
		switch {
		case number == 1 && value.isBytes:
			node.data, node.hasData = value.bytes, true
		case number == 2 && value.isBytes:
			l, err := decodeLink(value.bytes)
			if err != nil {
				return err
			}
			node.links = append(node.links, l)
		default:
			return fmt.Errorf("unexpected field %d", number)
		}
		return nil
	})
	if err != nil {
		return pbNode{}, fmt.Errorf("DAG-PB: %w", err)
	}
	return node, nil
}

func decodeLink(b []byte) (pbLink, error) {
	var l pbLink
	err := eachField(b, func(number protowire.Number, value field) (err error) {
		switch {
		case number == 1 && value.isBytes:
			l.cid, err = cid.Cast(value.bytes)
		case number == 2 && value.isBytes:
			l.name = string(value.bytes)
		case number == 3 && !value.isBytes:
			l.tree = value.number
		default:
			err = fmt.Errorf("unexpected field %d in a link", number)
		}
		return err
	})
	if err == nil && !l.cid.Defined() {
		err = errors.New("link without a CID")
	}
	return l, err
}

// unixfsNode is the decoded data of a DAG-PB node that is UnixFS.
type unixfsNode struct {
	kind   uint64
	data   []byte   // of a file, or target of a symlink, or slots of a HAMT
	size   uint64   // of a file
	sizes  []uint64 // of the parts of a file, one for each link
	hash   uint64   // of a HAMT
	fanout uint64   // of a HAMT
}

// decodeUnixFS decodes the data of a DAG-PB node. Modes and times are ignored.
func decodeUnixFS(b []byte) (unixfsNode, error) {
	var n unixfsNode
	hasKind := false
	err := eachField(b, func(number protowire.Number, value field) error {
		switch {
		case number == 2 && value.isBytes:
			n.data = value.bytes
		case number == 4 && value.isBytes: // packed
			return eachVarint(value.bytes, func(v uint64) { n.sizes = append(n.sizes, v) })
		case number == 1 && !value.isBytes:
			n.kind, hasKind = value.number, true
		case number == 3 && !value.isBytes:
			n.size = value.number
		case number == 4 && !value.isBytes:
			n.sizes = append(n.sizes, value.number)
		case number == 5 && !value.isBytes:
			n.hash = value.number
		case number == 6 && !value.isBytes:
			n.fanout = value.number
		}
		return nil
	})
	if err == nil && !hasKind {
		err = errors.New("no type")
	}
	if err != nil {
		return unixfsNode{}, fmt.Errorf("UnixFS: %w", err)
	}
	return n, nil
}

// field is the value of a protobuf field: bytes or a number.
type field struct {
	bytes   []byte
	isBytes bool
	number  uint64
}

// eachField calls visit for the fields of a protobuf message.
func eachField(b []byte, visit func(protowire.Number, field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var value field
		switch kind {
		case protowire.VarintType:
			value.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value.isBytes = true
			value.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
			if n >= 0 { // a kind of value that none of our fields has
				b = b[n:]
				continue
			}
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := visit(number, value); err != nil {
			return err
		}
	}
	return nil
}

func eachVarint(b []byte, visit func(uint64)) error {
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		visit(v)
		b = b[n:]
	}
	return nil
}
