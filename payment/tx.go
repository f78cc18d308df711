package payment

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// tx is one transaction. Its first failure sticks: later calls do nothing, and
// whatever was decided on what they returned is discarded by the ledger.
type tx struct {
	ctx      context.Context
	conn     *sql.Conn
	write    *sql.Tx              // nil for one that only reads
	kept     map[string]*sql.Stmt // the ledger's, for write
	want     map[string]struct{}  // what kept should have had; nil: nobody asks
	stmts    map[string]*sql.Stmt // of this transaction
	open     bool                 // without write: to be ended
	unsynced bool                 // the connection was told not to sync
	err      error
}

// commit makes what was written durable. If it fails nothing was written, or
// the outcome is not known; asking again is safe for every decision here.
func (t *tx) commit() error {
	if t.err == nil {
		t.fail(t.write.Commit())
	}
	return t.err
}

// close gives the connection back, undoing what was not committed.
func (t *tx) close() {
	for _, s := range t.stmts {
		_ = s.Close() // what it did is committed or undone by the transaction
	}
	undone := error(nil)
	switch {
	case t.write != nil:
		undone = t.write.Rollback()
	case t.open:
		// The context may have ended: undo without it, or the connection would
		// go back to the pool with a transaction open.
		_, undone = t.conn.ExecContext(context.WithoutCancel(t.ctx), "ROLLBACK")
	}
	if undone != nil && !errors.Is(undone, sql.ErrTxDone) {
		t.discard()
		return
	}
	if t.unsynced {
		if _, err := t.conn.ExecContext(context.WithoutCancel(t.ctx), `PRAGMA synchronous = FULL`); err != nil {
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
	var s *sql.Stmt
	var err error
	if kept := t.kept[query]; kept != nil {
		s = t.write.StmtContext(t.ctx, kept)
	} else if t.write != nil {
		if s, err = t.write.PrepareContext(t.ctx, query); err == nil {
			t.want[query] = struct{}{}
		}
	} else {
		s, err = t.conn.PrepareContext(t.ctx, query)
	}
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
