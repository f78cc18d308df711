package transport

import (
	"bytes"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
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
	empty, err := prefix.Sum(nil)
	return err == nil && empty.Equals(l.Cid)
}
