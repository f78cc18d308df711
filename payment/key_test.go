package payment

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tollgraph/tollgraph/voucher"
)

func TestLoadOrCreateKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, err := LoadOrCreateKey(path)
	must(t, err)
	again, err := LoadOrCreateKey(path)
	must(t, err)
	if !first.Equal(again) {
		t.Error("the second call returned another key")
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	files, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestLoadOrCreateKeyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	keys := make([]voucher.Key, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, key := range keys {
		if !key.Equal(keys[0]) {
			t.Fatal("callers at once got different keys")
		}
	}
}

func TestKeyFileRefused(t *testing.T) {
	good := strings.Repeat("0", 63) + "1"
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		says string // in the message
	}{
		"group reads": {good, 0o640, "chmod 600"},
		"all read":    {good, 0o604, "chmod 600"},
		"all write":   {good, 0o602, "chmod 600"},
		"empty":       {"", 0o600, "restore it"},
		"cut":         {good[:40], 0o600, "restore it"},
		"long":        {good + "00", 0o600, "restore it"},
		"zero":        {strings.Repeat("0", 64), 0o600, "restore it"},
		"above order": {strings.Repeat("f", 64), 0o600, "restore it"},
		"not hex":     {"secret words", 0o600, "restore it"},
		"huge":        {strings.Repeat("0", 2*maxKeyFile), 0o600, "restore it"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			must(t, os.WriteFile(path, []byte(c.text), 0o600))
			must(t, os.Chmod(path, c.mode))
			_, err := LoadOrCreateKey(path)
			if !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
			if c.text != "" && strings.Contains(err.Error(), c.text) {
				t.Error("the message shows what is in the file")
			}
			text, err := os.ReadFile(path)
			must(t, err)
			if string(text) != c.text {
				t.Error("the file was changed")
			}
		})
	}
}

func TestKeyFileForms(t *testing.T) {
	dir := t.TempDir()
	want := keyOf(t, 7)
	text := "  " + strings.ToUpper(hex.EncodeToString(want.Bytes())) + "\r\n"
	must(t, os.WriteFile(dir+"/key", []byte(text), 0o400))
	if key, err := LoadOrCreateKey(dir + "/key"); err != nil || !key.Equal(want) {
		t.Errorf("read-only file with spaces: %v", err)
	}
	if _, err := LoadOrCreateKey(dir); !errors.Is(err, ErrKeyFile) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := LoadOrCreateKey(dir + "/none/key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
