package transport

import (
	"io"
	"sync"
	"time"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ByteBudget is a Budget that lets each peer be so many bytes ahead of the
// store that takes its blocks. It counts what comes in (Admit, called by the
// network) and what is stored (LinkSystem).
//
// Blocks that graphsync drops unstored, because their request was cancelled
// or they were there already, cannot be seen. They stay on the account until
// it is full and nothing was stored for Patience; then it starts from zero.
type ByteBudget struct {
	limit    int
	patience time.Duration

	mu    sync.Mutex
	peers map[peer.ID]*peerBudget // guarded by mu; peers with a reader waiting or bytes held
}

type peerBudget struct {
	held  int           // bytes admitted and not stored
	moved chan struct{} // closed and replaced when held shrinks
}

// NewByteBudget returns a budget of limit bytes per peer. A message is let in
// alone, however big it is. patience is as in ByteBudget; 0 is 5 seconds. A
// disk that takes longer than that for one block lets the peer get ahead by
// another limit each time.
func NewByteBudget(limit int, patience time.Duration) *ByteBudget {
	if patience <= 0 {
		patience = 5 * time.Second
	}
	return &ByteBudget{limit: limit, patience: patience, peers: make(map[peer.ID]*peerBudget)}
}

// Admit implements Budget. It never fails.
func (b *ByteBudget) Admit(from peer.ID, n int) error {
	for {
		moved := b.tryAdmit(from, n)
		if moved == nil {
			return nil
		}
		timer := time.NewTimer(b.patience)
		select {
		case <-moved:
			timer.Stop()
		case <-timer.C:
			b.release(from, b.Held(from))
		}
	}
}

// tryAdmit returns nil if n bytes are on the account, else what to wait for.
func (b *ByteBudget) tryAdmit(from peer.ID, n int) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[from]
	if p == nil {
		p = &peerBudget{moved: make(chan struct{})}
		b.peers[from] = p
	}
	if p.held > 0 && p.held+n > b.limit {
		return p.moved
	}
	p.held += n
	return nil
}

// release takes n bytes off the account of from, which never falls below 0.
func (b *ByteBudget) release(from peer.ID, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[from]
	if p == nil || n == 0 {
		return
	}
	close(p.moved)
	p.moved = make(chan struct{})
	if p.held -= n; p.held <= 0 {
		delete(b.peers, from)
	}
}

// Held returns how many bytes of from are admitted and not stored.
func (b *ByteBudget) Held(from peer.ID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[from]; p != nil {
		return p.held
	}
	return 0
}

// LinkSystem returns ls with a StorageWriteOpener that takes what it stores
// off the account of from. Use it for requests to from.
func (b *ByteBudget) LinkSystem(ls ipld.LinkSystem, from peer.ID) ipld.LinkSystem {
	open := ls.StorageWriteOpener
	if open == nil {
		return ls
	}
	ls.StorageWriteOpener = func(lc ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		w, commit, err := open(lc)
		if err != nil {
			return nil, nil, err
		}
		counted := &countedWriter{Writer: w}
		var out io.Writer = counted
		if s, ok := w.(bytesSetter); ok {
			out = &countedSetter{countedWriter: counted, set: s}
		}
		return out, func(l datamodel.Link) error {
			defer func() { b.release(from, counted.n) }()
			return commit(l)
		}, nil
	}
	return ls
}

// bytesSetter is a block writer that takes a block in one piece and keeps it.
// Graphsync prefers it to Write.
type bytesSetter interface{ SetBytes([]byte) error }

type countedWriter struct {
	io.Writer
	n int
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.n += n
	return n, err
}

type countedSetter struct {
	*countedWriter
	set bytesSetter
}

func (w *countedSetter) SetBytes(p []byte) error {
	w.n += len(p)
	return w.set.SetBytes(p)
}
