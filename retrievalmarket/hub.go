package retrievalmarket

import "sync"

// hub tells subscribers what happened to deals. Each subscriber has its own
// goroutine and queue, so a slow one delays nobody. In a queue a progress event
// replaces the one of the same deal before it: a slow subscriber misses steps,
// never the last state.
type hub[K comparable, E comparable, S any] struct {
	progress E // the event that may be merged

	mu   sync.Mutex
	subs map[*subscription[K, E, S]]struct{} // guarded by mu
	done sync.WaitGroup
}

func newHub[K comparable, E comparable, S any](progress E) *hub[K, E, S] {
	return &hub[K, E, S]{progress: progress, subs: make(map[*subscription[K, E, S]]struct{})}
}

type notice[K comparable, E comparable, S any] struct {
	key   K
	event E
	state S
}

type subscription[K comparable, E comparable, S any] struct {
	fn   func(E, S)
	wake chan struct{}
	stop chan struct{}
	once sync.Once

	mu    sync.Mutex
	queue []notice[K, E, S] // guarded by mu
	tail  map[K]int         // guarded by mu: where a deal's mergeable progress stands
}

// subscribe calls fn, on a goroutine of its own, for everything published from
// now on until the returned function is called.
func (h *hub[K, E, S]) subscribe(fn func(E, S)) Unsubscribe {
	s := &subscription[K, E, S]{fn: fn, wake: make(chan struct{}, 1), stop: make(chan struct{}), tail: make(map[K]int)}
	h.mu.Lock()
	h.subs[s] = struct{}{}
	h.mu.Unlock()
	h.done.Go(s.run)
	return func() { h.drop(s) }
}

func (h *hub[K, E, S]) drop(s *subscription[K, E, S]) {
	h.mu.Lock()
	delete(h.subs, s)
	h.mu.Unlock()
	s.once.Do(func() { close(s.stop) })
}

// publish never waits for a subscriber.
func (h *hub[K, E, S]) publish(key K, event E, state S) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.add(notice[K, E, S]{key, event, state}, event == h.progress)
	}
}

// close lets every subscriber finish what is queued and waits for them.
func (h *hub[K, E, S]) close() {
	h.mu.Lock()
	subs := h.subs
	h.subs = make(map[*subscription[K, E, S]]struct{})
	h.mu.Unlock()
	for s := range subs {
		s.once.Do(func() { close(s.stop) })
	}
	h.done.Wait()
}

func (s *subscription[K, E, S]) add(n notice[K, E, S], mergeable bool) {
	s.mu.Lock()
	if at, ok := s.tail[n.key]; ok && mergeable {
		s.queue[at] = n
	} else {
		s.queue = append(s.queue, n)
		delete(s.tail, n.key)
		if mergeable {
			s.tail[n.key] = len(s.queue) - 1
		}
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription[K, E, S]) run() {
	for {
		select {
		case <-s.wake:
			s.deliver()
		case <-s.stop:
			s.deliver()
			return
		}
	}
}

func (s *subscription[K, E, S]) deliver() {
	for {
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		clear(s.tail)
		s.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, n := range queue {
			s.fn(n.event, n.state)
		}
	}
}
