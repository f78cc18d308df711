package transport

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ByteBudget is a Budget that lets each peer be so many bytes ahead of the
// store that takes its blocks. It counts what comes in (Admit, called by the
// network) and what is stored (LinkSystem). So it also knows when the memory of
// a message may be used again.
//
// Blocks that graphsync drops unstored, because their request was cancelled
// or they were there already, cannot be seen. They stay on the account until
// it is full and nothing was stored for Patience; then it starts from zero.
type ByteBudget struct {
	limit    int
	patience time.Duration

	mu    sync.Mutex              // guards the fields below
	peers map[peer.ID]*peerBudget // peers with a reader waiting or bytes held
	lent  map[*byte]*loan         // blocks that whoever stores them may give back, by their first byte
	loans []*loan                 // the newest maxLoans, in order
}

type peerBudget struct {
	held  int           // bytes admitted and not stored
	moved chan struct{} // closed and replaced when held shrinks
}

// maxLoans is how many buffers are known to be lent, of all peers together. Blocks that
// nobody stores, as anybody can send them, would keep their buffers for ever; what was
// lent before these is left to the collector.
const maxLoans = 64

// A loan is a buffer that comes back when its blocks were stored. The budget's mu guards it.
type loan struct {
	buf    *buffer // nil when it came back, or is not waited for any more
	firsts []*byte // of its blocks
}

// NewByteBudget returns a budget of limit bytes per peer. A message is let in
// alone, however big it is. patience is as in ByteBudget; 0 is 5 seconds. A
// disk that takes longer than that for one block lets the peer get ahead by
// another limit each time.
func NewByteBudget(limit int, patience time.Duration) *ByteBudget {
	if patience <= 0 {
		patience = 5 * time.Second
	}
	return &ByteBudget{limit: limit, patience: patience, peers: make(map[peer.ID]*peerBudget), lent: make(map[*byte]*loan)}
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

// lend notes which blocks of a message that was admitted are given back when they
// are stored.
func (b *ByteBudget) lend(m gsmsg.GraphSyncMessage, buf *buffer) {
	blks := leaves(m)
	if len(blks) == 0 {
		return
	}
	l := &loan{buf: buf}
	b.mu.Lock()
	defer b.mu.Unlock()
	buf.blocks = len(blks)
	for _, blk := range blks {
		first := &blk.RawData()[0]
		b.lent[first] = l
		l.firsts = append(l.firsts, first)
	}
	if b.loans = append(b.loans, l); len(b.loans) > maxLoans {
		b.writeOff(b.loans[0])
		b.loans = b.loans[1:]
	}
}

// writeOff forgets a loan. mu is held.
func (b *ByteBudget) writeOff(l *loan) {
	for _, first := range l.firsts {
		delete(b.lent, first)
	}
	l.buf, l.firsts = nil, nil
}

// stored takes a block of n bytes off the account of from, and returns the loan that it
// is of, nil if it was not lent.
func (b *ByteBudget) stored(from peer.ID, n int, first *byte) *loan {
	b.mu.Lock()
	l := b.lent[first]
	delete(b.lent, first)
	b.mu.Unlock()
	b.release(from, n)
	return l
}

// giveBack says that one block of a loan is held no more. l may be nil.
func (b *ByteBudget) giveBack(l *loan) {
	if l == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.buf != nil && l.buf.giveBack() {
		l.buf, l.firsts = nil, nil
	}
}

// LinkSystem returns ls with a StorageWriteOpener that takes what it stores
// off the account of from. Use it for requests to from.
func (b *ByteBudget) LinkSystem(ls ipld.LinkSystem, from peer.ID) ipld.LinkSystem {
	open := ls.StorageWriteOpener
	if open == nil {
		return ls
	}
	var walked atomic.Pointer[loan] // of the last block, which is walked when it has been stored
	ls.StorageWriteOpener = func(lc ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		b.giveBack(walked.Swap(nil)) // the walk has come to the next one
		w, commit, err := open(lc)
		if err != nil {
			return nil, nil, err
		}
		counted := &countedWriter{Writer: w}
		var out io.Writer = counted
		borrower, borrows := w.(bytesBorrower)
		if setter, ok := w.(bytesSetter); borrows {
			out = &countedSetter{counted, borrower.BorrowBytes}
		} else if ok {
			out = &countedSetter{counted, setter.SetBytes}
		}
		return out, func(l datamodel.Link) error {
			err := commit(l)
			if lent := b.stored(from, counted.n, counted.first); borrows && err == nil {
				walked.Store(lent)
			}
			return err
		}, nil
	}
	return ls
}

// bytesSetter is a block writer that takes a block in one piece and keeps it.
// Graphsync prefers it to Write.
type bytesSetter interface{ SetBytes([]byte) error }

// bytesBorrower is one that holds it only until it is committed.
type bytesBorrower interface{ BorrowBytes([]byte) error }

// countedWriter counts a block, and knows it by its first byte.
type countedWriter struct {
	io.Writer
	n     int
	first *byte
}

func (w *countedWriter) count(p []byte) {
	if w.n == 0 && len(p) > 0 {
		w.first = &p[0]
	}
	w.n += len(p)
}

func (w *countedWriter) Write(p []byte) (int, error) {
	w.count(p)
	return w.Writer.Write(p)
}

type countedSetter struct {
	*countedWriter
	set func([]byte) error
}

func (w *countedSetter) SetBytes(p []byte) error {
	w.count(p)
	return w.set(p)
}
