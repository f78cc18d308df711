package piece

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
)

// unsealFunc is an Unsealer.
type unsealFunc func(ctx context.Context, in, out string) error

func (f unsealFunc) Unseal(ctx context.Context, in, out string) error { return f(ctx, in, out) }

// sealedPiece makes a piece, indexes it in cfg.IndexDir and seals it by turning
// its bytes over. It returns its blocks and the path of the CAR.
func sealedPiece(t *testing.T, cfg Config, dir string) ([]testBlock, string) {
	t.Helper()
	blocks := testBlocks(20, 50, 3000)
	path := writeCAR(t, filepath.Join(dir, "it's a piece.car"), []cid.Cid{blocks[0].cid}, blocks, true)
	cfg.Paths = []string{dir}
	if err := openStore(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(data)
	if err := os.WriteFile(path+sealedSuffix, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return blocks, path
}

// turnOver undoes the seal of sealedPiece.
func turnOver(_ context.Context, in, out string) error {
	data, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	slices.Reverse(data)
	return os.WriteFile(out, data, 0o600)
}

// checkEmpty fails if there are files under IndexDir/unsealed.
func checkEmpty(t *testing.T, cfg Config) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cfg.IndexDir, "unsealed"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestSealed(t *testing.T) {
	var runs atomic.Int64
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
	cfg.Unsealer = unsealFunc(func(ctx context.Context, in, out string) error {
		runs.Add(1)
		return turnOver(ctx, in, out)
	})
	blocks, path := sealedPiece(t, cfg, dir)

	s := openStore(t, cfg)
	checkNoProblems(t, s)
	info, ok := s.Find(blocks[3].cid, nil)
	if !ok || !info.Sealed || info.Path != path+sealedSuffix || info.Blocks != 50 {
		t.Fatalf("found %+v, %v", info, ok)
	}
	if size, ok := s.Size(blocks[3].cid); !ok || size != uint64(len(blocks[3].data)) {
		t.Errorf("size is %d, %v", size, ok)
	}
	if _, err := load(s.LinkSystem(info.ID), blocks[3].cid); !errors.Is(err, ErrSealed) {
		t.Errorf("reading it: %v", err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := s.Unseal(context.Background(), info.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkServes(t, s, info.ID, blocks)
	if info, _ := s.Find(blocks[3].cid, nil); info.Sealed {
		t.Error("is still sealed")
	}

	s = openStore(t, cfg) // the copy is found again
	checkServes(t, s, info.ID, blocks)
	if err := s.Unseal(context.Background(), info.ID); err != nil || runs.Load() != 1 {
		t.Errorf("%d runs, %v", runs.Load(), err)
	}
	if err := s.Reseal(info.ID); err != nil {
		t.Fatal(err)
	}
	if info, _ := s.Find(blocks[3].cid, nil); !info.Sealed {
		t.Error("is not sealed again")
	}
	checkEmpty(t, cfg)
}

func TestSealedWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
	blocks, path := sealedPiece(t, cfg, dir)
	names, err := filepath.Glob(filepath.Join(cfg.IndexDir, "*"+indexSuffix))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	index, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	cfg.IndexDir = t.TempDir() // another machine
	s := openStore(t, cfg)
	if ps := s.Problems(); len(ps) != 1 || !strings.Contains(ps[0].Err.Error(), "no index") {
		t.Errorf("problems are %v", ps)
	}
	if err := os.WriteFile(path+indexSuffix, index, 0o644); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	checkNoProblems(t, s)
	if info, ok := s.Find(blocks[0].cid, nil); !ok || !info.Sealed {
		t.Error("not found by the index beside it")
	}
	if err := s.Unseal(context.Background(), s.Pieces()[0].ID); !errors.Is(err, ErrNoUnsealer) {
		t.Errorf("error is %v", err)
	}
}

// Nothing but the piece that was promised is ever taken for it.
func TestUnsealWrong(t *testing.T) {
	for name, unseal := range map[string]unsealFunc{
		"fails":   func(context.Context, string, string) error { return errors.New("no such sector") },
		"nothing": func(context.Context, string, string) error { return nil },
		"other":   func(_ context.Context, in, out string) error { return copyFile(in, out) },
		"half": func(ctx context.Context, in, out string) error {
			if err := turnOver(ctx, in, out); err != nil {
				return err
			}
			return os.Truncate(out, 3000)
		},
		"flipped": func(ctx context.Context, in, out string) error {
			if err := turnOver(ctx, in, out); err != nil {
				return err
			}
			data, err := os.ReadFile(out)
			if err != nil {
				return err
			}
			data[len(data)-1] ^= 1
			return os.WriteFile(out, data, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet(), Unsealer: unseal}
			sealedPiece(t, cfg, dir)
			s := openStore(t, cfg)
			id := s.Pieces()[0].ID
			if err := s.Unseal(context.Background(), id); err == nil {
				t.Error("no error")
			}
			if !s.Pieces()[0].Sealed {
				t.Error("is at hand")
			}
			checkEmpty(t, cfg)
		})
	}
}

func copyFile(in, out string) error {
	data, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o600)
}

// One who leaves does not disturb the others; when the last leaves, the run ends.
func TestUnsealWaiters(t *testing.T) {
	dir := t.TempDir()
	began, ended, finish := make(chan struct{}, 9), make(chan error, 9), make(chan struct{})
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
	cfg.Unsealer = unsealFunc(func(ctx context.Context, in, out string) error {
		began <- struct{}{}
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
			return ctx.Err()
		case <-finish:
			return turnOver(ctx, in, out)
		}
	})
	blocks, _ := sealedPiece(t, cfg, dir)
	s := openStore(t, cfg)
	id := s.Pieces()[0].ID
	leave := func() (context.CancelFunc, chan error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Unseal(ctx, id) }()
		return cancel, done
	}
	cancel, done := leave()
	<-began
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the run: %v", err)
	}

	cancelA, doneA := leave()
	<-began
	s.unsealing.mu.Lock()
	f := s.unsealing.active[s.pieces[0]]
	f.waiters++ // another one, who waits below
	s.unsealing.mu.Unlock()
	cancelA()
	if err := <-doneA; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	close(finish)
	<-f.done
	if f.err != nil {
		t.Errorf("the run: %v", f.err)
	}
	checkServes(t, s, id, blocks)
}

func TestUnsealEndsWithClose(t *testing.T) {
	dir := t.TempDir()
	began := make(chan struct{})
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet()}
	cfg.Unsealer = unsealFunc(func(ctx context.Context, in, out string) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	})
	sealedPiece(t, cfg, dir)
	s := openStore(t, cfg)
	done := make(chan error, 1)
	go func() { done <- s.Unseal(context.Background(), s.Pieces()[0].ID) }()
	<-began
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if err := s.Unseal(context.Background(), s.Pieces()[0].ID); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	checkEmpty(t, cfg)
}

// The real driver, with a real shell, on a name that needs quoting.
func TestCommandUnsealer(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Paths: []string{dir}, IndexDir: t.TempDir(), Logger: quiet(), Unsealer: CommandUnsealer{"cat {in} > {out}"}}
	blocks, path := sealedPiece(t, cfg, dir)
	if err := turnOver(context.Background(), path+sealedSuffix, path+sealedSuffix); err != nil {
		t.Fatal(err) // sealed by nothing but its name, so that cat unseals it
	}
	s := openStore(t, cfg)
	if err := s.Unseal(context.Background(), s.Pieces()[0].ID); err != nil {
		t.Fatal(err)
	}
	checkServes(t, s, s.Pieces()[0].ID, blocks)
}

func TestCommandUnsealerErrors(t *testing.T) {
	for command, want := range map[string]string{
		"cat {in}":                              "has no {out}",
		"cat > {out}":                           "has no {in}",
		"cat '{in}' > {out}":                    "quoted already",
		": {in} {out}; echo tape broken; false": "tape broken",
	} {
		err := CommandUnsealer{command}.Unseal(context.Background(), "a", "b")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v", command, err)
		}
	}
}
