package piece

import (
	"context"
	"fmt"
	"os"

	"github.com/ipfs/go-cid"
)

// VerifyResult says what VerifyCAR found.
type VerifyResult struct {
	Roots     []cid.Cid
	Blocks    uint64 // sections in the file
	Bytes     uint64 // of their blocks
	Reachable uint64 // different blocks in the DAGs below the roots
}

// VerifyCAR reads the CAR at path, of version 1 or 2, to the end and checks that
// every section is well formed, every block is what its CID names, and the DAGs
// below all roots are in the file. Blocks besides these are allowed.
//
// A malformed section or wrong block gives a *SectionError for the first one
// in the file; what its header should be but is not, ErrNotCAR or
// ErrTruncated; a block that is missing, ErrIncomplete. The result holds what
// was found until then. Memory is some 80 bytes per block.
func VerifyCAR(ctx context.Context, path string) (VerifyResult, error) {
	f, err := openRegular(path)
	if err != nil {
		return VerifyResult{}, err
	}
	defer func() { _ = f.Close() }() // only read
	result, err := verifyCAR(ctx, f)
	if err != nil {
		return result, fmt.Errorf("verify %s: %w", path, err)
	}
	return result, nil
}

func verifyCAR(ctx context.Context, f *os.File) (VerifyResult, error) {
	var result VerifyResult
	info, err := f.Stat()
	if err != nil {
		return result, err
	}
	header, err := readHeader(f, info.Size())
	if err != nil {
		return result, err
	}
	result.Roots = header.roots
	if len(header.roots) == 0 {
		return result, fmt.Errorf("%w: it names no root", ErrIncomplete)
	}
	held := newBlockIndex(func(at int64) (frame, error) { return frameAt(f, at) })
	walker := frameWalker{r: f, end: header.start + header.size, pad: true}
	err = hashFrames(ctx, &walker, header.start+header.body, func(s frame) error {
		result.Blocks++
		result.Bytes += uint64(s.size)
		return held.add(s.cid.Hash(), s.at)
	})
	if err != nil {
		return result, err
	}
	walk := dagWalk{
		load:  func(_ context.Context, c cid.Cid) ([]byte, error) { return loadHeld(f, held, c) },
		visit: func(cid.Cid, []byte) error { result.Reachable++; return nil },
		seen:  newCIDSet(),
	}
	for _, root := range header.roots {
		if err := walk.from(ctx, root); err != nil {
			return result, fmt.Errorf("root %s: %w", root, err)
		}
	}
	return result, nil
}

// loadHeld reads a block from a CAR, or for a raw one, makes sure that it is there.
func loadHeld(f *os.File, held *blockIndex, c cid.Cid) ([]byte, error) {
	at, ok, err := held.find(c.Hash())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("block %s: %w", c, ErrIncomplete)
	}
	if c.Prefix().Codec == cid.Raw {
		return nil, nil
	}
	block := make([]byte, at.size)
	return block, readFull(f, block, at.data())
}
