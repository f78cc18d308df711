package piece

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

const (
	defaultChunkSize = 1 << 20
	maxChunkSize     = 2 << 20 // what other nodes take; bitswap carries no more
	defaultMaxLinks  = 1024
	maxMaxLinks      = 8192 // a node of some 400 KiB
)

// CreateOptions say how Create cuts files. The zero value is the profile
// unixfs-v1-2025 of IPIP-499, so that other tools that follow it find the
// same root for the same files.
type CreateOptions struct {
	ChunkSize int64 // bytes of file in a block, 1 to 2 MiB; default 1 MiB
	MaxLinks  int   // links in a node of a file, 2 to 8192; default 1024
	Wrap      bool  // put a single path into a directory, which keeps its name
	Overwrite bool  // replace the output if it exists
}

func (o *CreateOptions) validate() error {
	if o.ChunkSize == 0 {
		o.ChunkSize = defaultChunkSize
	}
	if o.MaxLinks == 0 {
		o.MaxLinks = defaultMaxLinks
	}
	if o.ChunkSize < 1 || o.ChunkSize > maxChunkSize {
		return fmt.Errorf("chunk size of %d bytes: want 1 to %d", o.ChunkSize, maxChunkSize)
	}
	if o.MaxLinks < 2 || o.MaxLinks > maxMaxLinks {
		return fmt.Errorf("%d links in a node: want 2 to %d", o.MaxLinks, maxMaxLinks)
	}
	return nil
}

// CreateResult says what Create packed.
type CreateResult struct {
	Root      cid.Cid
	Blocks    uint64 // in the CAR; equal blocks are written once
	Bytes     uint64 // of these blocks
	FileBytes uint64 // of all files, before packing
}

// Create packs files, directories and symlinks as one UnixFS DAG into a new
// CARv1 at out. A single path becomes the root itself, unless opt.Wrap is set;
// several become the entries of a root directory under their last names.
//
// The same content gives the same file, whatever its times, owners and modes:
// these are not packed. Symlinks are packed as such and not followed. Devices,
// sockets and pipes are an error. Blocks follow their children, so that files
// of any size are packed in memory that depends on the number of blocks alone
// (about 37 bytes each) and on the largest directory.
//
// out appears when it is whole and on disk; before that it is a file beside
// it. It returns ErrOutputExists unless opt.Overwrite is set.
func Create(ctx context.Context, out string, paths []string, opt CreateOptions) (CreateResult, error) {
	if err := opt.validate(); err != nil {
		return CreateResult{}, fmt.Errorf("create %s: %w", out, err)
	}
	out = filepath.Clean(out)
	if err := checkOutput(out, opt.Overwrite); err != nil {
		return CreateResult{}, err
	}
	temp, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*.tmp")
	if err != nil {
		return CreateResult{}, err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone already if all went well
	p := newPacker(temp, opt)
	root, err := p.packAll(ctx, paths)
	if err == nil {
		err = p.car.finish(root)
	}
	if err := errors.Join(err, temp.Close()); err != nil {
		return CreateResult{}, fmt.Errorf("create %s: %w", out, err)
	}
	if err := publish(temp.Name(), out, opt.Overwrite); err != nil {
		return CreateResult{}, err
	}
	return CreateResult{Root: root, Blocks: p.car.blocks, Bytes: p.car.bytes, FileBytes: p.fileBytes}, nil
}

// packer turns files into blocks. It is used by one goroutine.
type packer struct {
	car       *carWriter
	temp      fs.FileInfo // of the output, which must not be packed into itself
	opt       CreateOptions
	chunks    *chunkPool
	fileBytes uint64
}

func newPacker(temp *os.File, opt CreateOptions) *packer {
	info, _ := temp.Stat() // without it os.SameFile says no, and the file grows until the disk is full
	return &packer{car: newCARWriter(temp), temp: info, opt: opt, chunks: newChunkPool(int(opt.ChunkSize))}
}

// packAll packs the paths and returns the root.
func (p *packer) packAll(ctx context.Context, paths []string) (cid.Cid, error) {
	switch {
	case len(paths) == 0:
		return cid.Undef, errors.New("no files to pack")
	case len(paths) == 1 && !p.opt.Wrap:
		l, err := p.pack(ctx, paths[0])
		return l.cid, err
	}
	links := make([]pbLink, 0, len(paths))
	for _, path := range paths {
		name, err := lastName(path)
		if err != nil {
			return cid.Undef, err
		}
		l, err := p.pack(ctx, path)
		if err != nil {
			return cid.Undef, err
		}
		l.name = name
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b pbLink) int { return strings.Compare(a.name, b.name) })
	for i := range links[1:] {
		if links[i].name == links[i+1].name {
			return cid.Undef, fmt.Errorf("two of the paths are called %q; rename one, or pack the directory above them", links[i].name)
		}
	}
	root, err := p.putDirectory(links)
	return root.cid, err
}

// lastName returns the name that a path has in its directory.
func lastName(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	name := filepath.Base(abs)
	if checkName(name) != nil {
		return "", fmt.Errorf("%s has no name of its own; give its entries", path)
	}
	return name, nil
}

// pack packs what is at path, and returns a link to it without a name.
func (p *packer) pack(ctx context.Context, path string) (pbLink, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return pbLink{}, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		l, err := p.packFile(ctx, path, info)
		if err != nil {
			return pbLink{}, fmt.Errorf("pack %s: %w", path, err)
		}
		return l, nil
	case mode.IsDir():
		return p.packDirectory(ctx, path)
	case mode.Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return pbLink{}, err
		}
		return p.putNode(nil, unixfsSymlink(target))
	default:
		return pbLink{}, fmt.Errorf("pack %s: it is a %s; only files, directories and symlinks can be packed", path, typeName(mode))
	}
}

// typeName names the type of something that is no file, directory or symlink.
func typeName(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// packDirectory packs a directory and everything below it.
func (p *packer) packDirectory(ctx context.Context, path string) (pbLink, error) {
	if err := ctx.Err(); err != nil {
		return pbLink{}, err
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return pbLink{}, err
	}
	links := make([]pbLink, 0, len(entries))
	for _, e := range entries {
		l, err := p.pack(ctx, filepath.Join(path, e.Name()))
		if err != nil {
			return pbLink{}, err
		}
		l.name = e.Name()
		links = append(links, l)
	}
	return p.putDirectory(links)
}
