package transport

import (
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
)

// splitMessage cuts m into messages that mean the same when they are received
// in order, each of about size bytes at most; only an extension or a block
// that is larger itself makes a larger one.
//
// Graphsync starts a new message after 512 KiB of blocks but counts links
// without a block as nothing: while a stream stands still, a resumed transfer
// that skips what the peer has can gather links for a message of any size,
// which no peer would read.
func splitMessage(m gsmsg.GraphSyncMessage, size int) (parts []gsmsg.GraphSyncMessage) {
	if requests := m.Requests(); len(requests) > 0 {
		all := make(map[graphsync.RequestID]gsmsg.GraphSyncRequest, len(requests))
		for _, r := range requests {
			all[r.ID()] = r
		}
		parts = append(parts, gsmsg.NewMessage(all, nil, nil))
	}
	blks := make(map[cid.Cid]blocks.Block)
	for _, b := range m.Blocks() {
		blks[b.Cid()] = b
	}
	for _, r := range m.Responses() {
		parts = append(parts, splitResponse(r, blks, size)...)
	}
	return parts
}

// entryOverhead is more than what a link or a block takes besides its CID and
// its data.
const entryOverhead = 16

// splitResponse cuts r and the blocks it needs. Its extensions go with the
// first part and its status with the last. A block goes with the first link to
// it, where the receiver looks for it.
func splitResponse(r gsmsg.GraphSyncResponse, blks map[cid.Cid]blocks.Block, size int) (parts []gsmsg.GraphSyncMessage) {
	var (
		ext  = extensionsOf(r)
		meta []gsmsg.GraphSyncLinkMetadatum
		with = make(map[cid.Cid]blocks.Block)
		sent = make(map[cid.Cid]struct{})
		used int
	)
	flush := func(status graphsync.ResponseStatusCode) {
		response := gsmsg.NewResponse(r.RequestID(), status, meta, ext...)
		parts = append(parts, gsmsg.NewMessage(nil,
			map[graphsync.RequestID]gsmsg.GraphSyncResponse{r.RequestID(): response}, with))
		meta, ext, with, used = nil, nil, make(map[cid.Cid]blocks.Block), 0
	}
	r.Metadata().Iterate(func(c cid.Cid, action graphsync.LinkAction) {
		cost := entryOverhead + c.ByteLen()
		_, twice := sent[c]
		b, ok := blks[c]
		send := action == graphsync.LinkActionPresent && ok && !twice
		if send {
			cost += 2*entryOverhead + c.ByteLen() + len(b.RawData())
		}
		if used > 0 && used+cost > size {
			flush(graphsync.PartialResponse)
		}
		used += cost
		meta = append(meta, gsmsg.GraphSyncLinkMetadatum{Link: c, Action: action})
		if send {
			with[c], sent[c] = b, struct{}{}
		}
	})
	flush(r.Status())
	return parts
}

func extensionsOf(part extended) (ext []graphsync.ExtensionData) {
	for _, name := range part.ExtensionNames() {
		value, _ := part.Extension(name)
		ext = append(ext, graphsync.ExtensionData{Name: name, Data: value})
	}
	return ext
}
