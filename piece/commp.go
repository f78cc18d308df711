package piece

import (
	"context"
	"fmt"
	"io"
	"os"

	commp "github.com/filecoin-project/go-fil-commp-hashhash"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const (
	commPCodec  = 0xf101 // fil-commitment-unsealed
	commPHash   = 0x1012 // sha2-256-trunc254-padded
	commPFewest = 65     // bytes of the shortest file that has a CommP
)

// pieceCID returns the Filecoin piece CID of a CommP, cid.Undef if there is none.
func pieceCID(digest [32]byte) cid.Cid {
	if digest == ([32]byte{}) {
		return cid.Undef
	}
	mh, _ := multihash.Encode(digest[:], commPHash) // fails for unknown hash functions only
	return cid.NewCidV1(commPCodec, mh)
}

// withCommP returns the index with the piece's CommP in it if it is configured,
// which may mean to read the piece once more and to write the index again.
func (s *Store) withCommP(ctx context.Context, car *os.File, path string, idx *index, file *os.File) (*index, *os.File, error) {
	if !s.cfg.PieceCID || idx.meta.commP != ([32]byte{}) || idx.meta.fileSize < commPFewest {
		return idx, file, nil
	}
	defer file.Close() // read only; replaced by the new one
	digest, err := commPOf(ctx, io.NewSectionReader(car, 0, int64(idx.meta.fileSize)))
	if err != nil {
		return nil, nil, fmt.Errorf("piece CID: %w", err)
	}
	b := newIndexBuilder(s.cfg.IndexDir)
	defer b.Close()
	if err := idx.each(during(ctx, b.add)); err != nil {
		return nil, nil, err
	}
	meta := idx.meta
	meta.commP, meta.blocks, meta.blockSize = digest, 0, 0
	if err := b.write(ctx, path, meta); err != nil {
		return nil, nil, err
	}
	return openIndex(path)
}

// commPOf reads r to its end.
func commPOf(ctx context.Context, r io.Reader) (out [32]byte, err error) {
	calc := new(commp.Calc)
	buf := make([]byte, 1<<20)
	if _, err := io.CopyBuffer(struct{ io.Writer }{calc}, contextReader{ctx, r}, buf); err != nil {
		calc.Reset() // ends its goroutines
		return out, err
	}
	digest, _, err := calc.Digest()
	if err != nil {
		return out, err
	}
	copy(out[:], digest)
	return out, nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
