package turn

import (
	"database/sql"
	"runtime"
	"testing"
	"time"
	"weak"

	_ "modernc.org/sqlite" // sql.Open wants a driver; nothing is opened
)

func database(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// TestAt: there is one turn for each database, and none is kept for one that
// nobody holds any more.
func TestAt(t *testing.T) {
	a, b := database(t), database(t)
	if At(a) != At(a) || At(a) == At(b) {
		t.Error("not one turn for each database")
	}
	key := weak.Make(b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = nil
	deadline := time.After(10 * time.Second)
	for { // the collector works when it likes
		runtime.GC()
		if _, kept := turns.Load(key); !kept {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the turn of a database that is gone is kept")
		default:
			runtime.Gosched()
		}
	}
	if _, kept := turns.Load(weak.Make(a)); !kept {
		t.Error("the turn of a database that is held is not kept")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
