package transport

import (
	"context"
	"errors"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

func (l *StateLog) Put(_ context.Context, k datastore.Key, v []byte) error {
	return l.apply([]change{{k, append(make([]byte, 0, len(v)), v...)}})
}

func (l *StateLog) Delete(_ context.Context, k datastore.Key) error {
	return l.apply([]change{{k, nil}})
}

func (l *StateLog) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil, ErrStoreClosed
	}
	s, has := l.where[k]
	if !has {
		return nil, datastore.ErrNotFound
	}
	return l.read(s)
}

func (l *StateLog) Has(_ context.Context, k datastore.Key) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, has := l.where[k]
	return has, nil
}

func (l *StateLog) GetSize(_ context.Context, k datastore.Key) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, has := l.where[k]
	if !has {
		return -1, datastore.ErrNotFound
	}
	return s.size, nil
}

// Query reads all values into memory.
func (l *StateLog) Query(_ context.Context, q query.Query) (query.Results, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil, ErrStoreClosed
	}
	entries := make([]query.Entry, 0, len(l.where))
	for k, s := range l.where {
		e := query.Entry{Key: k.String(), Size: s.size}
		if !q.KeysOnly {
			v, err := l.read(s)
			if err != nil {
				return nil, err
			}
			e.Value = v
		}
		entries = append(entries, e)
	}
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

// Sync makes what was written last over a power failure.
func (l *StateLog) Sync(context.Context, datastore.Key) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return ErrStoreClosed
	}
	return l.file.Sync()
}

// Close syncs and closes the file.
func (l *StateLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return errors.Join(f.Sync(), f.Close())
}

// Batch collects changes, which Commit writes in one go.
func (l *StateLog) Batch(context.Context) (datastore.Batch, error) { return &logBatch{log: l}, nil }

type logBatch struct {
	log *StateLog
	cs  []change
}

func (b *logBatch) Put(_ context.Context, k datastore.Key, v []byte) error {
	b.cs = append(b.cs, change{k, append(make([]byte, 0, len(v)), v...)})
	return nil
}

func (b *logBatch) Delete(_ context.Context, k datastore.Key) error {
	b.cs = append(b.cs, change{k, nil})
	return nil
}

func (b *logBatch) Commit(context.Context) error {
	cs := b.cs
	b.cs = nil
	if len(cs) == 0 {
		return nil
	}
	return b.log.apply(cs)
}
