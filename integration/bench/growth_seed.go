package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// fillerSize is the size of the blocks that make a piece large.
const fillerSize = 32

// filler is the n-th of them.
func filler(n int) (b [fillerSize]byte) {
	copy(b[:], "this only fills a piece:")
	binary.BigEndian.PutUint64(b[24:], uint64(n))
	return b
}

func fillerCID(n int) cid.Cid {
	b := filler(n)
	sum := sha256.Sum256(b[:])
	mh, _ := multihash.Encode(sum[:], multihash.SHA2_256) // the hash is known
	return cid.NewCidV1(cid.Raw, mh)
}

// pad copies a CARv1 and appends n blocks that nothing links to.
func pad(from, to string, n int) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriterSize(out, 1<<20)
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	for i := range n {
		b, c := filler(i), fillerCID(i).Bytes()
		section := binary.AppendUvarint(nil, uint64(len(c)+len(b)))
		if _, err := w.Write(append(append(section, c...), b[:]...)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// dealsOfPayer is how many deals each payer of a history made.
const dealsOfPayer = 100

// seedHistory makes of the one finished deal in the database of a provider so
// many, of many clients, with their lanes and vouchers. The rows are copies of
// what the program wrote itself.
func seedHistory(ctx context.Context, path string, deals int) (err error) {
	db, err := market.OpenDatabase(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1) // the temporary table is the connection's
	payers := max(deals/dealsOfPayer, 1)
	if err := seedPayers(ctx, db, payers); err != nil {
		return err
	}
	indexes, err := dropIndexes(ctx, db)
	if err != nil {
		return err
	}
	each := deals / payers
	for _, statement := range append([]string{
		fmt.Sprintf(`CREATE TEMP TABLE lanes AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n`, each),
		`INSERT INTO provider_deals (peer, id, final, updated, record)
			SELECT p.peer, d.id + l.i, 1, d.updated - l.i, json_set(d.record, '$.peer', p.peer, '$.id', d.id + l.i, '$.lane', l.i, '$.payment_channel', p.name)
			FROM payers p, lanes l, provider_deals d WHERE d.instance = 1`,
		`INSERT INTO provider_lanes SELECT p.name, CAST(l.i AS TEXT), (p.rowid - 1) * (SELECT count(*) FROM lanes) + l.i + 1 FROM payers p, lanes l`,
		`INSERT INTO payment_accounts SELECT p.channel, p.payer, a.payee, a.line, a.total, a.settled FROM payers p, (SELECT * FROM payment_accounts LIMIT 1) a`,
		`INSERT INTO payment_credits SELECT p.channel, l.i, c.nonce, c.amount, c.voucher, 'seed ' || p.rowid || ' ' || l.i
			FROM payers p, lanes l, (SELECT * FROM payment_credits LIMIT 1) c`,
	}, append(indexes, `PRAGMA wal_checkpoint(TRUNCATE)`)...) {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("seed: %w in %s", err, strings.Join(strings.Fields(statement), " "))
		}
	}
	var final int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM provider_deals WHERE final = 1`).Scan(&final); err != nil {
		return err
	}
	if final < each*payers {
		return fmt.Errorf("seed: only %d deals are finished", final)
	}
	return nil
}

// seedPayers makes a temporary table of clients, sorted by channel.
func seedPayers(ctx context.Context, db *sql.DB, n int) error {
	for _, s := range []string{
		`PRAGMA synchronous = OFF`, `PRAGMA cache_size = -200000`,
		`CREATE TEMP TABLE unsorted (peer TEXT, channel BLOB, name TEXT, payer BLOB)`,
	} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for range n {
		_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		id, err := peer.IDFromPublicKey(pub)
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		channel, err1 := address.NewActorAddress([]byte(id))
		payer, err2 := address.NewSecp256k1Address([]byte(id))
		_, err3 := tx.ExecContext(ctx, `INSERT INTO unsorted VALUES (?, ?, ?, ?)`, id.String(), channel.Bytes(), channel.String(), payer.Bytes())
		if err := errors.Join(err1, err2, err3); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	if _, err := tx.ExecContext(ctx, `CREATE TEMP TABLE payers AS SELECT * FROM unsorted ORDER BY channel`); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// dropIndexes drops the indexes of the deals, and returns what makes them again:
// it is faster to make them of all at once.
func dropIndexes(ctx context.Context, db *sql.DB) (again []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'provider_deals' AND sql IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	var names []string
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		names, again = append(names, name), append(again, text)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, err := db.ExecContext(ctx, `DROP INDEX `+name); err != nil {
			return nil, err
		}
	}
	return again, nil
}
