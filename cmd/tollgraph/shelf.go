package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// shelf keeps what a daemon was told to do until it is done, by the id of the
// order's first deal: the order, from which the output is written, and which orders
// were paused by the user and so are not resumed by themselves.
type shelf struct{ db *sql.DB }

const shelfSchema = `
CREATE TABLE IF NOT EXISTS node_orders (
	deal INTEGER PRIMARY KEY, -- the order's first DealID, as a signed number
	text TEXT NOT NULL -- order as JSON
);
CREATE TABLE IF NOT EXISTS node_held (deal INTEGER PRIMARY KEY);`

func migrateShelf(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, shelfSchema); err != nil {
		return fmt.Errorf("make the tables of orders: %w", err)
	}
	return nil
}

// put keeps the order of a deal.
func (s shelf) put(ctx context.Context, id market.DealID, o order) error {
	text, err := json.Marshal(o)
	if err == nil {
		_, err = s.db.ExecContext(ctx, `INSERT INTO node_orders VALUES (?, ?) ON CONFLICT (deal) DO UPDATE SET text = excluded.text`, int64(id), string(text))
	}
	if err != nil {
		return fmt.Errorf("keep the order of deal %d: %w", id, err)
	}
	return nil
}

// order returns the order of a deal; false if it has none.
func (s shelf) order(ctx context.Context, id market.DealID) (o order, found bool, err error) {
	var text string
	err = s.db.QueryRowContext(ctx, `SELECT text FROM node_orders WHERE deal = ?`, int64(id)).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &o)
	}
	if err != nil {
		return o, false, fmt.Errorf("read the order of deal %d: %w", id, err)
	}
	return o, true, nil
}

// ids returns the deals that have orders.
func (s shelf) ids(ctx context.Context) ([]market.DealID, error) {
	return s.list(ctx, `SELECT deal FROM node_orders ORDER BY deal`)
}

// list reads the ids of deals.
func (s shelf) list(ctx context.Context, query string) ([]market.DealID, error) {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	defer rows.Close()
	var ids []market.DealID
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read orders: %w", err)
		}
		ids = append(ids, market.DealID(id))
	}
	return ids, rows.Err()
}

// drop forgets a deal that needs nothing more.
func (s shelf) drop(ctx context.Context, id market.DealID) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM node_orders WHERE deal = ?`, int64(id))
	return errors.Join(err, s.unhold(ctx, id))
}

// hold notes that a deal is not to be resumed by itself.
func (s shelf) hold(ctx context.Context, id market.DealID) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO node_held VALUES (?) ON CONFLICT DO NOTHING`, int64(id))
	return err
}

func (s shelf) unhold(ctx context.Context, id market.DealID) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM node_held WHERE deal = ?`, int64(id))
	return err
}

// mark says of those of deals that are held that they are paused.
func (s shelf) mark(ctx context.Context, deals []deal) error {
	ids, err := s.list(ctx, `SELECT deal FROM node_held`)
	if err != nil || len(ids) == 0 {
		return err
	}
	held := make(map[string]bool, len(ids))
	for _, id := range ids {
		held[strconv.FormatUint(uint64(id), 10)] = true
	}
	for i, d := range deals {
		if d.Role == "client" && d.open && held[d.Order] {
			deals[i].Message = "paused; to go on: tollgraph deals resume " + d.ID
		}
	}
	return nil
}

func (s shelf) held(ctx context.Context, id market.DealID) (held bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_held WHERE deal = ?)`, int64(id)).Scan(&held)
	return held, err
}
