package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

// settings are what an operator set while a node may have been running. They
// are in the repo's database, so that every process sees them at once.
type settings struct{ db *sql.DB }

const settingsSchema = `CREATE TABLE IF NOT EXISTS node_settings (
	name TEXT PRIMARY KEY,
	value TEXT NOT NULL -- JSON
) WITHOUT ROWID;`

// The names of settings.
const (
	settingAsk      = "ask"       // voucher.Ask
	settingCredit   = "credit"    // int64: another one when an account got other terms
	settingMaxPrice = "max_price" // voucher.Price: the ceiling of what is paid per byte
)

// migrateSettings makes the table if there is none.
func migrateSettings(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, settingsSchema); err != nil {
		return fmt.Errorf("make the table of settings: %w", err)
	}
	return nil
}

// get reads the setting of a name into v; false if it was never set.
func (s settings) get(ctx context.Context, name string, v any) (bool, error) {
	var text string
	err := s.db.QueryRowContext(ctx, `SELECT value FROM node_settings WHERE name = ?`, name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), v)
	}
	if err != nil {
		return false, fmt.Errorf("read setting %s: %w", name, err)
	}
	return true, nil
}

// set stores v, durably; nil removes what was set.
func (s settings) set(ctx context.Context, name string, v any) error {
	if v == nil {
		_, err := s.db.ExecContext(ctx, `DELETE FROM node_settings WHERE name = ?`, name)
		return wrapSetting(name, err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return wrapSetting(name, err)
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO node_settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, string(text))
	return wrapSetting(name, err)
}

func wrapSetting(name string, err error) error {
	if err != nil {
		return fmt.Errorf("store setting %s: %w", name, err)
	}
	return nil
}
