package retrievalmarket

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"time"
)

// maxCommit bounds a transaction of the journal. It does not end with its caller's
// context, because it may carry the records of others.
const maxCommit = 30 * time.Second

// durability says when what is written has to be on disk.
type durability int

const (
	// synced is before the write returns, with everything that was written before:
	// for what is money, or is told to anyone.
	synced durability = iota
	// soon is with the next write that is synced, of whatever to this database: the
	// log of the database is one file, and is synced as a whole. A crash of the
	// process takes nothing back, a power cut may. It is for what the next start
	// finds out again by itself.
	soon
)

// journal writes records: one transaction at a time, with all that wait for it, so
// that deals share what a disk takes to sync. There is no goroutine of its own:
// whoever comes while nobody writes writes for all.
type journal struct {
	db   *sql.DB
	turn chan struct{} // capacity 1; holding its token is the right to write

	mu    sync.Mutex
	queue []*entry // guarded by mu
}

// entry is something to be written. write may be run more than once, each time as
// if the time before had not been.
type entry struct {
	write func(context.Context, *sql.Tx) error
	when  durability
	err   error // valid once done is closed
	done  chan struct{}
}

func newJournal(db *sql.DB) *journal { return &journal{db: db, turn: make(chan struct{}, 1)} }

// do runs write in a transaction, which is on disk as when says when do returns.
func (j *journal) do(ctx context.Context, when durability, write func(context.Context, *sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := &entry{write: write, when: when, done: make(chan struct{})}
	j.mu.Lock()
	j.queue = append(j.queue, e)
	j.mu.Unlock()
	select {
	case j.turn <- struct{}{}:
		j.writeAll()
		<-j.turn
	case <-e.done:
	}
	<-e.done // whoever had the turn may have taken it along
	return e.err
}

// writeAll writes what waits. Where an entry fails each has a transaction of its
// own, so that it fails alone.
func (j *journal) writeAll() {
	j.mu.Lock()
	batch := j.queue
	j.queue = nil
	j.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := j.commit(batch)
	for _, e := range batch {
		if e.err = err; err != nil && len(batch) > 1 {
			e.err = j.commit([]*entry{e})
		}
		close(e.done)
	}
}

// commit writes batch in one transaction.
func (j *journal) commit(batch []*entry) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), maxCommit)
	defer cancel()
	conn, err := j.db.Conn(ctx)
	if err != nil {
		return err
	}
	when := soon
	for _, e := range batch {
		when = min(when, e.when)
	}
	if when == soon {
		defer func() { inFull(conn) }()
		if _, err := conn.ExecContext(ctx, `PRAGMA synchronous = NORMAL`); err != nil {
			return err
		}
	} else {
		defer conn.Close() // it goes back to the pool
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	for _, e := range batch {
		if err := e.write(ctx, tx); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// inFull gives back a connection that syncs every commit, as the others do. One
// that cannot be told so is closed instead.
func inFull(conn *sql.Conn) {
	if _, err := conn.ExecContext(context.Background(), `PRAGMA synchronous = FULL`); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	_ = conn.Close() // a bad one is not kept
}

func wrapStore(id uint64, err error) error {
	if err != nil {
		return fmt.Errorf("deal %d: store: %w", id, err)
	}
	return nil
}
