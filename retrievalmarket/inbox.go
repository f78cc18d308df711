package retrievalmarket

import "sync"

// inbox holds what happened to one deal until the deal's goroutine takes it.
// post never blocks: it is called on the one goroutine that serves all of
// go-data-transfer's subscribers, and by peers' streams.
type inbox struct {
	wake chan struct{} // capacity 1: something is in, or rouse was called

	mu    sync.Mutex
	items []any // guarded by mu
}

// inboxSize bounds what waits for one deal. Progress merges, so that only a
// peer who floods payments or a database that hangs can fill it.
const inboxSize = 256

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// post leaves v for the deal. A progress note replaces the one before it. It
// returns false if the inbox is full; what it refused was a note that the
// tick makes up for, or a payment that the peer will send again.
func (b *inbox) post(v any) bool {
	b.mu.Lock()
	full := false
	if n := len(b.items); n > 0 && merges(b.items[n-1], v) {
		b.items[n-1] = v
	} else if full = n >= inboxSize; !full {
		b.items = append(b.items, v)
	}
	b.mu.Unlock()
	b.rouse()
	return !full
}

// rouse has the deal look at what is no note. It never blocks.
func (b *inbox) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// merges reports whether v makes old superfluous.
func merges(old, v any) bool {
	a, ok := old.(channelNote)
	if !ok {
		return false
	}
	b, ok := v.(channelNote)
	return ok && a.kind == noteProgress && b.kind == noteProgress && a.chid == b.chid
}

// take returns everything that is in, in order, and empties the inbox.
func (b *inbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}
