package retrievalmarket

import (
	"context"
	"database/sql/driver"
	"errors"
	mrand "math/rand/v2"
	"sync"
	"time"

	"modernc.org/sqlite"
)

// busyTimeout is how long a connection waits for those of other processes, and
// sqliteBusy what SQLite says when it does not: SQLITE_BUSY.
const (
	busyTimeout = 10 * time.Second
	sqliteBusy  = 5
)

// inLine connects to a database whose write transactions wait for each other in
// line. SQLite has one writer at a time: whoever finds it at work sleeps and tries
// again, at longer and longer intervals, and one who comes back to back is there
// first every time. Writers in other processes still do that.
type inLine struct {
	driver driver.Driver
	source string
	turn   chan struct{} // capacity 1; its token is the right to begin
}

var _ driver.Connector = (*inLine)(nil)

func (l *inLine) Driver() driver.Driver { return l.driver }

// Connect opens a connection. Of processes that make a database at the same time one may
// be told at once that it is busy: SQLite waits for nobody when it makes the log. It
// tries again, for as long as it waits for anything else.
func (l *inLine) Connect(ctx context.Context) (driver.Conn, error) {
	for start := time.Now(); ; {
		c, err := l.driver.Open(l.source)
		if err == nil {
			return &lineConn{c.(sqliteConn), l.turn}, nil
		}
		busy := (*sqlite.Error)(nil)
		if !errors.As(err, &busy) || busy.Code()&0xff != sqliteBusy || time.Since(start) > busyTimeout {
			return nil, err
		}
		select {
		case <-time.After(mrand.N(10 * time.Millisecond)):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// sqliteConn is what database/sql makes use of in a connection to SQLite.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type lineConn struct {
	sqliteConn
	turn chan struct{}
}

// BeginTx waits for its turn. A transaction that only reads needs none.
func (c *lineConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts.ReadOnly {
		return c.sqliteConn.BeginTx(ctx, opts)
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tx, err := c.sqliteConn.BeginTx(ctx, opts)
	if err != nil {
		<-c.turn
		return nil, err
	}
	return &lineTx{Tx: tx, turn: c.turn}, nil
}

// lineTx gives up its turn at its end, however it ends.
type lineTx struct {
	driver.Tx
	turn chan struct{}
	over sync.Once
}

func (t *lineTx) Commit() error {
	defer t.end()
	return t.Tx.Commit()
}

func (t *lineTx) Rollback() error {
	defer t.end()
	return t.Tx.Rollback()
}

func (t *lineTx) end() { t.over.Do(func() { <-t.turn }) }
