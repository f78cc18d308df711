package selectors

import (
	"context"
	"errors"
	"io"
	"maps"
	"strconv"
	"sync/atomic"

	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/adl"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
)

const (
	// maxParts is how many blocks the interpretation of one file or directory
	// may read: 1 TiB in the usual blocks of 256 KiB.
	maxParts = 1 << 22
	// maxEntries is how many entries of one directory may be listed.
	maxEntries = 1 << 24
	// entriesPerCheck is how many are listed between two looks at the context.
	entriesPerCheck = 1024
)

// errEndless ends interpretations that outgrow what anybody stores.
var errEndless = errors.New("a file or directory that refers to its own parts too often: it does not end")

// AddReifiers teaches ls to interpret UnixFS. Selectors of Path and EntityBytes
// need it on both sides of a transfer, and in Measure and Complete.
//
// It adds what go-unixfsnode has, with a bound on it: whoever publishes a DAG
// can make a directory or file of a few blocks that takes years to list or read,
// because the same part may be linked to many times on each of many levels. No
// link budget sees that. One file or directory may have 4,194,304 blocks and
// 16,777,216 entries; beyond that its interpretation fails, and it fails when
// the walk's context ends.
//
// Every block that is read to interpret a file or directory gets a path of its
// own below it. graphsync's receiver checks by path, link for link, that what it
// holds already is what the sender leaves out; without paths it would take the
// last part of a file for the file, and could go on with nothing that it
// interprets.
//
// The map of reifiers is replaced, not written to: link systems that share one
// may be taught on several goroutines at once.
func AddReifiers(ls *ipld.LinkSystem) {
	ls.KnownReifiers = maps.Clone(ls.KnownReifiers)
	unixfsnode.AddUnixFSReificationToLinkSystem(ls)
	for _, name := range []string{"unixfs", "unixfs-preload"} {
		ls.KnownReifiers[name] = bounded(ls.KnownReifiers[name], maxParts, maxEntries)
	}
}

// bounded returns reify with bounds on what the nodes it makes read and list.
func bounded(reify linking.NodeReifier, parts int64, entries int) linking.NodeReifier {
	return func(lc linking.LinkContext, n datamodel.Node, ls *linking.LinkSystem) (datamodel.Node, error) {
		if lc.Ctx == nil {
			lc.Ctx = context.Background()
		}
		own, path := *ls, lc.LinkPath
		var read atomic.Int64 // whoever is handed the node may read it elsewhere
		own.StorageReadOpener = func(lc linking.LinkContext, link datamodel.Link) (io.Reader, error) {
			n := read.Add(1)
			if n > parts {
				return nil, errEndless
			}
			if lc.LinkPath.Len() == 0 {
				lc.LinkPath = path.AppendSegment(datamodel.PathSegmentOfString("/" + strconv.FormatInt(n, 36))) // no name has a slash
			}
			return ls.StorageReadOpener(lc, link)
		}
		node, err := reify(lc, n, &own)
		if err != nil {
			return nil, err
		}
		if dir, ok := node.(adl.ADL); ok && node.Kind() == datamodel.Kind_Map {
			return directory{dir, lc.Ctx, entries}, nil
		}
		return node, nil
	}
}

// directory is a directory with a bounded list of entries.
type directory struct {
	adl.ADL
	ctx context.Context
	max int
}

func (d directory) MapIterator() datamodel.MapIterator {
	return &entryIterator{MapIterator: d.ADL.MapIterator(), ctx: d.ctx, left: d.max}
}

// entryIterator lists a directory. An error ends it: it is then Done.
type entryIterator struct {
	datamodel.MapIterator
	ctx  context.Context
	left int
	over bool
}

func (it *entryIterator) Done() bool { return it.over || it.MapIterator.Done() }

func (it *entryIterator) Next() (key, value datamodel.Node, err error) {
	if it.left--; it.left < 0 {
		it.over = true
		return nil, nil, errEndless
	}
	if it.left%entriesPerCheck == 0 {
		if err := it.ctx.Err(); err != nil {
			it.over = true
			return nil, nil, err
		}
	}
	return it.MapIterator.Next()
}
