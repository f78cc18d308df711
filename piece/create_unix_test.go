//go:build unix

package piece

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCreateRefusesPipe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	_, err := Create(context.Background(), filepath.Join(t.TempDir(), "o.car"), []string{dir}, CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "it is a pipe") {
		t.Fatalf("packed a pipe: %v", err)
	}
	wantOnly(t, dir, "pipe")
}
