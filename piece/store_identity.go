package piece

import (
	"bytes"
	"fmt"

	"github.com/ipfs/go-cid"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/multicodec"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
)

// Bounds on what a block inside a CID may ask for, as in go-fil-markets.
const (
	maxIdentitySize  = 2 << 10
	maxIdentityLinks = 32
	maxIdentityDepth = 8
)

// wants returns what a piece must hold to serve the DAG under c: its block or,
// if c carries the block itself, the blocks that it links to. It returns false
// if c carries more than it may, or nothing that can be decoded.
func wants(c cid.Cid) ([]key, bool) {
	data, ok := identity(c)
	if !ok {
		return []key{keyOf(c)}, true
	}
	return identityWants(c, data, nil, maxIdentityDepth)
}

func identityWants(c cid.Cid, data []byte, keys []key, depth int) ([]key, bool) {
	if len(data) > maxIdentitySize || depth == 0 {
		return nil, false
	}
	links, err := linksIn(c, data)
	if err != nil {
		return nil, false
	}
	for _, link := range links {
		if inner, ok := identity(link); ok {
			if keys, ok = identityWants(link, inner, keys, depth-1); !ok {
				return nil, false
			}
			continue
		}
		if keys = append(keys, keyOf(link)); len(keys) > maxIdentityLinks {
			return nil, false
		}
	}
	return keys, true
}

// linksIn returns the links in a block. The block is a peer's, and this runs on
// the goroutine that answers everybody, so a decoder that panics is not fatal.
func linksIn(c cid.Cid, data []byte) (_ []cid.Cid, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode %s: %v", c, p)
		}
	}()
	decode, err := multicodec.LookupDecoder(c.Prefix().Codec)
	if err != nil {
		return nil, err
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := decode(nb, bytes.NewReader(data)); err != nil {
		return nil, err
	}
	found, err := traversal.SelectLinks(nb.Build())
	if err != nil {
		return nil, err
	}
	out := make([]cid.Cid, 0, len(found))
	for _, link := range found {
		if l, ok := link.(cidlink.Link); ok {
			out = append(out, l.Cid)
		}
	}
	return out, nil
}
