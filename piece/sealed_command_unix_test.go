//go:build unix

package piece

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the command started dies with it.
func TestCommandUnsealerKill(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- CommandUnsealer{"echo {in} > {out}; (sleep 600; :) & sleep 600"}.Unseal(ctx, "begun", fifo)
	}()
	f, err := os.Open(fifo) // blocks until the command opens it too
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if said, err := io.ReadAll(f); err != nil || !bytes.Contains(said, []byte("begun")) {
		t.Fatalf("said %q, %v", said, err)
	}
	began := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	// A child that lives holds the output pipe, and Unseal waits killGrace for it.
	if took := time.Since(began); took >= killGrace {
		t.Errorf("took %v: a child lives", took)
	}
}
