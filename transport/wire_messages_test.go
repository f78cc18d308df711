package transport

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsmsgv2 "github.com/ipfs/go-graphsync/message/v2"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"
)

// encodeOurs returns m on the wire, varint included.
func encodeOurs(m gsmsg.GraphSyncMessage) ([]byte, error) {
	var e messageEncoder
	var out bytes.Buffer
	blks := m.Blocks()
	if _, err := e.encode(m, blks, DefaultMaxMessageSize); err != nil {
		return nil, err
	}
	err := e.write(&out, blks)
	return out.Bytes(), err
}

func decodeOurs(payload []byte) (gsmsg.GraphSyncMessage, error) {
	m, _, err := decodeMessage(payload)
	return m, err
}

func encodeStock(m gsmsg.GraphSyncMessage) ([]byte, error) {
	var out bytes.Buffer
	err := gsmsgv2.NewMessageHandler().ToNet("", m, &out)
	return out.Bytes(), err
}

func decodeStock(payload []byte) (m gsmsg.GraphSyncMessage, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	framed := append(binary.AppendUvarint(nil, uint64(len(payload))), payload...)
	return gsmsgv2.NewMessageHandler().FromNet("", bytes.NewReader(framed))
}

func payloadOf(t interface{ Fatal(...any) }, framed []byte) []byte {
	n, k := binary.Uvarint(framed)
	if k <= 0 || n != uint64(len(framed)-k) {
		t.Fatal("length prefix does not fit the message")
	}
	return framed[k:]
}

func describeNode(n datamodel.Node) string {
	if n == nil {
		return "-"
	}
	var b bytes.Buffer
	if err := dagcbor.Encode(n, &b); err != nil {
		return "error " + err.Error()
	}
	return hex.EncodeToString(b.Bytes())
}

func describeExtensions(part extended) string {
	var out []string
	for _, name := range part.ExtensionNames() {
		v, _ := part.Extension(name)
		out = append(out, fmt.Sprintf("%q=%s", name, describeNode(v)))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// describe says everything that is in m, in an order of its own.
func describe(m gsmsg.GraphSyncMessage) string {
	var out []string
	for _, r := range m.Requests() {
		out = append(out, fmt.Sprintf("req %s %s root=%s sel=%s pri=%d ext %s", r.ID(), r.Type(), r.Root(),
			describeNode(r.Selector()), r.Priority(), describeExtensions(r)))
	}
	for _, r := range m.Responses() {
		meta := ""
		r.Metadata().Iterate(func(c cid.Cid, a graphsync.LinkAction) { meta += fmt.Sprintf(" %s:%s", c, a) })
		out = append(out, fmt.Sprintf("rsp %s %d meta%s ext %s", r.RequestID(), r.Status(), meta, describeExtensions(r)))
	}
	for _, b := range m.Blocks() {
		out = append(out, fmt.Sprintf("blk %s %x", b.Cid(), b.RawData()))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Generators of messages.

var anyCID = rapid.Custom(func(t *rapid.T) cid.Cid { return anyBlock.Draw(t, "of").Cid() })

var anyBlock = rapid.Custom(func(t *rapid.T) blocks.Block {
	data := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data")
	prefix := rapid.SampledFrom([]cid.Prefix{
		{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32},
		{Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA2_256, MhLength: 32},
		{Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA2_256, MhLength: 20},
		{Version: 1, Codec: cid.DagProtobuf, MhType: multihash.SHA2_512, MhLength: 64},
		{Version: 0, Codec: cid.DagProtobuf, MhType: multihash.SHA2_256, MhLength: 32},
		{Version: 1, Codec: cid.Raw, MhType: multihash.IDENTITY, MhLength: -1},
	}).Draw(t, "prefix")
	if prefix.MhType == multihash.IDENTITY {
		data = data[:min(len(data), 100)]
		prefix.MhLength = len(data)
	}
	c, err := prefix.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := blocks.NewBlockWithCid(data, c)
	return b
})

func drawNode(t *rapid.T, depth int) datamodel.Node {
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	if depth > 3 {
		kind %= 6
	}
	switch kind {
	case 0:
		return basicnode.NewInt(rapid.Int64().Draw(t, "int"))
	case 1:
		return basicnode.NewString(rapid.String().Draw(t, "string"))
	case 2:
		return basicnode.NewBytes(rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(t, "bytes"))
	case 3:
		return basicnode.NewLink(cidlink.Link{Cid: anyCID.Draw(t, "link")})
	case 4:
		return basicnode.NewBool(rapid.Bool().Draw(t, "bool"))
	case 5:
		return basicnode.NewFloat(rapid.Float64Range(-1e300, 1e300).Draw(t, "float"))
	case 6:
		n, _ := qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
			for range rapid.IntRange(0, 4).Draw(t, "len") {
				qp.ListEntry(la, qp.Node(drawNode(t, depth+1)))
			}
		})
		return n
	case 7:
		return selectorparse.CommonSelector_ExploreAllRecursively
	}
	n, _ := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		for _, k := range rapid.SliceOfNDistinct(rapid.String(), 0, 4, rapid.ID[string]).Draw(t, "keys") {
			qp.MapEntry(ma, k, qp.Node(drawNode(t, depth+1)))
		}
	})
	return n
}

func drawExtensions(t *rapid.T) (ext []graphsync.ExtensionData) {
	for _, k := range rapid.SliceOfNDistinct(rapid.String(), 0, 4, rapid.ID[string]).Draw(t, "names") {
		var n datamodel.Node
		if rapid.IntRange(0, 9).Draw(t, "null") > 0 {
			n = drawNode(t, 0)
		}
		ext = append(ext, graphsync.ExtensionData{Name: graphsync.ExtensionName(k), Data: n})
	}
	return ext
}

var allStatuses = func() (codes []graphsync.ResponseStatusCode) {
	for c := range graphsync.ResponseCodeToName {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	return codes
}()

// drawMessage builds a message of at most most requests, responses and blocks each.
func drawMessage(t *rapid.T, most int) gsmsg.GraphSyncMessage {
	requests := make(map[graphsync.RequestID]gsmsg.GraphSyncRequest)
	responses := make(map[graphsync.RequestID]gsmsg.GraphSyncResponse)
	blks := make(map[cid.Cid]blocks.Block)
	count := rapid.IntRange(0, most)
	for range count.Draw(t, "requests") {
		id := graphsync.NewRequestID()
		switch rapid.IntRange(0, 3).Draw(t, "type") {
		case 0:
			requests[id] = gsmsg.NewCancelRequest(id)
		case 1:
			requests[id] = gsmsg.NewUpdateRequest(id, drawExtensions(t)...)
		default:
			requests[id] = gsmsg.NewRequest(id, anyCID.Draw(t, "root"), drawNode(t, 0),
				graphsync.Priority(rapid.Int32().Draw(t, "priority")), drawExtensions(t)...)
		}
	}
	for range count.Draw(t, "responses") {
		id := graphsync.NewRequestID()
		var meta []gsmsg.GraphSyncLinkMetadatum
		for range rapid.IntRange(0, 30).Draw(t, "meta") {
			action := rapid.SampledFrom([]graphsync.LinkAction{graphsync.LinkActionPresent, graphsync.LinkActionMissing,
				graphsync.LinkActionDuplicateNotSent, graphsync.LinkActionDuplicateDAGSkipped}).Draw(t, "action")
			meta = append(meta, gsmsg.GraphSyncLinkMetadatum{Link: anyCID.Draw(t, "link"), Action: action})
		}
		responses[id] = gsmsg.NewResponse(id, rapid.SampledFrom(allStatuses).Draw(t, "status"), meta, drawExtensions(t)...)
	}
	for range count.Draw(t, "blocks") {
		b := anyBlock.Draw(t, "block")
		blks[b.Cid()] = b
	}
	return gsmsg.NewMessage(requests, responses, blks)
}
