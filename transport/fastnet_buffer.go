package transport

import (
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
)

// bufferSizes are the sizes of buffers that are used again, in bytes: for blocks of
// 512 KiB together and for one of 1 MiB, which is what graphsync puts in a message,
// and room for what is said about them.
var bufferSizes = [...]int{512<<10 + 64<<10, readStep}

// buffers are kept to be used again, by size. The zero value is empty.
type buffers [len(bufferSizes)]sync.Pool

// A buffer is the memory of one message. Whoever stores its blocks may give it back,
// and then another message is received into it. One that is not given back, as most
// who hold a block tell nobody when they let go of it, is left to the collector.
type buffer struct {
	bytes  []byte // the message; it may be a part of what is used again
	pool   *sync.Pool
	blocks int // that are not given back; guarded by the mu of the budget that lent them
}

// get returns a buffer for a message of size bytes, which is not cleared.
func (p *buffers) get(size int) *buffer {
	for i, most := range bufferSizes {
		if size > most || size < most/2 {
			continue
		}
		b, ok := p[i].Get().(*buffer)
		if !ok {
			b = &buffer{bytes: make([]byte, most), pool: &p[i]}
		}
		b.bytes = b.bytes[:size]
		return b
	}
	return &buffer{bytes: make([]byte, size)}
}

// giveBack says that one block is held no more, and reports whether it was the last.
func (b *buffer) giveBack() bool {
	if b.blocks--; b.blocks != 0 {
		return false
	}
	b.pool.Put(b)
	return true
}

// leaves returns the blocks of m that a store is given, each once, or none if
// something else of m may be held: an extension, a block that two requests wait for,
// or one with links in it, which is walked while others come.
func leaves(m gsmsg.GraphSyncMessage) (out []blocks.Block) {
	if len(m.Requests()) > 0 {
		return nil
	}
	given := make(map[cid.Cid]graphsync.RequestID)
	for _, r := range m.Responses() {
		lone := len(r.ExtensionNames()) == 0
		r.Metadata().Iterate(func(c cid.Cid, action graphsync.LinkAction) {
			if action == graphsync.LinkActionPresent {
				other, twice := given[c]
				lone = lone && c.Prefix().Codec == cid.Raw && (!twice || other == r.RequestID())
				given[c] = r.RequestID()
			}
		})
		if !lone {
			return nil
		}
	}
	for _, b := range m.Blocks() {
		if _, ok := given[b.Cid()]; ok && len(b.RawData()) > 0 {
			out = append(out, b)
		}
	}
	return out
}
