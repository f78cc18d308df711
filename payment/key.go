package payment

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tollgraph/tollgraph/voucher"
)

// maxKeyFile is more than any key file has.
const maxKeyFile = 4096

// ErrKeyFile is wrapped when a key file is not used because it is no key file, or
// because others can read it.
var ErrKeyFile = errors.New("key file cannot be used")

// LoadOrCreateKey returns the key in the file at path: 64 hexadecimal digits. If
// there is no file it creates one with a fresh key, readable by its owner alone;
// of several callers at once all return the same key. A file that others can
// read or write, and one that holds no key, is refused with ErrKeyFile and left
// as it is.
func LoadOrCreateKey(path string) (voucher.Key, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = voucher.NewKey()
	if err != nil {
		return voucher.Key{}, err
	}
	if err := writeKey(path, key); err != nil && !errors.Is(err, fs.ErrExist) {
		return voucher.Key{}, fmt.Errorf("write key %s: %w", path, err)
	}
	return loadKey(path)
}

func loadKey(path string) (voucher.Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return voucher.Key{}, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return voucher.Key{}, fmt.Errorf("read key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return voucher.Key{}, fmt.Errorf("%s is not a regular file: %w", path, ErrKeyFile)
	}
	// Windows has no such bits; there the directory's access list protects.
	if perm := info.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return voucher.Key{}, fmt.Errorf("%s can be read or written by others (mode %04o): run chmod 600 %s, and if they may have read it use a new key: %w",
			path, perm, path, ErrKeyFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return voucher.Key{}, fmt.Errorf("read key: %w", err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil { // never print what may be part of a key
		return voucher.Key{}, fmt.Errorf("%s is not 64 hexadecimal digits: restore it from a copy: %w", path, ErrKeyFile)
	}
	key, err := voucher.KeyFromBytes(secret)
	if err != nil {
		return voucher.Key{}, fmt.Errorf("%s holds no key (%w): restore it from a copy: %w", path, err, ErrKeyFile)
	}
	return key, nil
}

// writeKey puts key at path, whole and synced or not at all. It never replaces
// a file: the error is fs.ErrExist if there is one.
func writeKey(path string, key voucher.Key) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(key.Bytes()) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike Rename, refuses to replace
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in dir survive a power cut, where the system can.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
