package payment

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// maxBatch bounds how many decisions share one transaction, and so how long
	// the first of them waits for the last.
	maxBatch = 128
	// maxCommit bounds a transaction, which does not end with its caller's
	// context because it may carry the decisions of others.
	maxCommit = 30 * time.Second
)

// ledger runs decisions against the database: one transaction at a time, all
// decisions that wait in the same one. Whoever comes while nobody writes
// writes for all who wait; there is no goroutine of its own.
type ledger struct {
	db   *sql.DB
	turn chan struct{} // capacity 1; holding its token is the right to write

	mu    sync.Mutex
	queue []*op // guarded by mu; first come first served

	// Owned by whoever has the turn.
	stmts  map[string]*sql.Stmt // prepared for good, on each connection once
	wanted map[string]struct{}  // to be prepared before the next transaction
	synced map[any]struct{}     // the driver's connections that sync every commit
	logged bool                 // the database has a write-ahead log, so that what is not synced does no harm
}

// maxSynced bounds the connections that are remembered; a pool has fewer.
const maxSynced = 64

// op is a decision that waits. decide may be run more than once, each time
// as if the time before had not been.
type op struct {
	decide func(*tx) error
	soon   bool  // it need not be on disk before the next that is
	err    error // what decide or the database said; valid once done is closed
	done   chan struct{}
}

func newLedger(db *sql.DB) *ledger {
	return &ledger{db: db, turn: make(chan struct{}, 1),
		stmts: make(map[string]*sql.Stmt), wanted: make(map[string]struct{}), synced: make(map[any]struct{})}
}

// do returns once decide has run and what it wrote is on disk. If decide refuses
// it must not have written. If ctx ends before decide ran, it never will.
func (l *ledger) do(ctx context.Context, decide func(*tx) error) error {
	return l.run(ctx, &op{decide: decide, done: make(chan struct{})})
}

// soon is do for what a power cut may take back, as long as it takes back all
// that came after it too: it is on disk with the next decision of do, or the next
// commit of whoever else syncs this database, since its log is one file. A crash of
// the process takes nothing back.
func (l *ledger) soon(ctx context.Context, decide func(*tx) error) error {
	return l.run(ctx, &op{decide: decide, soon: true, done: make(chan struct{})})
}

func (l *ledger) run(ctx context.Context, o *op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	l.queue = append(l.queue, o)
	l.mu.Unlock()
	select {
	case <-o.done:
	case l.turn <- struct{}{}:
		l.lead(ctx, o)
	case <-ctx.Done():
		if l.withdraw(o) {
			return ctx.Err()
		}
		<-o.done // its transaction is under way, and bounded by maxCommit
	}
	return o.err
}

// lead commits from the front of the queue until o is done, and gives up the turn.
func (l *ledger) lead(ctx context.Context, o *op) {
	defer func() { <-l.turn }()
	for {
		select {
		case <-o.done:
			return
		default:
			for batch := l.take(); len(batch) > 0; {
				batch = l.attempt(context.WithoutCancel(ctx), batch)
			}
		}
	}
}

func (l *ledger) take() []*op {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.queue), maxBatch)
	batch := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	return batch
}

// withdraw removes o from the queue, and reports false if a leader has taken it.
func (l *ledger) withdraw(o *op) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.queue, o)
	if i < 0 {
		return false
	}
	l.queue = slices.Delete(l.queue, i, i+1)
	return true
}

// attempt runs batch in one transaction and returns the ops that must be run
// again because the database failed under another. Each call finishes an op.
func (l *ledger) attempt(ctx context.Context, batch []*op) (again []*op) {
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	t, err := l.beginWrite(ctx, allSoon(batch))
	if err != nil {
		finish(batch, err)
		return nil
	}
	defer t.close()
	for i, o := range batch {
		o.err = o.decide(t)
		if t.err != nil {
			finish(batch[i:i+1], t.err)
			return slices.Concat(batch[:i], batch[i+1:])
		}
	}
	finish(batch, t.commit())
	return nil
}

func allSoon(ops []*op) bool {
	return !slices.ContainsFunc(ops, func(o *op) bool { return !o.soon })
}

// finish ends ops. What they decided does not hold if the database failed.
func finish(ops []*op, err error) {
	for _, o := range ops {
		if err != nil {
			o.err = err
		}
		close(o.done)
	}
}

// read runs look in a transaction of its own, which sees one state and writes
// nothing.
func (l *ledger) read(ctx context.Context, look func(*tx) error) error {
	t, err := l.begin(ctx)
	if err != nil {
		return err
	}
	t.run("BEGIN")
	if t.open = t.err == nil; !t.open {
		t.close()
		return t.err
	}
	defer t.close()
	if err := look(t); t.err == nil {
		return err
	}
	return t.err
}

// begin takes a connection.
func (l *ledger) begin(ctx context.Context) (*tx, error) {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to payment database: %w", err)
	}
	return &tx{ctx: ctx, conn: conn, stmts: make(map[string]*sql.Stmt)}, nil
}

// takeTurn makes a transaction the one that writes before it reads: what it read
// would otherwise be old when its turn comes, and it would fail.
const takeTurn = `UPDATE payment_policy SET today = today WHERE id = 0`

// beginWrite takes a connection, which is told to sync every commit, however the
// caller opened the database, but for this one if soon, and the turn among processes, for which it waits as
// long as the database's busy_timeout. ctx bounds the waiting for a connection;
// what follows touches a few rows and is not interrupted.
func (l *ledger) beginWrite(ctx context.Context, soon bool) (*tx, error) {
	l.prepareWanted(ctx)
	t, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.sync(t); err != nil {
		t.close()
		return nil, err
	}
	if t.unsynced = soon && l.logged; t.unsynced {
		t.run(`PRAGMA synchronous = NORMAL`)
	}
	if t.err != nil {
		t.close()
		return nil, t.err
	}
	t.write, err = t.conn.BeginTx(context.WithoutCancel(ctx), nil)
	if t.fail(err); err != nil {
		t.close()
		return nil, t.err
	}
	t.ctx, t.kept, t.want = context.WithoutCancel(ctx), l.stmts, l.wanted
	if t.exec(takeTurn); t.err != nil {
		t.close()
		return nil, t.err
	}
	return t, nil
}

// alone runs decide in a transaction of its own, without anything prepared: the
// tables may not be there yet.
func (l *ledger) alone(ctx context.Context, decide func(*tx) error) error {
	t, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	if err := l.sync(t); err != nil {
		return err
	}
	t.run("BEGIN IMMEDIATE")
	if t.open = t.err == nil; !t.open {
		return t.err
	}
	if err := decide(t); err != nil && t.err == nil {
		return err
	}
	t.run("COMMIT")
	t.open = t.err != nil
	return t.err
}

// prepareWanted prepares what earlier transactions used. It must not be called
// while one has a connection: there may be no other. What cannot be prepared
// fails where it is used.
func (l *ledger) prepareWanted(ctx context.Context) {
	for query := range l.wanted {
		if s, err := l.db.PrepareContext(ctx, query); err == nil {
			l.stmts[query] = s
			delete(l.wanted, query)
		}
	}
}

// sync tells the connection of t to sync every commit, once.
func (l *ledger) sync(t *tx) error {
	var key any
	err := t.conn.Raw(func(c any) error { key = c; return nil })
	if err != nil {
		return fmt.Errorf("payment database: %w", err)
	}
	if _, done := l.synced[key]; done {
		return nil
	}
	if len(l.synced) >= maxSynced {
		clear(l.synced)
	}
	if t.run(`PRAGMA synchronous = FULL`); t.err != nil {
		return t.err
	}
	var mode string
	t.fail(t.conn.QueryRowContext(t.ctx, `PRAGMA journal_mode`).Scan(&mode))
	if l.logged = mode == "wal"; t.err == nil {
		l.synced[key] = struct{}{}
	}
	return t.err
}
