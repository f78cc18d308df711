// Package turn lets those who write to one database go one after the other.
//
// SQLite has one writer at a time. Whoever finds it at work sleeps and tries
// again, at longer and longer intervals, and one who comes back to back is there
// first every time. Within a process that is mended by waiting in line.
package turn

import (
	"database/sql"
	"runtime"
	"sync"
	"weak"
)

// turns are the turns at databases that somebody holds. They are global because
// those who share a database need not know of each other.
var turns sync.Map // of chan struct{}, by weak.Pointer[sql.DB]

// At returns the turn at writing to db, which is the same for all who ask: a
// channel with room for one token. Whoever has put it there may write, and takes
// it out afterwards. Those who wait are served in the order in which they came. It
// may be called concurrently.
func At(db *sql.DB) chan struct{} {
	key := weak.Make(db)
	t, known := turns.LoadOrStore(key, make(chan struct{}, 1))
	if !known {
		runtime.AddCleanup(db, func(key weak.Pointer[sql.DB]) { turns.Delete(key) }, key)
	}
	return t.(chan struct{})
}
