package retrievalmarket

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"modernc.org/sqlite"
)

// maxConns is more than there are writers, who wait for each other with a
// connection in hand: a client's and a provider's records, wallet, till and pruning.
const maxConns = 8

// OpenDatabase opens or makes the one database of a node: SQLite with a
// write-ahead log, every commit on disk before it returns, one writer at a
// time, in line. Close it after the market and the payment room that use it.
func OpenDatabase(path string) (*sql.DB, error) {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)",
	}}
	source := &url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	db := sql.OpenDB(&inLine{&sqlite.Driver{}, source.String(), make(chan struct{}, 1)})
	db.SetMaxOpenConns(maxConns)
	if err := db.Ping(); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), db.Close())
	}
	return db, nil
}

// schemaVersion is the version of the market's tables. A database of another
// version is refused: there is nothing yet to migrate from.
const schemaVersion = 1

const schema = `
CREATE TABLE IF NOT EXISTS market_schema (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS client_deals (
	id INTEGER PRIMARY KEY, -- DealID, as a signed number
	root TEXT NOT NULL,
	final INTEGER NOT NULL,
	updated INTEGER NOT NULL, -- milliseconds since 1970
	record TEXT NOT NULL -- JSON
);
CREATE INDEX IF NOT EXISTS client_deals_open ON client_deals (final, root);
CREATE INDEX IF NOT EXISTS client_deals_updated ON client_deals (updated);
CREATE TABLE IF NOT EXISTS provider_deals (
	instance INTEGER PRIMARY KEY, -- ours: a client may use a DealID again
	peer TEXT NOT NULL,
	id INTEGER NOT NULL,
	final INTEGER NOT NULL,
	updated INTEGER NOT NULL,
	record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS provider_deals_open ON provider_deals (final);
DROP INDEX IF EXISTS provider_deals_by_id; -- of earlier programs: it did not find a deal by its number alone
CREATE INDEX IF NOT EXISTS provider_deals_by_number ON provider_deals (id, peer, instance);
CREATE INDEX IF NOT EXISTS provider_deals_updated ON provider_deals (final, updated);
CREATE TABLE IF NOT EXISTS provider_lanes (
	channel TEXT NOT NULL,
	lane TEXT NOT NULL,
	instance INTEGER NOT NULL, -- the one deal that this lane pays for
	PRIMARY KEY (channel, lane)
) WITHOUT ROWID;
`

func migrate(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return fmt.Errorf("make the market's tables: %w", err)
	}
	var version int
	err := db.QueryRowContext(ctx, `SELECT version FROM market_schema`).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = db.ExecContext(ctx, `INSERT INTO market_schema VALUES (?)`, schemaVersion)
		version = schemaVersion
	}
	if err != nil {
		return fmt.Errorf("read the version of the market's tables: %w", err)
	}
	if version != schemaVersion {
		return fmt.Errorf("the market's tables are of version %d, this program knows %d: use the program that wrote them", version, schemaVersion)
	}
	return nil
}

// ErrNoDeal is returned for a deal that is not on record.
var ErrNoDeal = errors.New("no such deal")

// scanRecords reads rows of one JSON column into records of type R.
func scanRecords[R any](ctx context.Context, db *sql.DB, query string, args ...any) ([]R, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read deals: %w", err)
	}
	defer rows.Close()
	var all []R
	for rows.Next() {
		var text string
		var r R
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("read deals: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("read deals: a record is not readable: %w", err)
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func millis(t time.Time) int64 { return t.UnixMilli() }
