package transport

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"pgregory.net/rapid"
)

// TestEncodeGolden compares bytes. With at most one part of each sort, the
// order of Go's maps leaves only one encoding.
func TestEncodeGolden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t, 1)
		ours, err := encodeOurs(m)
		if err != nil {
			t.Fatal(err)
		}
		stock, err := encodeStock(m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, stock) {
			t.Fatalf("ours  %x\nstock %x", ours, stock)
		}
	})
}

// TestCodecCrosswise checks that each decoder reads what each encoder writes.
func TestCodecCrosswise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t, 5)
		want := describe(m)
		for _, encode := range []func(gsmsg.GraphSyncMessage) ([]byte, error){encodeOurs, encodeStock} {
			framed, err := encode(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, decode := range []func([]byte) (gsmsg.GraphSyncMessage, error){decodeOurs, decodeStock} {
				got, err := decode(payloadOf(t, framed))
				if err != nil {
					t.Fatal(err)
				}
				if describe(got) != want {
					t.Fatalf("got\n%s\nwant\n%s", describe(got), want)
				}
			}
		}
	})
}

// goldenMessage is a fixed message with one of everything.
func goldenMessage(t testing.TB) gsmsg.GraphSyncMessage {
	id := func(n byte) graphsync.RequestID {
		r, err := graphsync.ParseRequestID(bytes.Repeat([]byte{n}, 16))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	b := blocks.NewBlock([]byte("tollgraph"))
	ext := graphsync.ExtensionData{Name: "x/y", Data: basicnode.NewInt(-7)}
	req := gsmsg.NewRequest(id(1), b.Cid(), selectorparse.CommonSelector_MatchPoint, 3, ext, graphsync.ExtensionData{Name: "z"})
	rsp := gsmsg.NewResponse(id(2), graphsync.PartialResponse,
		[]gsmsg.GraphSyncLinkMetadatum{{Link: b.Cid(), Action: graphsync.LinkActionPresent}}, ext)
	return gsmsg.NewMessage(
		map[graphsync.RequestID]gsmsg.GraphSyncRequest{id(1): req},
		map[graphsync.RequestID]gsmsg.GraphSyncResponse{id(2): rsp},
		map[cid.Cid]blocks.Block{b.Cid(): b})
}

func TestEncodeFixed(t *testing.T) {
	const want = "fa01" + "a163677332a3" +
		"63626c6b" + "81" + "82" + "4400701220" + "49746f6c6c6772617068" +
		"63726571" + "81" + "a6" + "6269645001010101010101010101010101010101" +
		"63657874a2617af663782f7926" + "6370726903" + "6373656ca1612ea0" +
		"64726f6f74d82a58230012205ae1db0a8eb1c9ff86bd5a5d6a5b2bd4fb4cb0ec4e8bdd9c7fd1d04e7e4ac3f0" + "6474797065616e"
	got, err := encodeOurs(goldenMessage(t))
	if err != nil {
		t.Fatal(err)
	}
	stock, err := encodeStock(goldenMessage(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, stock) {
		t.Errorf("ours  %x\nstock %x", got, stock)
	}
	// The digest is what sha256sum says; up to the root the bytes are written out by hand.
	if head, n := hex.EncodeToString(got), strings.Index(want, "1220"+"5ae1"); !strings.HasPrefix(head[4:], want[4:n]) {
		t.Errorf("got  %s\nwant %s…", head, want[:n])
	}
}

func TestEncodeRefuses(t *testing.T) {
	id := graphsync.NewRequestID()
	big := blocks.NewBlock(make([]byte, DefaultMaxMessageSize))
	for name, m := range map[string]gsmsg.GraphSyncMessage{
		"status": gsmsg.NewMessage(nil, map[graphsync.RequestID]gsmsg.GraphSyncResponse{id: gsmsg.NewResponse(id, 99, nil)}, nil),
		"action": gsmsg.NewMessage(nil, map[graphsync.RequestID]gsmsg.GraphSyncResponse{id: gsmsg.NewResponse(id, 14,
			[]gsmsg.GraphSyncLinkMetadatum{{Link: big.Cid(), Action: "Odd"}})}, nil),
		"size": gsmsg.NewMessage(nil, nil, map[cid.Cid]blocks.Block{big.Cid(): big}),
	} {
		if _, err := encodeOurs(m); err == nil {
			t.Errorf("%s: encoded", name)
		} else if name == "size" && !errors.Is(err, ErrMessageLimit) {
			t.Errorf("size: %v", err)
		}
	}
}

// TestDecodeSlices checks that blocks are not copied when they fill the
// message's memory, and are when a little one would hold a big buffer.
func TestDecodeSlices(t *testing.T) {
	id := graphsync.NewRequestID()
	big, small := blocks.NewBlock(bytes.Repeat([]byte("b"), 50_000)), blocks.NewBlock([]byte("small"))
	for _, c := range []struct {
		name   string
		wanted blocks.Block
		room   int // in the buffer, behind the message
		slice  bool
	}{{"big", big, 0, true}, {"small", small, 0, false}, {"big in a bigger buffer", big, 60_000, false}} {
		m := gsmsg.NewMessage(nil, map[graphsync.RequestID]gsmsg.GraphSyncResponse{id: gsmsg.NewResponse(id, 14,
			[]gsmsg.GraphSyncLinkMetadatum{{Link: c.wanted.Cid(), Action: graphsync.LinkActionPresent}})},
			map[cid.Cid]blocks.Block{big.Cid(): big, small.Cid(): small})
		framed, err := encodeOurs(m)
		if err != nil {
			t.Fatal(err)
		}
		payload := payloadOf(t, framed)
		buf := append(make([]byte, 0, len(payload)+c.room), payload...)
		got, err := decodeOurs(buf)
		if err != nil {
			t.Fatal(err)
		}
		clear(buf)
		for _, b := range got.Blocks() {
			if zero := b.RawData()[0] == 0; zero != c.slice {
				t.Errorf("%s wanted: %d bytes sliced %v, want %v", c.name, len(b.RawData()), zero, c.slice)
			}
			if cap(b.RawData()) != len(b.RawData()) && c.slice {
				t.Errorf("%s: an append to a block would write into the next", c.name)
			}
		}
	}
}
