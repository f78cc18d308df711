package payment

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"
)

// schemaVersion is what Migrate writes and the only one that this code reads.
const schemaVersion = 1

// schema holds amounts and addresses as their bytes: 16 big-endian ones for an
// amount, so that they sort. Lanes are below 2^63. Nonces and counters are
// reinterpreted as signed.
const schema = `
CREATE TABLE payment_schema (version INTEGER NOT NULL) STRICT;

-- the payer's side
CREATE TABLE payment_channels (
	channel BLOB PRIMARY KEY, payer BLOB NOT NULL, payee BLOB NOT NULL,
	funds   BLOB NOT NULL, -- the most that was asked for
	total   BLOB NOT NULL  -- the sum of its lanes
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_lanes (
	channel BLOB NOT NULL, lane INTEGER NOT NULL, budget BLOB NOT NULL,
	nonce   INTEGER NOT NULL, amount BLOB NOT NULL, -- of the last voucher; 0 if none
	voucher BLOB NOT NULL, -- the last voucher as CBOR; empty if none
	PRIMARY KEY (channel, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_spent (
	day INTEGER NOT NULL, payee BLOB NOT NULL, -- day -1: for ever; empty payee: to anyone
	amount BLOB NOT NULL,
	PRIMARY KEY (day, payee)
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_policy (
	id INTEGER PRIMARY KEY CHECK (id = 1),
	deal BLOB NOT NULL, provider BLOB NOT NULL, day BLOB NOT NULL, total BLOB NOT NULL,
	today INTEGER NOT NULL -- the latest day that money was counted on
) STRICT;

-- the payee's side
CREATE TABLE payment_accounts (
	channel BLOB PRIMARY KEY, payer BLOB NOT NULL, payee BLOB NOT NULL,
	line    BLOB,          -- null: the default line
	total   BLOB NOT NULL, -- the sum of its credits
	settled BLOB NOT NULL  -- the sum of its settlements
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_credits (
	channel BLOB NOT NULL, lane INTEGER NOT NULL,
	nonce   INTEGER NOT NULL, amount BLOB NOT NULL,
	voucher BLOB NOT NULL, -- the evidence: the best voucher as CBOR
	deal    TEXT NOT NULL, -- whom the lane pays for; empty: nobody said
	PRIMARY KEY (channel, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_settlements (
	id INTEGER PRIMARY KEY, channel BLOB NOT NULL,
	at INTEGER NOT NULL, amount BLOB NOT NULL, note TEXT NOT NULL
) STRICT;
CREATE INDEX payment_settlements_channel ON payment_settlements (channel, id);

INSERT INTO payment_policy VALUES (1, zeroblob(16), zeroblob(16), zeroblob(16), zeroblob(16), 0);
`

// ErrSchema is wrapped when a database is not one that this code may write to.
var ErrSchema = errors.New("payment tables cannot be used")

// Migrate creates the tables of this package in db, or finds that they are
// there. It refuses with ErrSchema a database whose tables another version
// wrote, and one on disk that is not in WAL mode.
func Migrate(ctx context.Context, db *sql.DB) error {
	if err := checkJournal(ctx, db); err != nil {
		return err
	}
	return newLedger(db).alone(ctx, func(t *tx) error {
		found, version := t.version()
		if !found {
			t.run(schema)
			t.run(orderSchema)
			t.exec(`INSERT INTO payment_schema VALUES (?)`, schemaVersion)
			return nil
		}
		if err := checkVersion(version); err != nil {
			return err
		}
		t.run(orderSchema)
		return nil
	})
}

// checkSchema returns nil if Migrate has done its work on the database of l.
func checkSchema(ctx context.Context, l *ledger) error {
	return l.read(ctx, func(t *tx) error {
		found, version := t.version()
		if !found {
			return fmt.Errorf("database has none: call Migrate first: %w", ErrSchema)
		}
		return checkVersion(version)
	})
}

// journalMode reads how a database keeps its changes. Of processes that make one at the
// same time SQLite may tell some at once that it is busy, whatever their busy_timeout:
// they try again.
func journalMode(ctx context.Context, db *sql.DB) (mode string, err error) {
	for start := time.Now(); ; {
		err = db.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode)
		var coded interface{ Code() int } // as the errors of drivers are
		if !errors.As(err, &coded) || coded.Code()&0xff != sqliteBusy || time.Since(start) > journalPatience {
			return mode, err
		}
		select {
		case <-time.After(mrand.N(10 * time.Millisecond)):
		case <-ctx.Done():
			return "", err
		}
	}
}

// journalPatience is how long journalMode tries, and sqliteBusy SQLite's SQLITE_BUSY.
const (
	journalPatience = 10 * time.Second
	sqliteBusy      = 5
)

func checkVersion(version int64) error {
	if version != schemaVersion {
		return fmt.Errorf("database has payment tables of version %d, this program knows version %d: use the program that wrote them: %w",
			version, schemaVersion, ErrSchema)
	}
	return nil
}

// version returns what payment_schema says, and false if there is no such table.
func (t *tx) version() (found bool, version int64) {
	var n int
	t.row(`SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'payment_schema'`, nil, &n)
	if n == 0 {
		return false, 0
	}
	return t.row(`SELECT version FROM payment_schema`, nil, &version), version
}

// checkJournal refuses a journal mode in which a commit is not safe. A database
// in memory has none to choose, and promises nothing.
func checkJournal(ctx context.Context, db *sql.DB) error {
	mode, err := journalMode(ctx, db)
	if err != nil {
		return fmt.Errorf("read journal mode: %w", err)
	}
	var file string
	if err := db.QueryRowContext(ctx, `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&file); err != nil {
		return fmt.Errorf("read database list: %w", err)
	}
	if mode != "wal" && file != "" {
		return fmt.Errorf("database %s has journal mode %s: open it with _pragma=journal_mode(WAL): %w", file, mode, ErrSchema)
	}
	return nil
}
