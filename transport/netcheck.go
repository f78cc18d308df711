package transport

import (
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
)

// filter returns the requests of p that may pass, cancels apart from the rest.
func (n *GuardedNetwork) filter(p peer.ID, reqs []gsmsg.GraphSyncRequest) (cancels, rest []gsmsg.GraphSyncRequest) {
	room := n.room(p)
	for i, req := range reqs {
		var err error
		begins := req.Type() == graphsync.RequestTypeNew
		if i >= n.cfg.MaxRequests {
			err = refuse(ReasonRate, "more than %d requests in a message", n.cfg.MaxRequests)
		} else if err = n.check(p, req); err == nil && begins {
			err = n.mayBegin(p, req, room)
		}
		if begins && err == nil {
			room--
		}
		switch {
		case err != nil:
			if why := reasonOf(err, ReasonMalformed); begins && (why == ReasonRate || why == ReasonBusy) {
				n.busy.say(p, req.ID())
			}
			n.offence(p, err)
		case req.Type() == graphsync.RequestTypeCancel:
			if !n.waited(p, req.ID()) {
				cancels = append(cancels, req)
			}
		default:
			rest = append(rest, alone(req))
		}
	}
	return cancels, rest
}

// alone returns req with a deduplication key that no other has. Of two requests of one
// key, or none, graphsync leaves out of the second what the first has sent, also on
// another channel, and nobody counts what is left out: a peer that came back to its deal
// on a new channel, while its old request was still there, could go beyond what it had
// paid for by all that it had been sent before.
func alone(req gsmsg.GraphSyncRequest) gsmsg.GraphSyncRequest {
	if req.Type() != graphsync.RequestTypeNew || checkExtensions(req) != nil {
		return req // not one that is served: the exchange refuses what it does not like
	}
	key := graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewString("request " + req.ID().String())}
	return req.ReplaceExtensions([]graphsync.ExtensionData{key})
}

// mayBegin decides on a request that is well-formed and does not come too fast. Only
// here its message is looked at: that takes time.
func (n *GuardedNetwork) mayBegin(p peer.ID, req gsmsg.GraphSyncRequest, room int) (err error) {
	switch again := n.restarts(p, req); {
	case again && !n.mayRestart(p):
		err = refuse(ReasonRate, "restarts come faster than %v per second", n.cfg.RestartRate)
	case !again && room <= 0:
		err = refuse(ReasonBusy, "peer has as many live requests as it may have")
	default:
		return nil
	}
	n.forget(p, req.ID())
	return err
}

// restarts reports whether req takes the place of another: whether it may is for
// the exchange to say, when that has ended.
func (n *GuardedNetwork) restarts(p peer.ID, req gsmsg.GraphSyncRequest) bool {
	in, err := examine("", p, req)
	return err == nil && in.Restart
}

// mayRestart counts a restart of p and reports whether it is none too many.
func (n *GuardedNetwork) mayRestart(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.remoteOf(p).restarts.Allow()
}

// slowDown returns when so many more requests of p may be looked at. It returns
// false if p has gone away and is forgotten: what it left behind would make it known
// again for ever.
func (n *GuardedNetwork) slowDown(p peer.ID, requests int) bool {
	n.mu.Lock()
	if n.left(p) {
		n.mu.Unlock()
		return false
	}
	r := n.remoteOf(p)
	if r.floods() { // of a flood less is looked at: nothing of it passes
		requests *= refusedCost
	}
	wait := r.reads.ReserveN(time.Now(), min(requests, n.cfg.ReadBurst)).Delay()
	n.mu.Unlock()
	if wait < leastWait {
		return true
	}
	pause(n.busy.ctx, nil, wait)
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.left(p)
}

// left says that p is forgotten and there is no connection to it. It is called with
// mu held.
func (n *GuardedNetwork) left(p peer.ID) bool {
	return n.peers[p] == nil && n.cfg.Connected != nil && !n.cfg.Connected(p)
}

// room returns how many requests p may begin.
func (n *GuardedNetwork) room(p peer.ID) int {
	n.mu.Lock()
	e := n.exchange
	n.mu.Unlock()
	if e == nil {
		return n.cfg.MaxRequests
	}
	return e.cfg.MaxLivePerPeer - e.table.liveOf(p) - e.lobby.waits(p)
}

// check decides on one request of p and remembers its id.
func (n *GuardedNetwork) check(p peer.ID, req gsmsg.GraphSyncRequest) error {
	if err := wellFormed(req); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.remoteOf(p)
	if !n.mayPass(p, r) {
		return refuse(ReasonRate, "requests come faster than %v per second", n.cfg.Rate)
	}
	cancelled, known := r.known[req.ID()]
	switch req.Type() {
	case graphsync.RequestTypeNew:
		if known && !cancelled {
			return refuse(ReasonDuplicate, "request id %s is in use", req.ID())
		}
		if n.ofOther(p, req.ID()) {
			return refuse(ReasonNotOwner, "request id %s is another peer's", req.ID())
		}
		r.learn(req.ID(), n.cfg.MaxKnown)
	case graphsync.RequestTypeCancel:
		if !known {
			return refuse(ReasonNotOwner, "cancels request %s, which is not its own", req.ID())
		}
		r.known[req.ID()] = true
	default:
		if !known {
			return refuse(ReasonNotOwner, "updates request %s, which is not its own", req.ID())
		}
	}
	return nil
}

// refusedCost is how many requests above the rate cost as much as one that passes: a
// peer that asks at a times the rate is served at (refusedCost - a)/(refusedCost - 1)
// of it. One that is a little too fast is slowed down a little, and a flood, of which
// what passes costs a hundred times what is dropped, is not served at all. The debt is
// a second's at most.
const refusedCost = 4

// mayPass counts a request and reports whether it is within the rate, or earned by what
// was sent to its peer. It is called with mu held.
func (n *GuardedNetwork) mayPass(p peer.ID, r *remote) bool {
	if r.limit.Allow() || n.exchange != nil && r.earned.Tokens() >= 1 && n.exchange.pace.spendRequest(p) && r.earned.Allow() {
		return true
	}
	if r.over++; r.over >= refusedCost {
		r.over = 0
		if now := time.Now(); r.limit.TokensAt(now) > -float64(r.limit.Limit()) {
			r.limit.ReserveN(now, 1)
		}
	}
	return false
}

// ofOther says whether id is that of a live request of another peer. It is
// called with mu held.
func (n *GuardedNetwork) ofOther(p peer.ID, id graphsync.RequestID) bool {
	if n.exchange == nil {
		return false
	}
	s := n.exchange.table.get(id)
	return s != nil && s.peer != p
}

// wellFormed refuses a request that could crash graphsync or data-transfer. It
// is pure.
func wellFormed(req gsmsg.GraphSyncRequest) error {
	switch req.Type() {
	case graphsync.RequestTypeCancel:
		return nil
	case graphsync.RequestTypeUpdate:
		return checkUpdate(req)
	case graphsync.RequestTypeNew:
	default:
		return refuse(ReasonMalformed, "request type %.32q", string(req.Type()))
	}
	if !req.Root().Defined() || isNull(req.Selector()) {
		return refuse(ReasonMalformed, "request has no root or no selector")
	}
	for _, name := range req.ExtensionNames() {
		if v, _ := req.Extension(name); isNull(v) {
			return refuse(ReasonMalformed, "extension %.64q is null", string(name))
		}
	}
	return nil
}

// offence counts what was dropped, and closes the connection to a peer that has
// offended too often.
func (n *GuardedNetwork) offence(p peer.ID, err error) {
	why := reasonOf(err, ReasonMalformed)
	n.counts.add(why)
	n.tell(p, err)
	if why == ReasonNotOwner || why == ReasonBusy {
		return // an honest peer may cancel what has just ended, ids cannot be guessed; or have many deals
	}
	n.mu.Lock()
	r := n.remoteOf(p)
	r.offences++
	closing := n.cfg.Offences > 0 && r.offences >= n.cfg.Offences && n.cfg.ClosePeer != nil
	if closing {
		r.offences = 0
	}
	n.mu.Unlock()
	if closing {
		go n.cfg.ClosePeer(p)
	}
}

// tellEvery is how often it is logged at most that a peer offends.
const tellEvery = time.Second

// tell logs an offence, now and then.
func (n *GuardedNetwork) tell(p peer.ID, err error) {
	n.mu.Lock()
	r, now := n.remoteOf(p), time.Now()
	more := r.hushed
	if now.Sub(r.logged) < tellEvery {
		r.hushed++
		n.mu.Unlock()
		return
	}
	r.logged, r.hushed = now, 0
	n.mu.Unlock()
	n.cfg.Logger.Info("request dropped", "peer", p, "error", err, "before", more)
}

// responses returns the responses of p without those that hold a null extension.
func (n *GuardedNetwork) responses(p peer.ID, rs []gsmsg.GraphSyncResponse) map[graphsync.RequestID]gsmsg.GraphSyncResponse {
	if len(rs) == 0 {
		return nil
	}
	out := make(map[graphsync.RequestID]gsmsg.GraphSyncResponse, len(rs))
	for _, r := range rs {
		if hasNull(r) {
			n.offence(p, refuse(ReasonMalformed, "response with a null extension"))
			continue
		}
		out[r.RequestID()] = r
	}
	return out
}

func anyNull(rs []gsmsg.GraphSyncResponse) bool {
	for _, r := range rs {
		if hasNull(r) {
			return true
		}
	}
	return false
}

func hasNull(r gsmsg.GraphSyncResponse) bool {
	for _, name := range r.ExtensionNames() {
		if v, _ := r.Extension(name); isNull(v) {
			return true
		}
	}
	return false
}

func requestMap(reqs []gsmsg.GraphSyncRequest) map[graphsync.RequestID]gsmsg.GraphSyncRequest {
	if len(reqs) == 0 {
		return nil
	}
	m := make(map[graphsync.RequestID]gsmsg.GraphSyncRequest, len(reqs))
	for _, r := range reqs {
		m[r.ID()] = r
	}
	return m
}

func blockMap(bs []blocks.Block) map[cid.Cid]blocks.Block {
	if len(bs) == 0 {
		return nil
	}
	m := make(map[cid.Cid]blocks.Block, len(bs))
	for _, b := range bs {
		m[b.Cid()] = b
	}
	return m
}
