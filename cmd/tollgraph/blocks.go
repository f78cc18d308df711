package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// blocks keeps what a client receives: one CAR per root, that can be
// continued.
type blocks struct {
	dir string

	mu      sync.Mutex
	arrived map[cid.Cid]arrival // guarded by mu
}

// arrival is what was added to a root's CAR by this process.
type arrival struct{ blocks, bytes uint64 }

// moveTo makes what arrives from now on go to dir. No deal may be running.
func (b *blocks) moveTo(dir string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dir, b.arrived = dir, nil
	return os.MkdirAll(dir, 0o700)
}

// path is where the blocks of root are.
func (b *blocks) path(root cid.Cid) string { return filepath.Join(b.dir, root.String()+".car") }

// Open implements retrievalmarket.Stores. A CAR that is in use, as while an
// earlier order of the same root is written out, is waited for.
func (b *blocks) Open(ctx context.Context, root cid.Cid) (market.Store, error) {
	give := time.NewTimer(openPatience)
	defer give.Stop()
	again := time.NewTicker(openEvery)
	defer again.Stop()
	for {
		p, err := piece.OpenPartial(b.path(root), root)
		if err == nil {
			return &countedPartial{Partial: p, owner: b, blocks: p.Blocks(), bytes: p.Written()}, nil
		}
		if !errors.Is(err, piece.ErrLocked) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-give.C:
			return nil, err
		case <-again.C:
		}
	}
}

// A lock on a file tells nobody when it is free, so it is tried again.
const (
	openPatience = 30 * time.Second
	openEvery    = 50 * time.Millisecond
)

// of returns what arrived for root since b was made.
func (b *blocks) of(root cid.Cid) arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.arrived[root]
}

// add notes what arrived while the CAR of root was open.
func (b *blocks) add(root cid.Cid, a arrival) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.arrived == nil {
		b.arrived = make(map[cid.Cid]arrival)
	}
	sum := b.arrived[root]
	sum.blocks += a.blocks
	sum.bytes += a.bytes
	b.arrived[root] = sum
}

// countedPartial is an open CAR that tells its owner what arrived when it is
// closed.
type countedPartial struct {
	*piece.Partial
	owner         *blocks
	blocks, bytes uint64 // when it was opened
	once          sync.Once
}

// Close closes the CAR. One into which nothing ever came is removed: a CID that
// nobody has leaves nothing behind.
func (p *countedPartial) Close() error {
	p.once.Do(func() {
		p.owner.add(p.Root(), arrival{blocks: p.Blocks() - p.blocks, bytes: p.Written() - p.bytes})
	})
	if p.Blocks() == 0 && p.Discard() == nil {
		return nil
	}
	return p.Partial.Close()
}
