package transport

import (
	"crypto/sha256"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/multiformats/go-multihash"
)

// decodeMessage parses buf and hashes its blocks. The blocks of the result
// are slices of buf, which therefore belongs to the message from here on,
// unless they use less than half of its memory: then they are copied, so that a store
// which keeps the bytes it is given never keeps more than twice their number.
// wanted is the number of block bytes that the message's responses refer to.
func decodeMessage(buf []byte) (m gsmsg.GraphSyncMessage, wanted int, err error) {
	p, err := parseMessage(buf)
	if err != nil {
		return gsmsg.GraphSyncMessage{}, 0, err
	}
	if p.blocks == nil {
		return gsmsg.NewMessage(p.requests, p.responses, nil), 0, nil
	}
	blks := make(map[cid.Cid]blocks.Block, len(p.blocks))
	for _, b := range p.blocks {
		c, err := sumBlock(b)
		if err != nil {
			return gsmsg.GraphSyncMessage{}, 0, err
		}
		blk, err := blocks.NewBlockWithCid(b.data, c)
		if err != nil {
			return gsmsg.GraphSyncMessage{}, 0, err
		}
		blks[c] = blk
	}
	if wanted = wantedBytes(p.responses, blks); wanted < cap(buf)/2 {
		copyBlocks(blks)
	}
	return gsmsg.NewMessage(p.requests, p.responses, blks), wanted, nil
}

// sumBlock returns the CID that b's data hash to. Nothing that the peer says
// about the digest is believed, so a block under a CID is always that block.
func sumBlock(b parsedBlock) (cid.Cid, error) {
	p := b.prefix
	if p.MhType == multihash.SHA2_256 && p.MhLength == sha256.Size && p.Version == 1 {
		// What Prefix.Sum does, with one allocation instead of seven.
		var mh [2 + sha256.Size]byte
		mh[0], mh[1] = multihash.SHA2_256, sha256.Size
		sum := sha256.Sum256(b.data)
		copy(mh[2:], sum[:])
		return cid.NewCidV1(p.Codec, mh[:]), nil
	}
	if p.MhLength > MaxDigestLength {
		return cid.Undef, limitError("bytes of digest", uint64(p.MhLength), MaxDigestLength)
	}
	if p.MhType == multihash.IDENTITY && len(b.data) > MaxDigestLength {
		return cid.Undef, limitError("bytes of identity digest", uint64(len(b.data)), MaxDigestLength)
	}
	c, err := p.Sum(b.data)
	if err != nil {
		return cid.Undef, fmt.Errorf("hash a block: %w", err)
	}
	return c, nil
}

// wantedBytes returns how many bytes of blks the responses say are part of an
// answer. Graphsync drops the rest.
func wantedBytes(responses map[graphsync.RequestID]gsmsg.GraphSyncResponse, blks map[cid.Cid]blocks.Block) (n int) {
	seen := make(map[cid.Cid]struct{}, len(blks))
	for _, r := range responses {
		r.Metadata().Iterate(func(c cid.Cid, action graphsync.LinkAction) {
			if _, twice := seen[c]; action != graphsync.LinkActionPresent || twice {
				return
			}
			if b, ok := blks[c]; ok {
				seen[c] = struct{}{}
				n += len(b.RawData())
			}
		})
	}
	return n
}

func copyBlocks(blks map[cid.Cid]blocks.Block) {
	for c, b := range blks {
		if own, err := blocks.NewBlockWithCid(append([]byte(nil), b.RawData()...), c); err == nil {
			blks[c] = own
		}
	}
}
