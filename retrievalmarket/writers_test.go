package retrievalmarket

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// TestOpenTogether: processes that make a database at the same time all open it.
func TestOpenTogether(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "db")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				db, err := OpenDatabase(path)
				if err != nil {
					t.Error(err)
					return
				}
				_ = db.Close()
			})
		}
		all.Wait()
	}
}

// TestWritersInLine: write transactions of one process come through in the order
// in which they came, beside those that only read, and nobody waits for one who
// gave up. SQLite by itself would let them sleep and try again.
func TestWritersInLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenDatabase(path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		first, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var came []int
		for n := range 4 {
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			go func() {
				tx, err := db.BeginTx(ctx, nil)
				if n == 1 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("one who gave up: %v", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				came = append(came, n)
				if err := tx.Commit(); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
			if n == 1 {
				giveUp()
			}
		}
		if len(came) != 0 {
			t.Errorf("%v did not wait", came)
		}
		var one int
		if err := db.QueryRowContext(t.Context(), `SELECT 1`).Scan(&one); err != nil {
			t.Errorf("a reader: %v", err)
		}
		if err := first.Rollback(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !slices.Equal(came, []int{0, 2, 3}) {
			t.Errorf("they came through as %v", came)
		}
	})
}
