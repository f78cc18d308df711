package piece

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
)

var (
	// ErrLocked says that a file is being received into already, by this process
	// or another.
	ErrLocked = errors.New("in use by another transfer")
	// ErrOtherRoot says that a file is not the CAR of the wanted root. It is left
	// as it is; choose another path, or remove the file.
	ErrOtherRoot = errors.New("not the CAR of this root")
	// errClosed says that a Partial is used after Close.
	errClosed = fmt.Errorf("partial CAR: %w", fs.ErrClosed)
)

// Partial is a CARv1 that is being received: blocks are appended as they come,
// and it can be closed, or its process killed, at any moment and be continued
// later. Appended blocks are handed to the operating system at once, so they
// survive the process; Sync makes them survive the machine.
//
// Beside the file, Sync keeps a mark (path + ".mark") of what is durable. Opening
// believes the sections up to the mark, hashes every block behind it, and cuts
// the file at the first one that is torn or wrong. A lost mark costs time only.
//
// All methods may be called concurrently. Bytes in the sense of Written are the
// bytes of blocks, without the heads of sections.
type Partial struct {
	path string
	root cid.Cid
	file partialFile
	lock *os.File
	mark *mark
	held *blockIndex

	// syncing guards the two fields below, and is taken before write. It is held
	// across the sync, so that the mark only grows.
	syncing  sync.Mutex
	durable  int64  // offset up to which the file is on disk
	promised uint64 // written at durable

	// write guards the fields below. It is held across the append, which gives
	// the file its order, and not across the sync.
	write   sync.Mutex
	end     int64  // where the next section goes
	written uint64 // bytes of blocks up to end
	blocks  uint64 // sections up to end
	once    int64  // a block at or behind this offset is not appended again; 0: any block is
	torn    bool   // there may be bytes behind end
	failed  error  // set for good by Close and by a failed sync
	scratch []byte // the head of a section, and a small block behind it
}

// partialFile is what a Partial asks of its file. An *os.File is one.
type partialFile interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// OpenPartial opens the CAR of root at path to receive blocks into it, and
// creates it if there is none. What a crash left torn at its end is cut off. It
// returns ErrLocked if the file is open already, and ErrOtherRoot if it is
// anything else than a CAR with this one root.
func OpenPartial(path string, root cid.Cid) (*Partial, error) {
	if !root.Defined() {
		return nil, fmt.Errorf("open %s: a CAR needs a root", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	p, err := openPartial(path, root, f, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return p, nil
}

// openPartial makes a Partial of a locked file, which is read and written
// through file.
func openPartial(path string, root cid.Cid, lock *os.File, file partialFile) (*Partial, error) {
	info, err := lock.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	p := &Partial{path: path, root: root, file: file, lock: lock, mark: &mark{path: path + ".mark", info: info}}
	p.held = newBlockIndex(func(at int64) (frame, error) { return frameAt(file, at) })
	header := headerFor(root)
	fresh, err := checkHeader(file, info.Size(), header)
	if err != nil {
		return nil, err
	}
	if fresh {
		return p, p.create(header)
	}
	return p, p.recover(int64(len(header)), info.Size())
}

// checkHeader reports whether a file is so fresh that its header has yet to be
// written: it is empty, or a crash left a part of the header, or nothing but zeros.
func checkHeader(r io.ReaderAt, size int64, header []byte) (fresh bool, err error) {
	found := make([]byte, min(size, int64(len(header))))
	if n, err := r.ReadAt(found, 0); n < len(found) {
		return false, fmt.Errorf("read header: %w", err)
	}
	switch {
	case bytes.Equal(found, header):
		return false, nil
	case size <= int64(len(header)) && (bytes.HasPrefix(header, found) || len(bytes.Trim(found, "\x00")) == 0):
		return true, nil
	}
	return false, ErrOtherRoot
}

// create writes the header and makes the file's existence durable.
func (p *Partial) create(header []byte) error {
	// A mark of a file that was removed must not vouch for this one.
	if err := p.mark.remove(); err != nil {
		return err
	}
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	if _, err := p.file.WriteAt(header, 0); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	p.end, p.durable = int64(len(header)), int64(len(header))
	return syncDir(filepath.Dir(p.path))
}

// Root returns the root in the header.
func (p *Partial) Root() cid.Cid { return p.root }

// Path returns the path that the file was opened with.
func (p *Partial) Path() string { return p.path }

// Written returns the bytes of all blocks in the file. A block that was
// appended twice counts twice; see Once.
func (p *Partial) Written() uint64 {
	p.write.Lock()
	defer p.write.Unlock()
	return p.written
}

// Blocks returns the number of blocks in the file, counted like Written.
func (p *Partial) Blocks() uint64 {
	p.write.Lock()
	defer p.write.Unlock()
	return p.blocks
}

// Has reports whether the block of c is held. Blocks are the same if their
// multihashes are; an identity CID is its own block. An index that cannot be
// read says no: the block is then fetched once more.
func (p *Partial) Has(c cid.Cid) bool {
	if _, ok := identity(c); ok {
		return true
	}
	_, ok, err := p.held.find(c.Hash())
	return ok && err == nil
}

// Get returns the block of c, which the caller owns. The error is
// format.ErrNotFound if it is not held.
func (p *Partial) Get(c cid.Cid) ([]byte, error) {
	if data, ok := identity(c); ok {
		return data, nil
	}
	if c.Defined() && bytes.Equal(c.Hash(), emptyHash) {
		return []byte{}, nil
	}
	f, ok, err := p.held.find(c.Hash())
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", c, err)
	}
	if !ok {
		return nil, format.ErrNotFound{Cid: c}
	}
	data := make([]byte, f.size)
	if n, err := p.file.ReadAt(data, f.data()); n < len(data) {
		return nil, fmt.Errorf("block %s: read: %w", c, err)
	}
	return data, nil
}

// emptyHash is the SHA-256 multihash of no bytes. Its block, which an empty file
// has, is known without being held: graphsync cannot carry it.
var emptyHash, _ = multihash.Sum(nil, multihash.SHA2_256, -1) // cannot fail: the hash is built in

// identity returns the block that an identity CID carries.
func identity(c cid.Cid) ([]byte, bool) {
	if !c.Defined() || c.Prefix().MhType != multihash.IDENTITY {
		return nil, false
	}
	decoded, err := multihash.Decode(c.Hash())
	if err != nil {
		return nil, false
	}
	return bytes.Clone(decoded.Digest), true
}
