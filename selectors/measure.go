package selectors

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// MaxMissing is how many missing blocks a Count names.
const MaxMissing = 16

// ErrNotFound is returned when a block without which the walk cannot go on is
// not in the store: the root, or a part of a sharded directory.
var ErrNotFound = errors.New("block not found")

// ErrNoPath is returned for a path that the data does not have.
var ErrNoPath = errors.New("path leads nowhere")

// ErrTooManyLinks is returned when a selection takes more links than allowed.
var ErrTooManyLinks = errors.New("too many links")

// Count is what the walk of a selector over a DAG comes to.
type Count struct {
	// Blocks is how many distinct blocks the selection has, by CID: a block
	// that is linked to under two CIDs is two, as it is on the wire.
	Blocks uint64
	// Bytes is the sum of their sizes: raw block bytes, without any framing.
	// It is what a transfer of the whole selection is paid for.
	Bytes uint64
	// Links is how often a block was asked for: the root, and every link
	// followed, repeats and missing ones included. It is the index that
	// graphsync gives the last block.
	Links uint64
	// Missing holds the first MaxMissing distinct CIDs that the store does not
	// have, in the order of the walk. What is below them is not counted.
	Missing []cid.Cid
}

// Sizer tells the size of a block without reading it. ok is false if the block
// is not there or its size is not known; the block is then read. A Sizer must be
// as fast as an index, and must not say ok for a block that the store lacks.
type Sizer func(cid.Cid) (size uint64, ok bool)

// Measure returns what a transfer of the selection puts on the wire: it walks
// sel from root over the blocks of ls the way go-graphsync v0.18 does when it
// answers a fresh request. It holds to it in what is less than obvious, too:
//
//   - A block is counted when it is first found, and once, by its CID.
//   - A block that ls does not have is left out with all that is below it, and
//     is no error unless it is the root or part of a sharded directory. An error
//     of ls is taken for a missing block.
//   - A CID with an identity hash is a link like any other: it is asked of ls,
//     and counts if ls has it.
//   - An empty block counts as missing if copying it out of ls's reader leaves
//     a nil slice, because graphsync tells it from a missing one by that. A
//     *bytes.Buffer around a non-nil slice is safe, a *bytes.Reader is not.
//     (Its receiver drops empty blocks either way, and looks for them at home.)
//   - Files that match are read through, as far as they match.
//
// maxLinks is graphsync's link budget; 0 is none. The root takes one, and a
// budget of exactly 1 is too small for anything. Blocks that graphsync reads
// without charging them to the budget (the parts of a file or of a sharded
// directory) are charged here: a selection that passes Measure is never larger
// than maxLinks in graphsync either, but not the other way round.
//
// sel must have passed Check; nil is All. ls is not modified. Unless it is
// TrustedStorage the hash of every block is verified. ctx ends the walk at the
// next node. With an error, Count is what was counted until then; errors wrap
// ErrNotFound, ErrTooManyLinks, ErrRefused or ctx's, if it was one of these.
func Measure(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, maxLinks uint64) (Count, error) {
	return MeasureWith(ctx, ls, root, sel, maxLinks, nil)
}

// MeasureWith is Measure for stores that know the sizes of their blocks: raw
// leaves, which cannot lead anywhere, are not read if size knows them. Only the
// inner nodes of a DAG are. The Count is the same.
func MeasureWith(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, maxLinks uint64, size Sizer) (Count, error) {
	w := newWalk(ctx, ls, maxLinks, size)
	err := w.run(root, sel)
	return w.count, err
}

// Complete tells whether ls holds the whole selection. The walk ends at the
// first block that is missing: the Count is what is held in front of it, its
// Links are how many links a transfer may skip (graphsync's
// do-not-send-first-blocks), and Missing names that block.
//
// Parameters and errors are those of Measure, except that a missing block is no
// error, wherever it is, and an empty block is never missing.
func Complete(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, maxLinks uint64) (done bool, c Count, err error) {
	return CompleteWith(ctx, ls, root, sel, maxLinks, nil)
}

// CompleteWith is Complete for stores that know the sizes of their blocks; see
// MeasureWith. The hashes of leaves that are not read are not verified.
func CompleteWith(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, maxLinks uint64, size Sizer) (done bool, c Count, err error) {
	w := newWalk(ctx, ls, maxLinks, size)
	w.prefix = true
	err = w.run(root, sel)
	if errors.Is(err, errGap) {
		w.count.Links-- // the missing one
		return false, w.count, nil
	}
	return err == nil, w.count, err
}

// Feed is asked by Walk for the block of each link that it comes to. An error
// ends the walk.
type Feed func(cid.Cid) ([]byte, error)

// Walk walks sel from root in the order of Measure, over blocks that come one
// by one: feed is asked for every link, repeats included, when the walk cannot go
// on without it, and must return the right block or an error, which is then
// Walk's. The link system interprets what it reads; its storage is not used.
// Other parameters and errors are those of Measure.
func Walk(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, sel datamodel.Node, maxLinks uint64, feed Feed) error {
	w := newWalk(ctx, ls, maxLinks, nil)
	w.feed = feed
	return w.run(root, sel)
}

// Target returns the CID of the block that path leads to from root: for a
// selection by path, the part that is worth its price. ErrNoPath if it leads
// nowhere, which Measure cannot tell from a short path; ErrNotFound if a block on
// the way, or the target, is not in ls. Other parameters and errors are those of
// Measure.
func Target(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, path string) (cid.Cid, error) {
	sel, err := Path(path, ScopeBlock)
	if err != nil {
		return cid.Undef, err
	}
	w := newWalk(ctx, ls, 0, nil)
	switch err := w.run(root, sel); {
	case err != nil:
		return cid.Undef, err
	case w.matches == 0 && w.absent.Defined():
		return cid.Undef, notFound("a block on the way of "+path+":", w.absent)
	case w.matches == 0:
		return cid.Undef, fmt.Errorf("%q: %w", path, ErrNoPath)
	case !w.target.Defined(): // in the root block itself
		return root, nil
	default:
		return w.target, nil
	}
}

// errGap ends the walk of Complete.
var errGap = errors.New("gap")

// notFound wraps ErrNotFound.
func notFound(what string, c cid.Cid) error {
	return fmt.Errorf("%s %s: %w", what, c, ErrNotFound)
}
