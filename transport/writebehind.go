package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// flushEvery is how often a WriteBehind writes.
const flushEvery = 250 * time.Millisecond

// ErrStoreClosed is the error of a WriteBehind that has been closed.
var ErrStoreClosed = errors.New("datastore is closed")

// WriteBehind is a datastore in memory that writes what has changed to another
// one in the background. data-transfer reads, decodes, encodes and puts its
// record of a channel several times for every block, under one lock for the
// whole node: with a store on disk the disk sets the pace of all transfers.
//
// A crash loses the changes of the last interval, all of them or, if it happens
// during a flush, some. It may be used concurrently.
type WriteBehind struct {
	child datastore.Batching

	flushing sync.Mutex // held to write to child; taken before mu

	mu     sync.Mutex // guards the fields below
	data   map[datastore.Key][]byte
	dirty  map[datastore.Key]struct{} // differ from child
	err    error                      // of the last flush
	closed bool

	stop chan struct{}
	done chan struct{}
}

var _ datastore.Batching = (*WriteBehind)(nil)

// NewWriteBehind reads child into memory and writes changes back every interval,
// on Sync and on Close. Child must be used by nobody else until then. Close does
// not close it. An interval of zero is 250 ms.
func NewWriteBehind(ctx context.Context, child datastore.Batching, interval time.Duration) (*WriteBehind, error) {
	w := &WriteBehind{
		child: child,
		data:  make(map[datastore.Key][]byte),
		dirty: make(map[datastore.Key]struct{}),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	for e, err := range datastore.QueryIter(ctx, child, query.Query{}) {
		if err != nil {
			return nil, fmt.Errorf("read datastore: %w", err)
		}
		w.data[datastore.RawKey(e.Key)] = e.Value
	}
	go w.run(orDefault(interval, flushEvery))
	return w, nil
}

func (w *WriteBehind) run(interval time.Duration) {
	defer close(w.done)
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_ = w.flush(context.Background()) // kept for Sync, Close and Err, and tried again
		case <-w.stop:
			return
		}
	}
}

// flush writes what has changed. What could not be written stays to be written.
func (w *WriteBehind) flush(ctx context.Context) error {
	w.flushing.Lock()
	defer w.flushing.Unlock()
	w.mu.Lock()
	dirty := w.dirty
	w.dirty = make(map[datastore.Key]struct{})
	values := make(map[datastore.Key][]byte, len(dirty))
	for k := range dirty {
		if v, has := w.data[k]; has {
			values[k] = v
		}
	}
	w.mu.Unlock()
	err := w.write(ctx, dirty, values)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	if err != nil {
		for k := range dirty {
			w.dirty[k] = struct{}{}
		}
	}
	return err
}

// write brings child up to date for the keys in dirty. A key without a value is
// deleted.
func (w *WriteBehind) write(ctx context.Context, dirty map[datastore.Key]struct{}, values map[datastore.Key][]byte) error {
	if len(dirty) == 0 {
		return nil
	}
	b, err := w.child.Batch(ctx)
	if err != nil {
		return fmt.Errorf("write behind: %w", err)
	}
	for k := range dirty {
		if v, has := values[k]; has {
			err = b.Put(ctx, k, v)
		} else {
			err = b.Delete(ctx, k)
		}
		if err != nil {
			return fmt.Errorf("write behind %s: %w", k, err)
		}
	}
	if err := b.Commit(ctx); err != nil {
		return fmt.Errorf("write behind: %w", err)
	}
	return nil
}

// Err returns the error of the last background write, nil if it succeeded.
func (w *WriteBehind) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Put keeps value, which must not be changed afterwards.
func (w *WriteBehind) Put(_ context.Context, k datastore.Key, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrStoreClosed
	}
	w.data[k] = value
	w.dirty[k] = struct{}{}
	return nil
}

func (w *WriteBehind) Delete(_ context.Context, k datastore.Key) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrStoreClosed
	}
	if _, has := w.data[k]; has {
		delete(w.data, k)
		w.dirty[k] = struct{}{}
	}
	return nil
}

// Get returns a value, which must not be changed.
func (w *WriteBehind) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, has := w.data[k]
	if !has {
		return nil, datastore.ErrNotFound
	}
	return v, nil
}

func (w *WriteBehind) Has(_ context.Context, k datastore.Key) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, has := w.data[k]
	return has, nil
}

func (w *WriteBehind) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	v, err := w.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

// Query sees what is in memory at the time of the call.
func (w *WriteBehind) Query(_ context.Context, q query.Query) (query.Results, error) {
	w.mu.Lock()
	entries := make([]query.Entry, 0, len(w.data))
	for k, v := range w.data {
		e := query.Entry{Key: k.String(), Size: len(v)}
		if !q.KeysOnly {
			e.Value = v
		}
		entries = append(entries, e)
	}
	w.mu.Unlock()
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

// Batch collects changes in memory.
func (w *WriteBehind) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(w), nil
}

// Sync writes everything to the child and syncs it.
func (w *WriteBehind) Sync(ctx context.Context, prefix datastore.Key) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	return w.child.Sync(ctx, prefix)
}

// Close writes and syncs everything. Nothing can be changed afterwards.
func (w *WriteBehind) Close() error {
	w.mu.Lock()
	again := w.closed
	w.closed = true
	w.mu.Unlock()
	if again {
		return nil
	}
	close(w.stop)
	<-w.done
	return w.Sync(context.Background(), datastore.NewKey("/"))
}
