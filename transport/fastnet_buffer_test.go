package transport

import (
	"crypto/sha256"
	"fmt"
	"io"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// borrowed is a writer that holds a block until it is committed.
type borrowed struct{ settable }

func (b *borrowed) BorrowBytes(p []byte) error { b.data = p; return nil }

// borrowing returns a link system whose blocks are given to check and forgotten.
func borrowing(check func(datamodel.Link, []byte) error) ipld.LinkSystem {
	ls := newFastStore().linkSystem()
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		w := &borrowed{}
		return w, func(l datamodel.Link) error { return check(l, w.data) }, nil
	}
	return ls
}

// lending is a message of two blocks that was received into a buffer.
type lending struct {
	blocks    []blocks.Block
	responses map[graphsync.RequestID]gsmsg.GraphSyncResponse
}

func newLending(t *testing.T, codec uint64, ext ...graphsync.ExtensionData) lending {
	l := lending{responses: make(map[graphsync.RequestID]gsmsg.GraphSyncResponse)}
	for i := range 2 {
		data := append([]byte{0x58, byte(i)}, make([]byte, 300<<10)...)
		c, err := cid.Prefix{Version: 1, Codec: codec, MhType: 0x12, MhLength: 32}.Sum(data)
		if err != nil {
			t.Fatal(err)
		}
		b, err := blocks.NewBlockWithCid(data, c)
		if err != nil {
			t.Fatal(err)
		}
		l.blocks = append(l.blocks, b)
	}
	l.answer(ext...)
	return l
}

// answer adds a response with both blocks.
func (l lending) answer(ext ...graphsync.ExtensionData) lending {
	id := graphsync.NewRequestID()
	var meta []gsmsg.GraphSyncLinkMetadatum
	for _, b := range l.blocks {
		meta = append(meta, gsmsg.GraphSyncLinkMetadatum{Link: b.Cid(), Action: graphsync.LinkActionPresent})
	}
	l.responses[id] = gsmsg.NewResponse(id, graphsync.PartialResponse, meta, ext...)
	return l
}

// receive puts the message through the codec and the budget.
func (l lending) receive(t *testing.T, b *ByteBudget) (*buffer, gsmsg.GraphSyncMessage) {
	framed, err := encodeOurs(gsmsg.NewMessage(nil, l.responses, blockMap(l.blocks)))
	if err != nil {
		t.Fatal(err)
	}
	payload := payloadOf(t, framed)
	buf := new(buffers).get(len(payload))
	copy(buf.bytes, payload)
	m, wanted, err := decodeMessage(buf.bytes)
	if err != nil || buf.pool == nil {
		t.Fatalf("%d bytes: pool %v, %v", len(payload), buf.pool, err)
	}
	if err := b.Admit("a", wanted); err != nil {
		t.Fatal(err)
	}
	b.lend(m, buf)
	return buf, m
}

// TestLent: a buffer is given back when each of its blocks was stored by a writer
// that borrows, and the walk has come to the next; and never if anything in it may
// be held.
func TestLent(t *testing.T) {
	const raw, cbor = cid.Raw, cid.DagCBOR
	for name, c := range map[string]struct {
		l     lending
		keeps bool
		back  bool
	}{
		"leaves":                     {l: newLending(t, raw), back: true},
		"a store that keeps":         {l: newLending(t, raw), keeps: true},
		"blocks with links":          {l: newLending(t, cbor)},
		"an extension":               {l: newLending(t, raw, textExtension("test/a", "b"))},
		"two requests for one block": {l: newLending(t, raw).answer()},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewByteBudget(4<<20, time.Minute)
			buf, m := c.l.receive(t, b)
			lent := buf.blocks
			if want := map[bool]int{true: 2}[c.back || c.keeps]; lent != want {
				t.Fatalf("%d blocks are lent, not %d", lent, want)
			}
			ls := borrowing(func(datamodel.Link, []byte) error { return nil })
			if c.keeps {
				ls = newFastStore().linkSystem()
			}
			ls = b.LinkSystem(ls, "a")
			for _, blk := range m.Blocks() {
				w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{})
				if err != nil {
					t.Fatal(err)
				}
				before := buf.blocks
				_ = w.(bytesSetter).SetBytes(blk.RawData())
				if err := commit(cidlink.Link{Cid: blk.Cid()}); err != nil {
					t.Fatal(err)
				}
				if buf.blocks != before {
					t.Error("given back while it is walked")
				}
			}
			if _, _, err := ls.StorageWriteOpener(ipld.LinkContext{}); err != nil {
				t.Fatal(err)
			}
			if back := lent > 0 && buf.blocks == 0; back != c.back {
				t.Errorf("given back: %v, want %v", back, c.back)
			}
			if b.Held("a") != 0 || len(b.peers) != 0 || len(b.lent) != 0 {
				t.Errorf("%d bytes, %d accounts and %d loans held", b.Held("a"), len(b.peers), len(b.lent))
			}
		})
	}
}

// TestLentToNobody: blocks that nobody stores, whoever sends them, keep no more than
// some buffers, and one that is stored after all is left to the collector.
func TestLentToNobody(t *testing.T) {
	b := NewByteBudget(4<<20, time.Minute)
	first, m := newLending(t, cid.Raw).receive(t, b)
	for range 3 * maxLoans {
		newLending(t, cid.Raw).receive(t, b)
		b.release("a", b.Held("a"))
	}
	if len(b.loans) != maxLoans || len(b.lent) != 2*maxLoans {
		t.Errorf("%d buffers with %d blocks are waited for", len(b.loans), len(b.lent))
	}
	ls := b.LinkSystem(borrowing(func(datamodel.Link, []byte) error { return nil }), "a")
	for _, blk := range append(m.Blocks(), m.Blocks()[0]) {
		w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{})
		if err != nil {
			t.Fatal(err)
		}
		_ = w.(bytesSetter).SetBytes(blk.RawData())
		if err := commit(cidlink.Link{Cid: blk.Cid()}); err != nil {
			t.Fatal(err)
		}
	}
	if got := first.blocks; got != 2 {
		t.Errorf("a buffer that is not waited for came back, %d blocks are out", got)
	}
}

// TestBorrowedBlocks fetches leaves and blocks with links into a store that holds
// nothing: each block is the one its link names until it is committed, though
// messages are received into the memory of earlier ones.
func TestBorrowedBlocks(t *testing.T) {
	const count, size = 64, 600 << 10
	from := newFastStore()
	root := fillStar(t, from, count*size, size)
	budget := NewByteBudget(4<<20, time.Minute)
	p := newPair(t, from, fastKind, networkKind{"lending", func(h host.Host) gsnet.GraphSyncNetwork {
		return NewNetwork(h, NetworkConfig{Budget: budget})
	}})
	stored, places := 0, make(map[*byte]bool) // by graphsync's one worker for the request
	ls := borrowing(func(l datamodel.Link, data []byte) error {
		stored++
		places[&data[0]] = true
		if sum := sha256.Sum256(data); string(sum[:]) != string(l.(cidlink.Link).Hash()[2:]) {
			return fmt.Errorf("block %s was written over", l)
		}
		return nil
	})
	if err := p.gs.RegisterPersistenceOption("lent", budget.LinkSystem(ls, p.provider.ID())); err != nil {
		t.Fatal(err)
	}
	p.gs.RegisterOutgoingRequestHook(func(_ peer.ID, _ graphsync.RequestData, a graphsync.OutgoingRequestHookActions) {
		a.UsePersistenceOption("lent")
	})
	if err := p.fetch(testContext(t, 30*time.Second), root); err != nil {
		t.Fatal(err)
	}
	if stored != count+1 || len(places) >= count {
		t.Errorf("%d blocks in %d places", stored, len(places))
	}
}
