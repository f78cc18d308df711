package piece

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
)

// WriteCAR writes the blocks that sel selects below root to w as a CARv1 with
// this root, in the order in which a traversal reads them, each once. A nil sel
// selects the whole DAG, and is faster than a selector that does. It returns
// the number of blocks and their bytes, also where it fails. A block that is not
// held gives ErrIncomplete.
func WriteCAR(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, w io.Writer) (blocks, written uint64, err error) {
	buffered := bufio.NewWriterSize(w, 256<<10)
	out := frameStream{w: buffered}
	if _, err := buffered.Write(headerFor(root)); err != nil {
		return 0, 0, err
	}
	if sel == nil {
		walk := dagWalk{
			load:  func(ctx context.Context, c cid.Cid) ([]byte, error) { return loadBlock(ctx, &ls, c) },
			visit: out.write,
			seen:  newCIDSet(),
		}
		err = walk.from(ctx, root)
	} else {
		err = walkSelected(ctx, ls, root, sel, out.write)
	}
	if err == nil {
		err = buffered.Flush()
	}
	return out.blocks, out.bytes, err
}

// frameStream writes frames one after the other.
type frameStream struct {
	w             io.Writer
	head          []byte
	blocks, bytes uint64
}

func (s *frameStream) write(c cid.Cid, block []byte) error {
	s.head = appendFrameHead(s.head[:0], c, len(block))
	if _, err := s.w.Write(s.head); err != nil {
		return err
	}
	if _, err := s.w.Write(block); err != nil {
		return err
	}
	s.blocks++
	s.bytes += uint64(len(block))
	return nil
}

// walkSelected calls visit once for each block that a traversal with sel reads.
func walkSelected(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, visit func(cid.Cid, []byte) error) error {
	compiled, err := selector.CompileSelector(sel)
	if err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	tapped := tap(ctx, ls, visit)
	choose := dagpb.AddSupportToChooser(func(datamodel.Link, ipld.LinkContext) (datamodel.NodePrototype, error) {
		return basicnode.Prototype.Any, nil
	})
	link := cidlink.Link{Cid: root}
	proto, err := choose(link, ipld.LinkContext{Ctx: ctx})
	if err != nil {
		return err
	}
	node, err := tapped.Load(ipld.LinkContext{Ctx: ctx}, link, proto)
	if err != nil {
		return err
	}
	progress := traversal.Progress{Cfg: &traversal.Config{
		Ctx: ctx, LinkSystem: tapped, LinkTargetNodePrototypeChooser: choose,
	}}
	return progress.WalkAdv(node, compiled, func(traversal.Progress, datamodel.Node, traversal.VisitReason) error { return nil })
}

// tap returns ls such that visit is called once for each block that is read.
func tap(ctx context.Context, ls ipld.LinkSystem, visit func(cid.Cid, []byte) error) ipld.LinkSystem {
	seen := newCIDSet()
	tapped := ls
	tapped.TrustedStorage = true // loadBlock hashes where it must
	tapped.KnownReifiers = maps.Clone(ls.KnownReifiers)
	unixfsnode.AddUnixFSReificationToLinkSystem(&tapped)
	tapped.StorageReadOpener = func(_ ipld.LinkContext, link datamodel.Link) (io.Reader, error) {
		c, err := linkCID(link)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if block, ok := identity(c); ok {
			return bytes.NewReader(block), nil
		}
		block, err := loadBlock(ctx, &ls, c)
		if err == nil && seen.add(c) {
			err = visit(c, block)
		}
		return bytes.NewReader(block), err
	}
	return tapped
}
