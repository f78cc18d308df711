package transport

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/schema"
)

// messageEncoder writes messages. It keeps its scratch memory from one to the
// next, so it must not be used by two goroutines at once.
type messageEncoder struct {
	head []byte // varint, opening of the message, opening of the block list
	blks []byte // what goes before each block's data, one after another
	ends []int  // blks[ends[i-1]:ends[i]] goes before block i
	tail bytes.Buffer
	tmp  []byte
}

// encode prepares m and returns its length on the wire without the varint. It
// fails, and writes nothing, if m has a part that the schema has no word for
// or is longer than most bytes.
func (e *messageEncoder) encode(m gsmsg.GraphSyncMessage, blks []blocks.Block, most int) (int, error) {
	requests, responses := m.Requests(), m.Responses()
	e.blks, e.ends = e.blks[:0], e.ends[:0]
	e.tail.Reset()
	size := e.encodeBlocks(blks)
	if err := e.encodeRequests(requests); err != nil {
		return 0, err
	}
	if err := e.encodeResponses(responses); err != nil {
		return 0, err
	}
	fields := 0
	for _, present := range []bool{len(blks) > 0, len(requests) > 0, len(responses) > 0} {
		if present {
			fields++
		}
	}
	e.tmp = appendHead(e.tmp[:0], majorMap, 1)
	e.tmp = appendString(e.tmp, "gs2")
	e.tmp = appendHead(e.tmp, majorMap, uint64(fields))
	if len(blks) > 0 {
		e.tmp = appendString(e.tmp, "blk")
		e.tmp = appendHead(e.tmp, majorArray, uint64(len(blks)))
	}
	size += len(e.tmp) + e.tail.Len()
	if size > most {
		return 0, limitError("bytes", uint64(size), uint64(most))
	}
	e.head = binary.AppendUvarint(e.head[:0], uint64(size))
	e.head = append(e.head, e.tmp...)
	return size, nil
}

// write writes the message that encode prepared from the same blks. The data
// of a block is handed to w as it is, in one piece.
func (e *messageEncoder) write(w io.Writer, blks []blocks.Block) error {
	if _, err := w.Write(e.head); err != nil {
		return err
	}
	start := 0
	for i, b := range blks {
		if _, err := w.Write(e.blks[start:e.ends[i]]); err != nil {
			return err
		}
		if _, err := w.Write(b.RawData()); err != nil {
			return err
		}
		start = e.ends[i]
	}
	_, err := w.Write(e.tail.Bytes())
	return err
}

// encodeBlocks returns how many bytes the blocks take, their data included.
func (e *messageEncoder) encodeBlocks(blks []blocks.Block) (size int) {
	for _, b := range blks {
		data := len(b.RawData())
		e.tmp = appendPrefix(e.tmp[:0], b.Cid())
		e.blks = appendHead(e.blks, majorArray, 2)
		e.blks = appendBytes(e.blks, e.tmp)
		e.blks = appendHead(e.blks, majorBytes, uint64(data))
		e.ends = append(e.ends, len(e.blks))
		size += data
	}
	return size + len(e.blks)
}

// appendPrefix appends what cid.Prefix.Bytes returns, without allocating.
func appendPrefix(b []byte, c cid.Cid) []byte {
	p := c.Prefix()
	b = binary.AppendUvarint(b, p.Version)
	b = binary.AppendUvarint(b, p.Codec)
	b = binary.AppendUvarint(b, p.MhType)
	return binary.AppendUvarint(b, uint64(p.MhLength))
}

var requestTypeWord = map[graphsync.RequestType]string{
	graphsync.RequestTypeNew:    "n",
	graphsync.RequestTypeCancel: "c",
	graphsync.RequestTypeUpdate: "u",
}

func (e *messageEncoder) encodeRequests(requests []gsmsg.GraphSyncRequest) error {
	if len(requests) == 0 {
		return nil
	}
	e.put(appendHead(appendString(e.tmp[:0], "req"), majorArray, uint64(len(requests))))
	for _, r := range requests {
		if err := e.encodeRequest(r); err != nil {
			return fmt.Errorf("encode request %s: %w", r.ID(), err)
		}
	}
	return nil
}

func (e *messageEncoder) encodeRequest(r gsmsg.GraphSyncRequest) error {
	word, ok := requestTypeWord[r.Type()]
	if !ok {
		return fmt.Errorf("unknown request type %q", r.Type())
	}
	fields := uint64(2)
	for _, present := range []bool{len(r.ExtensionNames()) > 0, r.Priority() != 0, r.Selector() != nil, r.Root().Defined()} {
		if present {
			fields++
		}
	}
	e.put(appendHead(e.tmp[:0], majorMap, fields))
	e.put(appendBytes(appendString(e.tmp[:0], "id"), r.ID().Bytes()))
	if err := e.encodeExtensions(r); err != nil {
		return err
	}
	if pri := int64(r.Priority()); pri > 0 {
		e.put(appendHead(appendString(e.tmp[:0], "pri"), majorUint, uint64(pri)))
	} else if pri < 0 {
		e.put(appendHead(appendString(e.tmp[:0], "pri"), majorNegInt, uint64(-pri-1)))
	}
	if sel := r.Selector(); sel != nil {
		e.put(appendString(e.tmp[:0], "sel"))
		if err := e.encodeNode(sel); err != nil {
			return fmt.Errorf("selector: %w", err)
		}
	}
	if root := r.Root(); root.Defined() {
		e.put(appendLink(appendString(e.tmp[:0], "root"), root))
	}
	e.put(appendString(appendString(e.tmp[:0], "type"), word))
	return nil
}

var linkActionWord = map[graphsync.LinkAction]byte{
	graphsync.LinkActionPresent:             'p',
	graphsync.LinkActionDuplicateNotSent:    'd',
	graphsync.LinkActionMissing:             'm',
	graphsync.LinkActionDuplicateDAGSkipped: 's',
}

func (e *messageEncoder) encodeResponses(responses []gsmsg.GraphSyncResponse) error {
	if len(responses) == 0 {
		return nil
	}
	e.put(appendHead(appendString(e.tmp[:0], "rsp"), majorArray, uint64(len(responses))))
	for _, r := range responses {
		if err := e.encodeResponse(r); err != nil {
			return fmt.Errorf("encode response %s: %w", r.RequestID(), err)
		}
	}
	return nil
}

func (e *messageEncoder) encodeResponse(r gsmsg.GraphSyncResponse) error {
	if _, ok := graphsync.ResponseCodeToName[r.Status()]; !ok {
		return fmt.Errorf("unknown status %d", int32(r.Status()))
	}
	meta := r.Metadata()
	fields := uint64(2)
	if len(r.ExtensionNames()) > 0 {
		fields++
	}
	if meta.Length() > 0 {
		fields++
	}
	e.put(appendHead(e.tmp[:0], majorMap, fields))
	if err := e.encodeExtensions(r); err != nil {
		return err
	}
	if meta.Length() > 0 {
		if err := e.encodeMetadata(meta); err != nil {
			return err
		}
	}
	e.put(appendHead(appendString(e.tmp[:0], "stat"), majorUint, uint64(r.Status())))
	e.put(appendBytes(appendString(e.tmp[:0], "reqid"), r.RequestID().Bytes()))
	return nil
}

func (e *messageEncoder) encodeMetadata(meta graphsync.LinkMetadata) (err error) {
	e.put(appendHead(appendString(e.tmp[:0], "meta"), majorArray, uint64(meta.Length())))
	meta.Iterate(func(c cid.Cid, action graphsync.LinkAction) {
		word, ok := linkActionWord[action]
		if !ok || !c.Defined() {
			err = fmt.Errorf("link %s has unknown action %q", c, action)
			return
		}
		e.put(append(appendLink(appendHead(e.tmp[:0], majorArray, 2), c), majorString<<5|1, word))
	})
	return err
}

// extended is what requests and responses have in common.
type extended interface {
	ExtensionNames() []graphsync.ExtensionName
	Extension(graphsync.ExtensionName) (datamodel.Node, bool)
}

func (e *messageEncoder) encodeExtensions(part extended) error {
	names := part.ExtensionNames()
	if len(names) == 0 {
		return nil
	}
	slices.SortFunc(names, func(a, b graphsync.ExtensionName) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(string(a), string(b))
	})
	e.put(appendHead(appendString(e.tmp[:0], "ext"), majorMap, uint64(len(names))))
	for _, name := range names {
		e.put(appendString(e.tmp[:0], string(name)))
		value, _ := part.Extension(name)
		if value == nil {
			e.put(append(e.tmp[:0], cborNull))
		} else if err := e.encodeNode(value); err != nil {
			return fmt.Errorf("extension %s: %w", name, err)
		}
	}
	return nil
}

// cborNull is the whole encoding of null.
const cborNull = majorSimple<<5 | 22

// encodeNode writes n, in the form of its representation if it has a schema.
func (e *messageEncoder) encodeNode(n datamodel.Node) error {
	if typed, ok := n.(schema.TypedNode); ok {
		n = typed.Representation()
	}
	return dagcbor.Encode(n, &e.tail)
}

// put adds p to the tail and keeps p's memory for the next part.
func (e *messageEncoder) put(p []byte) {
	e.tail.Write(p)
	e.tmp = p[:0]
}

func appendLink(b []byte, c cid.Cid) []byte {
	b = appendHead(b, majorTag, linkTag)
	b = appendHead(b, majorBytes, uint64(c.ByteLen())+1)
	return append(append(b, 0), c.KeyString()...)
}
