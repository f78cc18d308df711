package selectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
)

// visitsPerCheck is how many nodes are visited between two looks at the
// context: an explosion inside one block reads nothing, so the loader alone
// would not notice.
const visitsPerCheck = 256

// walk is one traversal as go-graphsync's responder does it: the counterparts
// are ipldutil/traverser.go (from), responsemanager/server.go (visit) and
// queryexecutor.go with responseassembler (load and tally).
type walk struct {
	ctx      context.Context
	source   ipld.LinkSystem // the caller's
	size     Sizer           // may be nil
	maxLinks uint64          // 0 is no limit
	prefix   bool            // stop at the first missing block
	sliced   bool            // the selector looks at lengths, so leaves must have theirs
	feed     Feed            // where blocks come from instead of source; nil but in Walk

	count   Count
	found   map[cid.Cid]uint64 // size of each block counted
	absent  cid.Cid            // the last block that was missing
	matches uint               // nodes that the selector asked for
	target  cid.Cid            // the block of the last of them, if not the root
	visits  uint
	// stop is why the walk must end. It is kept because interpreters and readers
	// on the way up may swallow the error they are given.
	stop error
}

func newWalk(ctx context.Context, ls ipld.LinkSystem, maxLinks uint64, size Sizer) *walk {
	return &walk{
		ctx: ctx, source: ls, size: size, maxLinks: maxLinks,
		found: map[cid.Cid]uint64{},
	}
}

// run compiles sel and walks it from root. A panic of a codec or of an interpreter on hostile
// data is an error, as it is in graphsync.
func (w *walk) run(root cid.Cid, sel datamodel.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("walk %s: the data breaks its codec: %v", root, r)
		}
		err = w.outcome(root, err)
	}()
	if !root.Defined() {
		return errors.New("the root CID is undefined")
	}
	if w.source.StorageReadOpener == nil && w.feed == nil {
		return errors.New("the link system cannot read: set its StorageReadOpener")
	}
	compiled, err := compile(sel)
	if err != nil {
		return err
	}
	w.sliced = hasSlice(orAll(sel))
	return w.from(root, compiled)
}

// from walks sel from root.
func (w *walk) from(root cid.Cid, sel selector.Selector) error {
	ls, budget := w.linkSystem(), w.budget()
	chooser := dagpb.AddSupportToChooser(basicnode.Chooser)
	link := cidlink.Link{Cid: root}
	proto, err := chooser(link, ipld.LinkContext{Ctx: w.ctx})
	if err != nil {
		return err
	}
	if budget != nil {
		budget.LinkBudget--
		if budget.LinkBudget <= 0 {
			return &traversal.ErrBudgetExceeded{BudgetKind: "link", Link: link}
		}
	}
	node, err := ls.Load(ipld.LinkContext{Ctx: w.ctx}, link, proto)
	if err != nil {
		return err
	}
	return traversal.Progress{
		Cfg:    &traversal.Config{Ctx: w.ctx, LinkSystem: ls, LinkTargetNodePrototypeChooser: chooser},
		Budget: budget,
	}.WalkAdv(node, sel, w.visit)
}

// compile compiles sel after the checks that keep compiling and walking it from
// panicking or exploding. The limits are as wide as they go: what is too large
// for the caller was for the gate to say.
func compile(sel datamodel.Node) (selector.Selector, error) {
	sel = orAll(sel)
	wide := Limits{
		MaxRecursionDepth: math.MaxInt64, MaxSelectorBytes: maxCanonicalBytes,
		MaxNodes: 1 << 16, MaxPathSegments: maxNest,
	}
	if err := Check(sel, wide); err != nil {
		return nil, err
	}
	return selector.CompileSelector(sel)
}

// outcome returns the error that the walk ended with in our own terms.
func (w *walk) outcome(root cid.Cid, err error) error {
	var budget *traversal.ErrBudgetExceeded
	var skip traversal.SkipMe
	switch {
	case w.stop != nil:
		return w.stop
	case errors.As(err, &budget):
		return fmt.Errorf("more than %d links: %w", w.maxLinks, ErrTooManyLinks)
	case errors.As(err, &skip) && w.count.Links <= 1:
		return notFound("root", root)
	case errors.As(err, &skip):
		return notFound("part of a directory or file below "+root.String()+": block", w.absent)
	default:
		return err
	}
}

// linkSystem returns the caller's link system with load as its source. Blocks
// are verified in load, which knows those that were never read.
func (w *walk) linkSystem() ipld.LinkSystem {
	ls, def := w.source, cidlink.DefaultLinkSystem()
	if ls.DecoderChooser == nil {
		ls.DecoderChooser = def.DecoderChooser
	}
	if ls.EncoderChooser == nil {
		ls.EncoderChooser = def.EncoderChooser
	}
	if ls.HasherChooser == nil {
		ls.HasherChooser = def.HasherChooser
		w.source.HasherChooser = def.HasherChooser
	}
	ls.StorageReadOpener = w.load
	ls.TrustedStorage = true
	return ls
}

func (w *walk) budget() *traversal.Budget {
	if w.maxLinks == 0 {
		return nil
	}
	return &traversal.Budget{NodeBudget: math.MaxInt64, LinkBudget: int64(min(w.maxLinks, math.MaxInt64))}
}

// visit is called for every node. Matched files are read to the end of the
// match, which loads their blocks; what goes wrong with it is not an error in
// graphsync either.
func (w *walk) visit(p traversal.Progress, n datamodel.Node, why traversal.VisitReason) error {
	if w.visits++; w.visits%visitsPerCheck == 0 && w.stop == nil {
		w.stop = w.ctx.Err()
	}
	if w.stop != nil {
		return w.stop
	}
	if why == traversal.VisitReason_SelectionMatch {
		w.matches++
		if link, ok := p.LastBlock.Link.(cidlink.Link); ok {
			w.target = link.Cid
		}
		if large, ok := n.(datamodel.LargeBytesNode); ok {
			if r, err := large.AsLargeBytes(); err == nil {
				_, _ = io.Copy(io.Discard, r)
			}
		}
	}
	return w.stop
}

// load is the storage of the walk: it counts what passes.
func (w *walk) load(lc linking.LinkContext, link datamodel.Link) (io.Reader, error) {
	if w.stop == nil {
		w.stop = w.ctx.Err()
	}
	if w.stop == nil && w.maxLinks > 0 && w.count.Links >= w.maxLinks {
		w.stop = fmt.Errorf("more than %d links: %w", w.maxLinks, ErrTooManyLinks)
	}
	if w.stop != nil {
		return nil, w.stop
	}
	w.count.Links++
	c, ok := link.(cidlink.Link)
	if !ok {
		w.stop = fmt.Errorf("link %s is no CID", link)
		return nil, w.stop
	}
	if w.feed != nil {
		var data []byte
		data, w.stop = w.feed(c.Cid)
		return bytes.NewBuffer(data), w.stop
	}
	if r, ok := w.leaf(c.Cid); ok {
		return r, nil
	}
	data, err := w.read(lc, c)
	if err != nil {
		return nil, err
	}
	return bytes.NewBuffer(data), nil
}

// leaf stands in for a raw leaf whose size is known, without reading it.
func (w *walk) leaf(c cid.Cid) (io.Reader, bool) {
	if c.Prefix().Codec != cid.Raw {
		return nil, false
	}
	size, known := w.found[c]
	if !known && w.size != nil {
		// How graphsync takes an empty block depends on the reader: read it.
		size, known = w.size(c)
		known = known && size > 0
	}
	if !known || w.sliced && size > maxStandIn {
		return nil, false
	}
	w.tally(c, size)
	if !w.sliced {
		// Nothing asks for a leaf's length: a whole file is read leaf by leaf,
		// to the end of each.
		return bytes.NewBuffer(nil), true
	}
	return bytes.NewBuffer(zeros(int(size))), true
}

// read reads, verifies and counts a block.
func (w *walk) read(lc linking.LinkContext, link cidlink.Link) ([]byte, error) {
	r, err := w.source.StorageReadOpener(lc, link)
	if err != nil {
		return nil, w.missing(link.Cid)
	}
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	buf, ok := r.(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
		if _, err := io.Copy(buf, r); err != nil {
			w.stop = fmt.Errorf("read block %s: %w", link, err)
			return nil, w.stop
		}
	}
	data := buf.Bytes()
	if !w.source.TrustedStorage {
		if err := verify(w.source, link, data); err != nil {
			w.stop = err
			return nil, err
		}
	}
	if data == nil && !w.prefix {
		w.note(link.Cid) // the walk goes on, but the block is not sent
		return nil, nil
	}
	w.tally(link.Cid, uint64(len(data)))
	return data, nil
}

// missing notes that there is no c, and returns what the walk must do about it.
func (w *walk) missing(c cid.Cid) error {
	if w.stop = w.ctx.Err(); w.stop != nil {
		return w.stop
	}
	w.note(c)
	if w.prefix {
		w.stop = errGap
		return w.stop
	}
	return traversal.SkipMe{}
}

// note names c as missing.
func (w *walk) note(c cid.Cid) {
	w.absent = c
	if len(w.count.Missing) < MaxMissing && !slices.Contains(w.count.Missing, c) {
		w.count.Missing = append(w.count.Missing, c)
	}
}

// tally counts c if it is new.
func (w *walk) tally(c cid.Cid, size uint64) {
	if _, old := w.found[c]; old {
		return
	}
	w.found[c] = size
	w.count.Blocks++
	w.count.Bytes += size
}
