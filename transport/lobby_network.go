package transport

import (
	"sync"

	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"
)

// open lets what waits in the lobby of e into graphsync, in time.
func (n *GuardedNetwork) open(e *Exchange) {
	door := &door{n: n, e: e, queues: make(peerQueues[gsmsg.GraphSyncRequest])}
	e.lobby.enter = door.enter
	e.lobby.refuse = func(p peer.ID, id graphsync.RequestID) {
		n.counts.add(ReasonBusy)
		n.forget(p, id)
		n.busy.say(p, id)
	}
	e.lobby.floods = n.floods
}

// floods reports whether p has asked faster than it may and not been quiet since.
func (n *GuardedNetwork) floods(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.peers[p]
	return r != nil && r.floods()
}

// floods is the same. It is called with the network's mu held.
func (r *remote) floods() bool { return r.limit.Tokens() < 0 }

// door is where requests go from a lobby to graphsync, those of a peer one after the
// other: a restart is not to come before what it restarts.
type door struct {
	n *GuardedNetwork
	e *Exchange

	mu     sync.Mutex                         // guards the field below
	queues peerQueues[gsmsg.GraphSyncRequest] // of each peer for which a goroutine is at it
}

// enter has graphsync receive a request that has waited. It returns at once.
func (d *door) enter(p peer.ID, req gsmsg.GraphSyncRequest, awaited bool) {
	if awaited {
		d.e.arrivals.come(req.ID())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queues.add(p, req) {
		d.e.spawn(func() { d.letIn(p) })
	}
}

// take returns what of p is at the door, and forgets p if that is nothing.
func (d *door) take(p peer.ID) []gsmsg.GraphSyncRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queues.take(p)
}

// letIn lets in all of p that are at the door.
func (d *door) letIn(p peer.ID) {
	for all := d.take(p); all != nil; all = d.take(p) {
		for _, req := range all {
			d.receive(p, req)
			if d.e.lobby.entered(req.ID()) {
				d.n.cancel(d.e.ctx, p, req.ID())
			}
		}
	}
}

// receive has graphsync receive one.
func (d *door) receive(p peer.ID, req gsmsg.GraphSyncRequest) {
	defer d.e.recovered("message", nil)
	r, _ := d.n.delegate()
	if r == nil {
		return
	}
	if d.n.restarts(p, req) {
		d.settle(p, req)
	}
	r.ReceiveMessage(d.e.ctx, p, requestsMessage(req))
}

// settle ends what req restarts, which may have come to graphsync only while req waited.
// That takes as long as its peer likes, so that req is not one that is decided on: others
// come in meanwhile.
func (d *door) settle(p peer.ID, req gsmsg.GraphSyncRequest) {
	d.e.decided(req.ID())
	if gs, ok := d.e.GraphExchange.(stater); ok {
		gs.PeerState(p) // it answers when it has decided on what it was given before
	}
	d.n.settleRestarts(d.e.ctx, d.e, p, []gsmsg.GraphSyncRequest{req})
}

// waits reports whether a request waits in the lobby of e.
func waits(e *Exchange, p peer.ID, req gsmsg.GraphSyncRequest) bool {
	if req.Type() != graphsync.RequestTypeNew {
		return false
	}
	now, awaited := e.lobby.come(p, req)
	if awaited {
		e.arrivals.come(req.ID())
	}
	return !now
}

// waited notes that p has cancelled a request that waits in the lobby, and reports
// whether there is one: graphsync has not heard of it.
func (n *GuardedNetwork) waited(p peer.ID, id graphsync.RequestID) bool {
	_, e := n.delegate()
	return e != nil && e.lobby.cancel(p, id)
}

// nodeWeighs is about what a node takes that holds nothing.
const nodeWeighs = 64

// weight is about how many bytes a request takes in memory.
func weight(req gsmsg.GraphSyncRequest) int {
	w := nodeWeight(req.Selector())
	for _, name := range req.ExtensionNames() {
		data, _ := req.Extension(name)
		w += len(name) + nodeWeight(data)
	}
	return w
}

// nodeWeight is weight of a node, whose depth and size the decoder has bounded.
func nodeWeight(n datamodel.Node) int {
	if n == nil {
		return 0
	}
	w := nodeWeighs
	switch n.Kind() {
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return w
			}
			w += nodeWeight(k) + nodeWeight(v)
		}
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return w
			}
			w += nodeWeight(v)
		}
	case datamodel.Kind_String:
		s, _ := n.AsString()
		w += len(s)
	case datamodel.Kind_Bytes:
		b, _ := n.AsBytes()
		w += len(b)
	}
	return w
}
