package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
)

// TestJournalShares says that what waits shares a transaction, that one that fails
// fails alone, and that all of it is there afterwards.
func TestJournalShares(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	j := newJournal(db)
	const many = 50
	j.turn <- struct{}{} // somebody writes
	var done sync.WaitGroup
	errs := make([]error, many)
	for i := range many {
		done.Go(func() {
			errs[i] = j.do(ctx, synced, func(ctx context.Context, tx *sql.Tx) error {
				if i == 7 {
					return errNothingHere
				}
				_, err := tx.ExecContext(ctx, `INSERT INTO provider_lanes VALUES ('c', ?, 1)`, i)
				return err
			})
		})
	}
	for waiting := 0; waiting < many; { // they have no other way to say that they wait
		j.mu.Lock()
		waiting = len(j.queue)
		j.mu.Unlock()
	}
	<-j.turn
	done.Wait()
	for i, err := range errs {
		if i == 7 != errors.Is(err, errNothingHere) || i != 7 && err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	var n int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM provider_lanes`).Scan(&n); err != nil || n != many-1 {
		t.Errorf("%d of %d are there: %v", n, many-1, err)
	}
}

var errNothingHere = errors.New("nothing is written here")

// TestJournalSyncs says that a connection which was told not to sync does not go
// back as that, and that what was written on it is seen at once.
func TestJournalSyncs(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	db.SetMaxOpenConns(1)
	j := newJournal(db)
	for i, fails := range []bool{false, true} {
		var level int
		err := j.do(ctx, soon, func(ctx context.Context, tx *sql.Tx) error {
			if err := tx.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&level); err != nil || fails {
				return errors.Join(err, errNothingHere)
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO provider_lanes VALUES ('c', ?, 1)`, i)
			return err
		})
		if fails != errors.Is(err, errNothingHere) || level != 1 {
			t.Errorf("soon: %v, written at level %d", err, level)
		}
		if err := db.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&level); err != nil || level != 2 {
			t.Errorf("afterwards the connection syncs at level %d: %v", level, err)
		}
	}
	var n int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM provider_lanes`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d entries are there: %v", n, err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if err := j.do(ended, soon, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("for one that has left: %v", err)
	}
}
