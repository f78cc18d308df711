package piece

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

var (
	// ErrIncomplete says that a block that is needed is not held.
	ErrIncomplete = errors.New("not all blocks are here; fetch them and try again")
	// ErrNoEntry says that a path leads nowhere in a DAG.
	ErrNoEntry = errors.New("no such entry")
	// ErrIsDirectory says that a file was expected.
	ErrIsDirectory = errors.New("is a directory")
)

// Kind is what a UnixFS node is.
type Kind uint8

const (
	File Kind = iota + 1
	Directory
	Symlink
)

func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return "unknown"
}

// Stat describes a UnixFS node.
type Stat struct {
	Kind Kind
	CID  cid.Cid
	Name string // last segment of the path, "" for the root
	Size uint64 // of a file, as it says; length of a symlink's target; 0 for a directory
}

// StatPath describes what is at path below root; path may be empty. It reads
// the blocks on the path and the node's first block.
func StatPath(ctx context.Context, ls ipld.LinkSystem, root cid.Cid, path string) (Stat, error) {
	n, err := (&dagReader{ls: ls}).resolve(ctx, root, path)
	if err != nil {
		return Stat{}, err
	}
	return Stat{Kind: n.kind, CID: n.cid, Name: n.name, Size: n.size()}, nil
}

// dagReader reads UnixFS out of a link system. Blocks are hashed unless the link
// system's storage is trusted.
type dagReader struct {
	ls ipld.LinkSystem
}

// block reads a block. Its bytes may belong to the store: they are not changed.
func (r *dagReader) block(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if data, ok := identity(c); ok {
		return data, nil
	}
	return loadBlock(ctx, &r.ls, c)
}

// loadBlock reads a block from a link system.
func loadBlock(ctx context.Context, ls *ipld.LinkSystem, c cid.Cid) ([]byte, error) {
	if ls.StorageReadOpener == nil {
		return nil, errors.New("link system without storage")
	}
	stream, err := ls.StorageReadOpener(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: c})
	if err != nil {
		return nil, missing(c, err)
	}
	if closer, ok := stream.(io.Closer); ok {
		defer func() { _ = closer.Close() }() // only read
	}
	var data []byte
	if b, ok := stream.(interface{ Bytes() []byte }); ok {
		data = b.Bytes()
	} else {
		var buf bytes.Buffer
		if _, err := buf.ReadFrom(io.LimitReader(stream, MaxBlockSize+1)); err != nil {
			return nil, fmt.Errorf("block %s: read: %w", c, err)
		}
		data = buf.Bytes()
	}
	if len(data) > MaxBlockSize {
		return nil, fmt.Errorf("block %s: more than %d bytes", c, MaxBlockSize)
	}
	if !ls.TrustedStorage {
		if err := checkBlock(c, data); err != nil {
			return nil, fmt.Errorf("block %s: %w", c, err)
		}
	}
	return data, nil
}

// missing turns the error of a store about a block into ErrIncomplete, if the
// store says that it has not got it.
func missing(c cid.Cid, err error) error {
	var notFound interface{ NotFound() bool }
	if errors.As(err, &notFound) && notFound.NotFound() || errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("block %s: %w", c, ErrIncomplete)
	}
	return fmt.Errorf("block %s: %w", c, err)
}

// fsNode is a UnixFS node: its first block, decoded.
type fsNode struct {
	cid   cid.Cid
	name  string
	kind  Kind
	fs    unixfsNode
	links []pbLink
}

// size is what the node says of its size.
func (n fsNode) size() uint64 {
	if n.kind == Directory {
		return 0
	}
	if len(n.links) == 0 {
		return uint64(len(n.fs.data))
	}
	return n.fs.size
}

// node reads the first block of a UnixFS node.
func (r *dagReader) node(ctx context.Context, c cid.Cid) (fsNode, error) {
	codec := c.Prefix().Codec
	if codec != cid.Raw && codec != cid.DagProtobuf {
		return fsNode{}, fmt.Errorf("%s: %w", c, ErrNotUnixFS)
	}
	block, err := r.block(ctx, c)
	if err != nil {
		return fsNode{}, err
	}
	if codec == cid.Raw {
		return fsNode{cid: c, kind: File, fs: unixfsNode{data: block, size: uint64(len(block))}}, nil
	}
	pb, err := decodeNode(block)
	if err != nil {
		return fsNode{}, fmt.Errorf("%s: %w", c, err)
	}
	if !pb.hasData {
		return fsNode{}, fmt.Errorf("%s: %w", c, ErrNotUnixFS)
	}
	fs, err := decodeUnixFS(pb.data)
	if err != nil {
		return fsNode{}, fmt.Errorf("%s: %w: %w", c, ErrNotUnixFS, err)
	}
	n := fsNode{cid: c, fs: fs, links: pb.links}
	switch fs.kind {
	case unixfsTypeRaw, unixfsTypeFile:
		n.kind = File
	case unixfsTypeDirectory, unixfsTypeHAMT:
		n.kind = Directory
	case unixfsTypeSymlink:
		n.kind = Symlink
	default:
		return fsNode{}, fmt.Errorf("%s: UnixFS type %d: %w", c, fs.kind, ErrNotUnixFS)
	}
	return n, nil
}

// resolve walks a path from root. Empty segments do not count; symlinks on the
// way are not followed.
func (r *dagReader) resolve(ctx context.Context, root cid.Cid, path string) (fsNode, error) {
	n, err := r.node(ctx, root)
	if err != nil {
		return fsNode{}, err
	}
	at := root.String()
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if n.kind != Directory {
			return fsNode{}, fmt.Errorf("%s/%s: %s is a %s: %w", at, name, at, n.kind, ErrNoEntry)
		}
		c, err := r.lookup(ctx, n, name)
		at += "/" + name
		if err != nil {
			return fsNode{}, fmt.Errorf("%s: %w", at, err)
		}
		if n, err = r.node(ctx, c); err != nil {
			return fsNode{}, fmt.Errorf("%s: %w", at, err)
		}
		n.name = name
	}
	return n, nil
}

// lookup finds an entry of a directory.
func (r *dagReader) lookup(ctx context.Context, dir fsNode, name string) (cid.Cid, error) {
	if dir.fs.kind == unixfsTypeHAMT {
		return r.lookupHAMT(ctx, dir, name)
	}
	for _, l := range dir.links {
		if l.name == name {
			return l.cid, nil
		}
	}
	return cid.Undef, ErrNoEntry
}
