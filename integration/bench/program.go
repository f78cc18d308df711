package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tollgraph/tollgraph/voucher"
)

// build makes the program, unless there is one.
func (b *bench) build(ctx context.Context) error {
	if b.program != "" {
		return nil
	}
	path := filepath.Join(b.dir, "tollgraph")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/tollgraph/tollgraph/cmd/tollgraph").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the program (run in the module, or name one with -program): %w: %s", err, out)
	}
	b.program = path
	return nil
}

// program is tollgraph serve, running.
type program struct {
	cmd  *exec.Cmd
	addr string // with /p2p/ID at its end
	rest chan struct{}
}

// startLimit bounds a start, which may have to index a piece.
const startLimit = 10 * time.Minute

// startProgram serves car from repo at one attoFIL per byte and returns when it
// is ready. ctx kills it.
func startProgram(ctx context.Context, path, repo, car string, interval int64) (*program, error) {
	cmd := exec.CommandContext(ctx, path, "--repo", repo, "--json", "serve", "--listen", "/ip4/127.0.0.1/tcp/0",
		"--price", voucher.Price(1).PerGiB().FIL(), "--credit", "1FIL", "--payment-interval", fmt.Sprint(interval), car)
	said := new(bytes.Buffer)
	cmd.Stderr = said
	cmd.WaitDelay = stopTimeout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &program{cmd: cmd, rest: make(chan struct{})}
	lines := json.NewDecoder(out)
	_, err = bounded(startLimit, func() (any, error) { return nil, p.await(lines) })
	if err != nil {
		_, _ = cmd.Process.Kill(), cmd.Wait() // why it must go is known already
		return nil, fmt.Errorf("serve: %w: %s", err, said)
	}
	go func() {
		defer close(p.rest) // stop waits for it
		_, _ = io.Copy(io.Discard, io.MultiReader(lines.Buffered(), out))
	}()
	return p, nil
}

// await reads what the program says until it is ready.
func (p *program) await(lines *json.Decoder) error {
	for {
		var e struct{ Event, Addr, Path, Error string }
		if err := lines.Decode(&e); err != nil {
			return err
		}
		switch e.Event {
		case "listening":
			p.addr = e.Addr
		case "problem":
			return fmt.Errorf("%s: %s", e.Path, e.Error)
		case "ready":
			return nil
		}
	}
}

// stop ends it as Ctrl-C does.
func (p *program) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	_, err := bounded(4*stopTimeout, func() (any, error) { <-p.rest; return nil, p.cmd.Wait() })
	if errors.Is(err, errHung) {
		err = errors.Join(err, p.cmd.Process.Kill())
	}
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) && ended.Exited() {
		return nil // it says with its code that it was interrupted
	}
	return err
}

// forget drops what the system keeps in memory of files, and of all files in
// folders, so that the next start is a cold one.
func forget(paths ...string) error { return eachFile(evict, paths) }

// recall brings them back.
func recall(paths ...string) error {
	return eachFile(func(name string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
		return errors.Join(err, f.Close())
	}, paths)
}

// eachFile calls do for files, and for all files in folders.
func eachFile(do func(name string) error, paths []string) error {
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			return do(name)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
