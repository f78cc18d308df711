package transport

import "github.com/libp2p/go-libp2p/core/peer"

// peerQueues are what is to be done for peers, for each by a goroutine of its own that
// ends when there is nothing more. Whoever has them guards them with a lock.
type peerQueues[T any] map[peer.ID][]T

// add adds x to what is to be done for p, and reports whether no goroutine is at it: one
// is to be started then.
func (q peerQueues[T]) add(p peer.ID, x T) (first bool) {
	queue, busy := q[p]
	q[p] = append(queue, x)
	return !busy
}

// take returns what is to be done for p. If that is nothing it forgets p, and the
// goroutine is to end.
func (q peerQueues[T]) take(p peer.ID) []T {
	all := q[p]
	if len(all) == 0 {
		delete(q, p)
		return nil
	}
	q[p] = nil
	return all
}
