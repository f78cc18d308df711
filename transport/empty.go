package transport

import (
	"bytes"
	"crypto/sha256"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"
)

// knowsEmpty makes ls hand out the empty block whether it holds it or not.
// go-graphsync cannot deliver it: a requestor takes a block without bytes for
// one that did not come, looks for it in its own store, and fails. A responder
// takes one that is read from anything but a *bytes.Buffer for missing.
func knowsEmpty(ls ipld.LinkSystem) ipld.LinkSystem {
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lctx ipld.LinkContext, link ipld.Link) (io.Reader, error) {
		if isEmptyBlock(link) {
			return bytes.NewBuffer([]byte{}), nil
		}
		return read(lctx, link)
	}
	return ls
}

// isEmptyBlock reports whether link is to a raw or dag-pb block of no bytes.
func isEmptyBlock(link ipld.Link) bool {
	l, ok := link.(cidlink.Link)
	if !ok || !l.Defined() {
		return false
	}
	prefix := l.Prefix()
	if prefix.Codec != cid.Raw && prefix.Codec != cid.DagProtobuf {
		return false
	}
	if prefix.MhType == multihash.SHA2_256 && prefix.MhLength == sha256.Size {
		return bytes.Equal(l.Hash(), emptySHA256) // every read comes by here: nothing is hashed
	}
	empty, err := prefix.Sum(nil)
	return err == nil && empty.Equals(l.Cid)
}

// emptySHA256 is the multihash of no bytes.
var emptySHA256, _ = multihash.Sum(nil, multihash.SHA2_256, -1) // cannot fail: the hash is built in
