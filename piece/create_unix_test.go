//go:build unix

package piece

import (
	"context"
	"errors"
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

// TestPipeIsNoCAR: a named pipe is not waited for, but said to be no CAR.
func TestPipeIsNoCAR(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.car")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := VerifyCAR(t.Context(), pipe); !errors.Is(err, errNotRegular) {
		t.Errorf("verify: %v", err)
	}
	s, err := Open(t.Context(), Config{Paths: []string{dir}, IndexDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if problems := s.Problems(); len(problems) != 1 || problems[0].Path != pipe || !errors.Is(problems[0].Err, errNotRegular) {
		t.Errorf("problems %+v", problems)
	}
}
