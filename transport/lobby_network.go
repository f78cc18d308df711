package transport

import (
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"
)

// open lets what waits in the lobby of e into graphsync, in time.
func (n *GuardedNetwork) open(e *Exchange) {
	l := e.lobby
	l.enter = func(p peer.ID, req gsmsg.GraphSyncRequest, awaited bool) { n.letIn(e, p, req, awaited) }
	l.refuse = func(p peer.ID, id graphsync.RequestID) {
		n.counts.add(ReasonBusy)
		n.forget(p, id)
		n.busy.say(p, id)
	}
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

// letIn has graphsync receive a request that has waited in the lobby of e.
func (n *GuardedNetwork) letIn(e *Exchange, p peer.ID, req gsmsg.GraphSyncRequest, awaited bool) {
	if awaited {
		e.arrivals.come(req.ID())
	}
	e.spawn(func() {
		if r, _ := n.delegate(); r != nil {
			r.ReceiveMessage(e.ctx, p, requestsMessage(req))
		}
		if e.lobby.entered(req.ID()) {
			n.cancel(e.ctx, p, req.ID())
		}
	})
}

// waited takes out a request of p that waits in the lobby, and reports whether there is
// one: graphsync has not heard of it.
func (n *GuardedNetwork) waited(p peer.ID, id graphsync.RequestID) bool {
	_, e := n.delegate()
	if e == nil || !e.lobby.cancel(p, id) {
		return false
	}
	n.forget(p, id)
	return true
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
