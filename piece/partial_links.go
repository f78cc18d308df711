package piece

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	_ "github.com/ipld/go-codec-dagpb" // blocks of these four codecs can be walked
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	_ "github.com/ipld/go-ipld-prime/codec/dagjson"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// LinkSystem returns a link system that reads from the file and appends to it.
// It trusts the file and does not hash: blocks are hashed where they are
// received, and those that a crash may have harmed at open. UnixFS is known to
// it, as "unixfs" and "unixfs-preload".
//
// Its readers are *bytes.Buffer and its writers have SetBytes, both so that
// graphsync hands blocks over without a copy, and BorrowBytes, so that transport
// uses their memory again.
func (p *Partial) LinkSystem() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, link ipld.Link) (io.Reader, error) {
		c, err := linkCID(link)
		if err != nil {
			return nil, err
		}
		data, err := p.Get(c)
		if err != nil {
			return nil, err
		}
		return bytes.NewBuffer(data), nil
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		var w blockWriter
		return &w, func(link ipld.Link) error {
			c, err := linkCID(link)
			if err != nil {
				return err
			}
			return p.put(c, w.bytes())
		}, nil
	}
	unixfsnode.AddUnixFSReificationToLinkSystem(&ls)
	return ls
}

// linkCID returns the CID of a link.
func linkCID(link ipld.Link) (cid.Cid, error) {
	l, ok := link.(cidlink.Link)
	if !ok || !l.Defined() {
		return cid.Undef, fmt.Errorf("link %v is not a CID", link)
	}
	return l.Cid, nil
}

// blockWriter collects one block. SetBytes lends it a whole one, which must not
// change before the commit.
type blockWriter struct {
	bytes.Buffer
	set []byte
}

// SetBytes makes data the block, instead of what was written.
func (w *blockWriter) SetBytes(data []byte) error {
	w.set = data
	return nil
}

// BorrowBytes is SetBytes. What writes to the file holds nothing after the commit.
func (w *blockWriter) BorrowBytes(data []byte) error { return w.SetBytes(data) }

func (w *blockWriter) bytes() []byte {
	if w.set != nil {
		return w.set
	}
	return w.Buffer.Bytes()
}
