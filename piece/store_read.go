package piece

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	_ "github.com/ipld/go-codec-dagpb" // blocks of these codecs can be walked
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	_ "github.com/ipld/go-ipld-prime/codec/dagjson"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// Find returns the piece from which to sell what begins at payload, which may be
// any block. If id is given, by ID or CommP, it is that piece or none. Else a
// piece at hand comes before a sealed one, and one that has payload as a root
// before one that holds it somewhere. An identity CID is found where all blocks
// are that it links to. Find does not wait for anything but a read of an index,
// which the system almost always holds in memory.
func (s *Store) Find(payload cid.Cid, id *cid.Cid) (Info, bool) {
	if !payload.Defined() {
		return Info{}, false
	}
	wanted, ok := wants(payload)
	if !ok {
		return Info{}, false
	}
	if id != nil {
		p, ok := s.byID[*id]
		if !ok || !s.holds(p, wanted, []*piece{p}) {
			return Info{}, false
		}
		return p.state(), true
	}
	root := keyOf(payload)
	var best *piece
	bestRank := -1
	for _, p := range s.pieces {
		rank := 0
		if p.file.Load() != nil {
			rank += 2
		}
		if p.roots[root] {
			rank++
		}
		if rank > bestRank && s.holds(p, wanted, s.pieces) {
			best, bestRank = p, rank
		}
	}
	if best == nil {
		return Info{}, false
	}
	return best.state(), true
}

// holds reports whether p, one of those that are asked, has all of keys.
func (s *Store) holds(p *piece, keys []key, asked []*piece) bool {
	for _, k := range keys {
		if _, ok := s.lookup(p, k, asked); !ok {
			return false
		}
	}
	return true
}

// lookup finds a block in a piece, one of those that are asked. Where it is the only
// one it will have the block, and the filter is not worth a line of memory.
func (s *Store) lookup(p *piece, k key, asked []*piece) (record, bool) {
	if len(asked) > 1 && p.idx.lacks(k) {
		return record{}, false
	}
	r, ok, err := p.idx.find(k)
	if err != nil {
		s.damage(p, err)
	}
	return r, ok && err == nil
}

// damage takes note that the index of p cannot be read: once, and it is removed, so
// that the next Open makes it again.
func (s *Store) damage(p *piece, err error) {
	if errors.Is(err, os.ErrClosed) || !p.damaged.CompareAndSwap(false, true) {
		return
	}
	s.problem(p.info.Path, fmt.Errorf("%w in part; it is made again at the next start", err), true)
	s.log.Error("index is damaged, start again to make it again", "path", p.path, "err", err)
	if !p.sealed { // of a sealed piece it is the only one
		_ = os.Remove(p.path) // if it stays, it is reported again
	}
}

// readFilters brings the filters into memory, one after the other, beside serving:
// until one is there its piece is asked itself.
func (s *Store) readFilters() {
	for _, p := range s.pieces {
		if s.closed.Load() {
			return
		}
		if err := p.idx.readFilter(); err != nil {
			s.damage(p, err)
		}
	}
}

// Size returns the length in bytes of the block of c, from the index alone.
func (s *Store) Size(c cid.Cid) (uint64, bool) {
	if !c.Defined() {
		return 0, false
	}
	if data, ok := identity(c); ok {
		return uint64(len(data)), true
	}
	k := keyOf(c)
	for _, p := range s.pieces {
		if r, ok := s.lookup(p, k, s.pieces); ok {
			return uint64(r.size), true
		}
	}
	return 0, false
}

// LinkSystem returns a link system that reads the blocks of one piece, by ID or
// CommP, or with cid.Undef those of all pieces at hand. It cannot write. It
// trusts what was verified when the piece was indexed and does not hash again.
// Its readers are *bytes.Buffer, which graphsync uses without a copy. Selections
// that speak of UnixFS (byte ranges, names in sharded directories) can be walked.
func (s *Store) LinkSystem(id cid.Cid) ipld.LinkSystem {
	from := s.pieces
	if id.Defined() {
		from = nil
		if p, ok := s.byID[id]; ok {
			from = []*piece{p}
		}
	}
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, link ipld.Link) (r io.Reader, err error) {
		defer func() {
			// A panic here would end the process from graphsync's goroutine.
			if p := recover(); p != nil {
				r, err = nil, fmt.Errorf("read %v: %v", link, p)
				s.log.Error("panic while reading a block", "link", link, "panic", p)
			}
		}()
		c, err := linkCID(link)
		if err != nil {
			return nil, err
		}
		data, err := s.block(from, c)
		if err != nil {
			return nil, err
		}
		return bytes.NewBuffer(data), nil
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		return nil, nil, errors.New("pieces cannot be written to")
	}
	unixfsnode.AddUnixFSReificationToLinkSystem(&ls)
	return ls
}

// Get returns the block of c from any piece at hand. The caller owns it.
func (s *Store) Get(c cid.Cid) ([]byte, error) { return s.block(s.pieces, c) }

// block reads the block of c from the first of the pieces that has it.
func (s *Store) block(from []*piece, c cid.Cid) ([]byte, error) {
	if !c.Defined() {
		return nil, fmt.Errorf("block without a CID: %w", ErrNotFound)
	}
	if data, ok := identity(c); ok {
		return data, nil
	}
	missing := ErrNotFound
	k := keyOf(c)
	for _, p := range from {
		r, ok := s.lookup(p, k, from)
		if !ok {
			continue
		}
		f := p.file.Load()
		if f == nil {
			missing = ErrSealed
			continue
		}
		data, err := f.block(c, r)
		if err != nil {
			s.log.Error("piece cannot be read", "path", p.info.Path, "block", c, "err", err)
			missing = fmt.Errorf("%s: %w", p.info.Path, err)
			continue
		}
		return data, nil
	}
	return nil, fmt.Errorf("block %s: %w", c, missing)
}

// block reads a block and compares the CID before it, which catches a file that
// was changed in place.
func (f *carFile) block(c cid.Cid, r record) ([]byte, error) {
	buf := make([]byte, r.cidLen+r.size)
	if err := readFull(f, buf, f.start+r.off); err != nil {
		return nil, err
	}
	if mh := hashOf(c); len(mh) > r.cidLen || string(buf[r.cidLen-len(mh):r.cidLen]) != mh {
		return nil, errors.New("file was changed while it is served; start again")
	}
	return buf[r.cidLen:], nil
}
