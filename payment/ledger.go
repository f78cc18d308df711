package payment

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
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
	turn chan struct{} // capacity 1; holding its one token is the right to write

	mu    sync.Mutex
	queue []*op // guarded by mu; first come first served
}

// op is a decision that waits. decide may be run more than once, each time
// as if the time before had not been.
type op struct {
	decide func(*tx) error
	err    error // what decide or the database said; valid once done is closed
	done   chan struct{}
}

func newLedger(db *sql.DB) *ledger {
	return &ledger{db: db, turn: make(chan struct{}, 1)}
}

// do returns once decide has run and what it wrote is on disk. If decide refuses
// it must not have written. If ctx ends before decide ran, it never will.
func (l *ledger) do(ctx context.Context, decide func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &op{decide: decide, done: make(chan struct{})}
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
	t, err := l.begin(ctx, "BEGIN IMMEDIATE")
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
	t, err := l.begin(ctx, "BEGIN")
	if err != nil {
		return err
	}
	defer t.close()
	if err := look(t); t.err == nil {
		return err
	}
	return t.err
}

// tx is one transaction. Its first failure sticks: later calls do nothing, and
// whatever was decided on what they returned is discarded by the ledger.
type tx struct {
	ctx   context.Context
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // prepared once for all decisions of a batch
	open  bool
	err   error
}

// begin takes a connection and begins. The connection is told to sync every
// commit, however the caller opened the database.
func (l *ledger) begin(ctx context.Context, how string) (*tx, error) {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to payment database: %w", err)
	}
	t := &tx{ctx: ctx, conn: conn, stmts: make(map[string]*sql.Stmt)}
	t.run(`PRAGMA synchronous = FULL`)
	t.run(how)
	t.open = t.err == nil
	if !t.open {
		t.close()
		return nil, t.err
	}
	return t, nil
}

// commit makes what was written durable. If it fails nothing was written, or
// the outcome is not known; asking again is safe for every decision here.
func (t *tx) commit() error {
	t.run("COMMIT")
	t.open = t.err != nil
	return t.err
}

// close gives the connection back, undoing what was not committed.
func (t *tx) close() {
	for _, s := range t.stmts {
		_ = s.Close() // what it did is committed or undone by the transaction
	}
	if t.open {
		t.open = false
		// The context may have ended: undo without it, or the connection would
		// go back to the pool with a transaction open.
		if _, err := t.conn.ExecContext(context.WithoutCancel(t.ctx), "ROLLBACK"); err != nil {
			t.discard()
			return
		}
	}
	// A connection that cannot be given back is closed by the pool.
	_ = t.conn.Close()
}

// discard closes a connection whose state is not known instead of giving it
// back. Some failures (disk full) have rolled back already, which is no harm.
func (t *tx) discard() {
	_ = t.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = t.conn.Close()
}

// run executes a script that is not worth preparing.
func (t *tx) run(script string) {
	if t.err == nil {
		_, err := t.conn.ExecContext(t.ctx, script)
		t.fail(err)
	}
}

func (t *tx) exec(query string, args ...any) {
	if s := t.prepare(query); s != nil {
		_, err := s.ExecContext(t.ctx, args...)
		t.fail(err)
	}
}

// row scans the first row into dest, and reports whether there was one.
func (t *tx) row(query string, args []any, dest ...any) bool {
	s := t.prepare(query)
	if s == nil {
		return false
	}
	err := s.QueryRowContext(t.ctx, args...).Scan(dest...)
	if !errors.Is(err, sql.ErrNoRows) {
		t.fail(err)
	}
	return err == nil
}

// rows scans every row into dest and calls each after each.
func (t *tx) rows(query string, args []any, dest []any, each func()) {
	s := t.prepare(query)
	if s == nil {
		return
	}
	rows, err := s.QueryContext(t.ctx, args...)
	if err != nil {
		t.fail(err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			t.fail(err)
			return
		}
		each()
	}
	t.fail(rows.Err())
}

// prepare returns nil if the transaction is lost.
func (t *tx) prepare(query string) *sql.Stmt {
	if t.err != nil {
		return nil
	}
	if s := t.stmts[query]; s != nil {
		return s
	}
	s, err := t.conn.PrepareContext(t.ctx, query)
	if t.fail(err); err != nil {
		return nil
	}
	t.stmts[query] = s
	return s
}

func (t *tx) fail(err error) {
	if err != nil && t.err == nil {
		t.err = fmt.Errorf("payment database: %w", err)
	}
}
