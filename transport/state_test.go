package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"pgregory.net/rapid"
)

// contents returns all keys and values of a datastore.
func contents(t rapidOrTest, d datastore.Read) map[string]string {
	out := make(map[string]string)
	for e, err := range datastore.QueryIter(context.Background(), d, query.Query{}) {
		if err != nil {
			t.Fatalf("%v", err)
		}
		out[e.Key] = string(e.Value)
	}
	return out
}

type rapidOrTest interface {
	Fatalf(format string, args ...any)
}

func sameContents(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, has := b[k]; !has || v != w {
			return false
		}
	}
	return true
}

// TestStateLog runs random operations on a log that is reopened now and then,
// against a map. The file is compacted early.
func TestStateLog(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	run, compacted := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(dir, fmt.Sprint(run))
		l, err := OpenStateLog(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		l.compact = 300
		want := make(map[string]string)
		for range rapid.IntRange(1, 40).Draw(t, "operations") {
			k := datastore.NewKey(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "key")))
			switch rapid.IntRange(0, 5).Draw(t, "operation") {
			case 0:
				if err := l.Delete(ctx, k); err != nil {
					t.Fatal(err)
				}
				delete(want, k.String())
			case 1:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if l, err = OpenStateLog(path); err != nil {
					t.Fatal(err)
				}
				l.compact = 300
			default:
				before := l.size
				v := bytes.Repeat([]byte{byte(len(want))}, rapid.SampledFrom([]int{0, 1, 100}).Draw(t, "size"))
				if err := l.Put(ctx, k, v); err != nil {
					t.Fatal(err)
				}
				want[k.String()] = string(v)
				if l.size < before {
					compacted++
				}
			}
			if !sameContents(contents(t, l), want) {
				t.Fatal("contents differ")
			}
		}
		if info, err := os.Stat(path); err != nil || info.Size() != l.size || l.size > l.compact+3*l.live+200 {
			t.Fatalf("file of %d bytes for %d live ones: %v", info.Size(), l.live, err)
		}
	})
	if compacted == 0 {
		t.Error("never compacted")
	}
}

// TestStateLogTorn cuts the file at every length and flips bytes at its end: what
// was written before stays, and the log can be written on.
func TestStateLogTorn(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenStateLog(path)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range 5 {
		if err := l.Put(ctx, datastore.NewKey(fmt.Sprint(i)), []byte("value")); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, l.size)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(content []byte, records int) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenStateLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(contents(t, l)); got != records {
			t.Fatalf("%d bytes: %d records, want %d", len(content), got, records)
		}
		if err := l.Put(ctx, datastore.NewKey("new"), []byte("new")); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = OpenStateLog(path); err != nil {
			t.Fatal(err)
		}
		if got := len(contents(t, l)); got != records+1 {
			t.Fatalf("%d bytes, written on: %d records, want %d", len(content), got, records+1)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range len(whole) + 1 {
		records := 0
		for _, e := range ends {
			if int64(n) >= e {
				records++
			}
		}
		check(whole[:n], records)
	}
	for i := ends[3]; i < ends[4]; i++ {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x40
		check(flipped, 4)
	}
}

func TestStateLogForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("something else entirely"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStateLog(path); err == nil {
		t.Error("opened a file of somebody else's")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "something else entirely" {
		t.Errorf("changed it: %q %v", b, err)
	}
}

// FuzzStateLog opens arbitrary files. What is read back must survive a reopen.
func FuzzStateLog(f *testing.F) {
	f.Add([]byte(logMagic))
	f.Add(appendRecord([]byte(logMagic), change{datastore.NewKey("a"), []byte("b")}))
	f.Add(appendRecord(appendRecord([]byte(logMagic), change{datastore.NewKey("a"), []byte("b")}), change{datastore.NewKey("a"), nil}))
	f.Add(append([]byte(logMagic), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenStateLog(path)
		if err != nil {
			return
		}
		before := contents(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = OpenStateLog(path); err != nil {
			t.Fatal(err)
		}
		if !sameContents(before, contents(t, l)) {
			t.Error("contents differ after a reopen")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// failing is a datastore that fails to commit while told to.
type failing struct {
	datastore.Batching
	fail    chan error // holds the error, if any
	commits chan int   // size of each batch
}

type failingBatch struct {
	datastore.Batch
	f *failing
	n int
}

func (f *failing) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := f.Batching.Batch(ctx)
	return &failingBatch{b, f, 0}, err
}

func (b *failingBatch) Put(ctx context.Context, k datastore.Key, v []byte) error {
	b.n++
	return b.Batch.Put(ctx, k, v)
}

func (b *failingBatch) Commit(ctx context.Context) error {
	select {
	case err := <-b.f.fail:
		b.f.fail <- err
		return err
	default:
	}
	select {
	case b.f.commits <- b.n:
	default:
	}
	return b.Batch.Commit(ctx)
}

func newFailing() *failing {
	return &failing{Batching: dssync.MutexWrap(datastore.NewMapDatastore()), fail: make(chan error, 1), commits: make(chan int, 100)}
}

// TestWriteBehind checks when changes reach the child, and that a failed write
// is told and tried again.
func TestWriteBehind(t *testing.T) {
	ctx := within(t, 10*time.Second)
	child := newFailing()
	if err := child.Put(ctx, datastore.NewKey("old"), []byte("0")); err != nil {
		t.Fatal(err)
	}
	w, err := NewWriteBehind(ctx, child, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	put := func(k, v string) {
		t.Helper()
		if err := w.Put(ctx, datastore.NewKey(k), []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		put("a", fmt.Sprint(i))
	}
	put("b", "1")
	if err := w.Delete(ctx, datastore.NewKey("old")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"/a": "999", "/b": "1"}
	if !sameContents(contents(t, w), want) {
		t.Errorf("memory %v", contents(t, w))
	}
	if !sameContents(contents(t, child), map[string]string{"/old": "0"}) {
		t.Errorf("child before a flush: %v", contents(t, child)) // as a crash would leave it
	}
	broken := errors.New("disk full")
	child.fail <- broken
	if err := w.Sync(ctx, datastore.NewKey("/")); !errors.Is(err, broken) || !errors.Is(w.Err(), broken) {
		t.Errorf("sync: %v, err: %v", err, w.Err())
	}
	put("c", "2")
	want["/c"] = "2"
	<-child.fail
	if err := w.Sync(ctx, datastore.NewKey("/")); err != nil || w.Err() != nil {
		t.Errorf("sync: %v, err: %v", err, w.Err())
	}
	if n := <-child.commits; n != 3 {
		t.Errorf("%d puts for 1002 changes of 3 keys", n)
	}
	if !sameContents(contents(t, child), want) {
		t.Errorf("child after a flush: %v", contents(t, child))
	}
	put("b", "3")
	want["/b"] = "3"
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !sameContents(contents(t, child), want) {
		t.Errorf("child after close: %v", contents(t, child))
	}
	if err := w.Put(ctx, datastore.NewKey("d"), nil); !errors.Is(err, ErrStoreClosed) {
		t.Errorf("put after close: %v", err)
	}
}

// TestWriteBehindTicks checks that changes reach the child by themselves.
func TestWriteBehindTicks(t *testing.T) {
	ctx := within(t, 10*time.Second)
	child := newFailing()
	w, err := NewWriteBehind(ctx, child, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(ctx, datastore.NewKey("a"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-child.commits:
	case <-ctx.Done():
		t.Error("never flushed")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCollector checks that the record of a finished channel goes after its
// time, and nothing else does.
func TestCollector(t *testing.T) {
	ctx := within(t, 30*time.Second)
	dir := t.TempDir()
	p := newNodePair(t, &validator{}, func(c *Config) { c.StateDir = dir; c.KeepFinished = 50 * time.Millisecond })
	d := buildDAG(t, p.source, 42, 3, 1000, nil)
	chid := p.open(t, ctx, d.root)
	p.getting.finished(t, ctx, chid)
	p.providing.finished(t, ctx, chid)
	for {
		all, err := p.provider.Transfers().InProgressChannels(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			break
		}
		pause(ctx, nil, time.Millisecond)
	}
	if _, err := p.client.Transfers().ChannelState(ctx, chid); err != nil {
		t.Errorf("client's record: %v", err) // kept for 24 h
	}
	err := p.provider.Transfers().UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true})
	if !errors.Is(err, datatransfer.ErrChannelNotFound) {
		t.Errorf("update of a collected channel: %v", err)
	}
}
