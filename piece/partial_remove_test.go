package piece

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRemovePartial(t *testing.T) {
	p := openTemp(t)
	path := p.Path()
	mustPut(t, p, []byte("x"))
	if _, err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := RemovePartial(path); !errors.Is(err, ErrLocked) {
		t.Errorf("while it is open: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := RemovePartial(path); err != nil || size != info.Size() {
		t.Errorf("%d bytes, %v, want %d", size, err, info.Size())
	}
	wantOnly(t, filepath.Dir(path))
	if _, err := RemovePartial(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}
