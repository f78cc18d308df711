package transport

import (
	"bytes"
	"testing"

	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/filecoin-project/go-data-transfer/v2/transport/graphsync/extension"
	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// FuzzExamine checks requests with arbitrary data-transfer messages and
// selectors: none may pass unless it is a pull for the same root and selector.
func FuzzExamine(f *testing.F) {
	d := buildDAG(f, newMemStore(), 1, 1, 10, nil)
	encode := func(n datamodel.Node) []byte {
		b, err := ipld.Encode(n, dagcbor.Encode)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	all := encode(wholeDAG())
	v := testVoucher()
	for _, pull := range []bool{true, false} {
		m, err := message.NewRequest(1, false, pull, &v, d.root, wholeDAG())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encode(m.ToIPLD()), all, int64(0))
	}
	f.Add(encode(message.CancelRequest(1).ToIPLD()), all, int64(3))
	f.Add(encode(message.UpdateResponse(1, false).ToIPLD()), []byte{0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, int64(-1))
	f.Fuzz(func(t *testing.T, msg, sel []byte, skip int64) {
		m, err := ipld.DecodeUsingPrototype(msg, dagcbor.Decode, basicnode.Prototype.Any)
		if err != nil {
			return
		}
		s, err := ipld.DecodeUsingPrototype(sel, dagcbor.Decode, basicnode.Prototype.Any)
		if err != nil {
			return
		}
		req := newRequest(d.root, s, graphsync.ExtensionData{Name: extension.ExtensionDataTransfer1_1, Data: m}, skipFirst(skip))
		_ = wellFormed(req)
		_ = checkUpdate(req)
		in, err := examine("self", "peer", req)
		if err != nil {
			return
		}
		if skip < 0 || in.SkipLinks != skip || in.Channel.Initiator != "peer" {
			t.Errorf("admitted %+v with skip %d", in, skip)
		}
		parsed, err := pullMessage(req)
		if err != nil || !parsed.IsPull() || parsed.BaseCid() != d.root {
			t.Errorf("admitted %+v: %v", parsed, err)
		}
		if got, err := parsed.Selector(); err != nil || !bytes.Equal(encode(got), encode(s)) {
			t.Errorf("admitted another selector: %v", err)
		}
	})
}
