package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/tollgraph/tollgraph/payment"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// repo is a node's directory, locked.
//
//	lock            held by the process that runs the node
//	host.key        libp2p identity        wallet.key   pays and is paid
//	tollgraph.db    deals and money        transfer/    progress of transfers
//	blocks/         what was received      index/       of pieces that are served
//	config.toml     the user's
type repo struct {
	dir  string
	lock *os.File
	db   *sql.DB
	key  voucher.Key
	id   crypto.PrivKey
}

// errRepoLocked says that another process runs a node on the repo.
var errRepoLocked = errors.New("repo is in use by another tollgraph process: wait for it or stop it, or name another repo with --repo")

// openRepo makes or opens the repo at dir for a node.
func openRepo(ctx context.Context, dir string) (opened *repo, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("repo: %w", err)
	}
	r := &repo{dir: dir}
	if r.lock, err = lockFile(r.path("lock")); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			opened = nil
		}
	}()
	if r.key, err = payment.LoadOrCreateKey(r.path("wallet.key")); err != nil {
		return nil, err
	}
	if r.id, err = loadOrCreateHostKey(r.path("host.key")); err != nil {
		return nil, err
	}
	r.db, err = openDatabase(ctx, dir)
	return r, err
}

func (r *repo) path(names ...string) string {
	return filepath.Join(append([]string{r.dir}, names...)...)
}

// Close gives the repo free.
func (r *repo) Close() error {
	var errs []error
	if r.db != nil {
		errs = append(errs, r.db.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close()) // which unlocks it
	}
	return errors.Join(errs...)
}

// openDatabase opens the database of the repo at dir, which another process
// may have open too.
func openDatabase(ctx context.Context, dir string) (*sql.DB, error) {
	db, err := market.OpenDatabase(filepath.Join(dir, "tollgraph.db"))
	if err != nil {
		return nil, err
	}
	for _, migrate := range []func(context.Context, *sql.DB) error{payment.Migrate, migrateSettings, migrateShelf} {
		if err := migrate(ctx, db); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), db.Close())
		}
	}
	return db, nil
}

// loadOrCreateHostKey returns the libp2p key in the file at path, made if there
// is none. It is the node's name, so it is never replaced.
func loadOrCreateHostKey(path string) (crypto.PrivKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createHostKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("host key %s is damaged; restore it, or remove it for a new identity: %w", path, err)
	}
	return key, nil
}

// createHostKey writes a fresh key. It is called with the repo locked.
func createHostKey(path string) (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	if err := writeDurably(path, data); err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	return key, nil
}

// writeDurably writes a file for its owner only, whole or not at all.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already if all went well
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// peekDatabase opens the database of the repo at dir, made if need be, without
// locking the repo: to look things up while a node may run.
func peekDatabase(ctx context.Context, dir string) (*sql.DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("repo: %w", err)
	}
	return openDatabase(ctx, dir)
}
