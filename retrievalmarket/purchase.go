package retrievalmarket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/tollgraph/tollgraph/voucher"
)

// feed is the walk's next block: from the store where it is held and not sent,
// else the one that comes next on the stream, which must be it.
func (x *purchase) feed(ctx context.Context, ls ipld.LinkSystem, c cid.Cid) ([]byte, error) {
	x.links++
	if _, repeat := x.seen[c]; x.proposal.Once && (repeat || x.links <= x.proposal.Skip) {
		x.seen[c] = struct{}{}
		return load(ctx, ls, c)
	}
	for x.blocks == 0 {
		x.heed()
		if err := x.next(); err != nil {
			return nil, err
		}
	}
	if err := x.m.SetReadDeadline(time.Now().Add(streamIO)); err != nil {
		return nil, err
	}
	b, err := x.m.in.Block()
	if err != nil {
		return nil, err
	}
	x.blocks--
	if err := b.Verify(c); err != nil {
		return nil, fmt.Errorf("%w: %w", errFault, err)
	}
	if x.still {
		x.still = false
		x.post(channelNote{kind: noteResumed})
	}
	if x.proposal.Once {
		x.seen[c] = struct{}{}
	}
	return b.Data, x.keep(ctx, ls, c, b.Data)
}

// keep stores a block. The deal is told by the store if that fails. One that is
// held is not stored again, but a plain provider has sent it for this link of the
// walk, and charges it.
func (x *purchase) keep(ctx context.Context, ls ipld.LinkSystem, c cid.Cid, data []byte) error {
	if !x.proposal.Once && held(ctx, ls, c) {
		x.d.doubles.Add(uint64(len(data)))
		x.post(channelNote{kind: noteProgress})
		return nil
	}
	w, commit, err := ls.StorageWriteOpener(ipld.LinkContext{Ctx: ctx})
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("keep %s: %w", c, err)
	}
	if err := commit(cidlink.Link{Cid: c}); err != nil {
		return err
	}
	x.post(channelNote{kind: noteProgress})
	return nil
}

// held reports whether a block is in the store.
func held(ctx context.Context, ls ipld.LinkSystem, c cid.Cid) bool {
	r, err := ls.StorageReadOpener(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
	if closer, ok := r.(io.Closer); ok && err == nil {
		_ = closer.Close() // nothing was written
	}
	return err == nil
}

// load reads a block that is held.
func load(ctx context.Context, ls ipld.LinkSystem, c cid.Cid) ([]byte, error) {
	r, err := ls.StorageReadOpener(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c, err)
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, voucher.MaxBlockV0+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", c, err)
	}
	if b.Len() > voucher.MaxBlockV0 {
		return nil, fmt.Errorf("read %s: %w", c, errTooLarge)
	}
	return b.Bytes(), nil
}

// errTooLarge is why a block does not travel on a stream.
var errTooLarge = errors.New("larger than the 2 MiB that this protocol carries")
