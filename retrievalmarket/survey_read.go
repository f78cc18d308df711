package retrievalmarket

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// read returns a block if it is held.
func (s *survey) read(ctx context.Context, c cid.Cid) ([]byte, bool) {
	r, err := s.ls.StorageReadOpener(linking.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, false
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	if buf, ok := r.(*bytes.Buffer); ok {
		return buf.Bytes(), true
	}
	data, err := io.ReadAll(r)
	return data, err == nil
}

func (s *survey) decode(c cid.Cid, data []byte) (datamodel.Node, error) {
	decode, err := s.ls.DecoderChooser(cidlink.Link{Cid: c})
	if err != nil {
		return nil, err
	}
	proto := datamodel.NodePrototype(basicnode.Prototype.Any)
	if c.Prefix().Codec == cid.DagProtobuf {
		proto = dagpb.Type.PBNode
	}
	nb := proto.NewBuilder()
	if err := decode(nb, bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("decode %s: %w", c, err)
	}
	return nb.Build(), nil
}
