package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/tollgraph/tollgraph/voucher"
)

// makeTree writes a directory tree with one file of the given size. It is the
// same for every run: nothing in it is random to anyone who knows the seed.
func makeTree(dir string, size voucher.Bytes) error {
	small := map[string]string{
		"read me.txt":             "What is here was made to be sold.\n",
		"empty":                   "",
		"notes/Größe und Preis":   "bytes × price\n",
		"notes/deeper/still/file": "at the end of a path\n",
	}
	for name, text := range small {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return makeNoise(filepath.Join(dir, "noise.bin"), size)
}

// makeNoise writes a file that no two blocks of are equal.
func makeNoise(path string, size voucher.Bytes) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	noise := rand.NewChaCha8(sha256.Sum256([]byte("tollgraph demo")))
	_, err = io.CopyN(f, bufio.NewReaderSize(noise, 1<<20), int64(min(size, 1<<62)))
	return err
}

// treeSum is the SHA-256 of a tree: of the names and contents of its files, in
// the order of their names.
type treeSum [sha256.Size]byte

func sumTree(dir string) (treeSum, error) {
	all := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		one := sha256.New()
		if _, err := io.Copy(one, f); err != nil {
			return err
		}
		_, err = fmt.Fprintf(all, "%q %x\n", filepath.ToSlash(name), one.Sum(nil))
		return err
	})
	return treeSum(all.Sum(nil)), err
}
