package piece

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// carCodec is the multicodec of a CAR.
const carCodec = 0x0202

// idOf returns the ID of the piece whose payload has this SHA-256.
func idOf(sum [32]byte) cid.Cid {
	mh, _ := multihash.Encode(sum[:], multihash.SHA2_256) // fails for unknown hash functions only
	return cid.NewCidV1(carCodec, mh)
}

// open opens one candidate as a piece.
func (s *Store) open(ctx context.Context, c candidate) (*piece, error) {
	if c.sealed {
		return s.openSealed(ctx, c)
	}
	f, err := openRegular(c.path)
	if err != nil {
		return nil, err
	}
	p, err := s.openCAR(ctx, c, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

// openRegular opens a file to read it. What is none is not opened: a named pipe
// would be waited for until somebody writes.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	return os.Open(path)
}

var errNotRegular = errors.New("not a regular file")

// openCAR opens the CAR in f, with the index that is there or a new one.
func (s *Store) openCAR(ctx context.Context, c candidate, f *os.File) (*piece, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	h, err := readHeader(f, info.Size())
	if err != nil {
		return nil, err
	}
	path := s.indexPath(c.path)
	idx, file, err := s.openIndex(ctx, path, path)
	switch {
	case err == nil && idx.meta.describes(info) && (idx.meta.verified || s.cfg.SkipVerify):
	case err == nil:
		s.log.Info("piece has changed, indexing it again", "path", c.path)
		_ = file.Close() // read only
		idx, file, err = s.build(ctx, f, h, info, path)
	case errors.Is(err, errNotRenewed): // to read all of the piece would end in the same way
		return nil, err
	default:
		s.log.Info("indexing piece", "path", c.path, "bytes", info.Size(), "reason", err)
		idx, file, err = s.build(ctx, f, h, info, path)
	}
	if err != nil {
		return nil, err
	}
	if idx, file, err = s.withCommP(ctx, f, path, idx, file); err != nil {
		return nil, err
	}
	p := newPiece(c, path, idx, file)
	p.file.Store(&carFile{File: f, start: h.start})
	return p, nil
}

// newPiece returns the piece that an index describes, sealed.
func newPiece(c candidate, path string, idx *index, file *os.File) *piece {
	m := idx.meta
	p := &piece{idx: idx, index: file, path: path, sealed: c.sealed, roots: make(map[key]bool)}
	p.info = Info{
		ID: idOf(m.sum), PieceCID: pieceCID(m.commP), Path: c.path, Size: m.fileSize,
		Blocks: m.blocks, PayloadSize: m.blockSize, Roots: m.roots,
	}
	for _, root := range m.roots {
		p.roots[keyOf(root)] = true
	}
	return p
}

// describes reports whether the index was made from the file that info is of.
func (m indexMeta) describes(info fs.FileInfo) bool {
	return m.fileSize == uint64(info.Size()) && m.fileTime == info.ModTime().UnixNano()
}

// openIndex opens the index file at path. One of an earlier version is written
// anew, to own.
func (s *Store) openIndex(ctx context.Context, path, own string) (*index, *os.File, error) {
	idx, file, err := openIndex(path)
	if !errors.Is(err, errIndexOld) {
		return idx, file, err
	}
	s.log.Info("writing the index anew, it is of an earlier version", "path", path)
	if err := renewIndex(ctx, path, own, s.cfg.IndexDir); errors.Is(err, errIndexDamaged) {
		return nil, nil, err
	} else if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNotRenewed, err)
	}
	return openIndex(own)
}

// errNotRenewed says that a good index of an earlier version could not be written anew.
var errNotRenewed = errors.New("write the index anew")

// openIndex opens an index file of this version.
func openIndex(path string) (*index, *os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	idx, err := readIndex(f, info.Size())
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return idx, f, nil
}

// build makes the index of the CAR in f and opens it.
func (s *Store) build(ctx context.Context, f *os.File, h carHeader, info fs.FileInfo, path string) (*index, *os.File, error) {
	b := newIndexBuilder(s.cfg.IndexDir)
	defer b.Close()
	result, err := scan(ctx, f, h, !s.cfg.SkipVerify, b.section)
	if err != nil {
		return nil, nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	meta := indexMeta{
		fileSize: uint64(info.Size()), fileTime: info.ModTime().UnixNano(), payload: uint64(h.size),
		sections: result.sections, verified: !s.cfg.SkipVerify, sum: result.sum, roots: h.roots,
	}
	if !meta.describes(after) {
		return nil, nil, errors.New("file changes while it is read; finish it and start again")
	}
	if err := b.write(ctx, path, meta); err != nil {
		return nil, nil, err
	}
	s.built.Add(1)
	return openIndex(path)
}

// section takes one section of a CAR. Blocks inside their own CIDs need no record.
func (b *indexBuilder) section(sec section) error {
	if sec.cid.Prefix().MhType == multihash.IDENTITY {
		return nil
	}
	if sec.cidLen > maxRecordCID {
		return &SectionError{Offset: sec.at, Block: sec.cid.String(), Err: fmt.Errorf("CID of %d bytes, at most %d are allowed", sec.cidLen, maxRecordCID)}
	}
	return b.add(record{key: keyOf(sec.cid), off: sec.off, cidLen: sec.cidLen, size: sec.size})
}

// readFull reads exactly len(b) bytes at off.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return cutShort(err)
	}
	return nil
}
