package transport

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// visitors are who came into a lobby, and who was sent away from it.
type visitors struct {
	*lobby

	noting  sync.Mutex // guards the fields below
	serves  map[peer.ID]int
	in      []peer.ID
	ids     []graphsync.RequestID // of in
	awaited int                   // of those in in
	away    []peer.ID
}

func newVisitors() *visitors {
	v := &visitors{serves: make(map[peer.ID]int)}
	v.lobby = newLobby(func(p peer.ID) int {
		v.noting.Lock()
		defer v.noting.Unlock()
		return v.serves[p]
	})
	v.enter = func(p peer.ID, req gsmsg.GraphSyncRequest, awaited bool) { v.note(p, req.ID(), awaited) }
	v.floods = func(p peer.ID) bool { return p == "flood" }
	v.refuse = func(p peer.ID, _ graphsync.RequestID) { v.away = append(v.away, p) }
	return v
}

func (v *visitors) note(p peer.ID, id graphsync.RequestID, awaited bool) {
	v.noting.Lock()
	defer v.noting.Unlock()
	v.in, v.ids = append(v.in, p), append(v.ids, id)
	if awaited {
		v.awaited++
	}
}

// asks has p ask for n things.
func (v *visitors) asks(p peer.ID, n int) (ids []graphsync.RequestID) {
	for range n {
		req := gsmsg.NewRequest(graphsync.NewRequestID(), cid.NewCidV1(cid.Raw, multihash.Multihash("\x00\x01x")), nil, 0)
		ids = append(ids, req.ID())
		if now, awaited := v.come(p, req); now {
			v.note(p, req.ID(), awaited)
		}
	}
	return ids
}

// decide has graphsync decide on all that came in, until no more come in by that.
func (v *visitors) decide() {
	for i := 0; i < len(v.came()); i++ {
		v.entered(v.came()[i])
		v.decided(v.came()[i])
	}
}

// came returns the ids of those in.
func (v *visitors) came() []graphsync.RequestID {
	v.noting.Lock()
	defer v.noting.Unlock()
	return v.ids
}

// had returns how many requests of p came in.
func (v *visitors) had(p peer.ID) (n int) {
	v.noting.Lock()
	defer v.noting.Unlock()
	for _, q := range v.in {
		if q == p {
			n++
		}
	}
	return n
}

// proven makes p one that is served and no stranger.
func (v *visitors) proven(p peer.ID) {
	v.asks(p, 1)
	v.decide()
	v.serve(p, 1)
	v.prove(p)
	v.in, v.ids, v.awaited = nil, nil, 0
}

// serve has n requests of p served.
func (v *visitors) serve(p peer.ID, n int) {
	v.noting.Lock()
	defer v.noting.Unlock()
	v.serves[p] = n
}

// TestLobby: while a peer that is proven is served, each stranger has its first request
// begin at once and others a few each second, in turns; blocks wait for none but the first.
func TestLobby(t *testing.T) {
	many := runtime.GOMAXPROCS(0)
	synctest.Test(t, func(t *testing.T) {
		v := newVisitors()
		v.proven("payer")
		v.asks("a", 30)
		v.asks("b", 30)
		v.asks("c", 1)
		v.decide()
		if v.had("c") != 1 || v.had("b") == 0 || len(v.in) > 4 || v.awaited != 3 {
			t.Errorf("at once came %q, blocks wait for %d", v.in, v.awaited)
		}
		a, b := v.had("a"), v.had("b")
		const long = 2 * time.Second
		for start := time.Now(); time.Since(start) < long; <-time.After(time.Millisecond) {
			v.decide()
		}
		if n, want := len(v.came())-4, lobbyRate*many*int(long/time.Second); n < want-2 || n > want+2 || max(v.had("a")-a, v.had("b")-b)-min(v.had("a")-a, v.had("b")-b) > 1 {
			t.Errorf("%d came in %v, want %d, of a %d and of b %d", n, long, want, v.had("a")-a, v.had("b")-b)
		}
		v.asks("payer", 5)
		if v.had("payer") != 5 {
			t.Error("who is proven waits")
		}
		before := v.had("b")
		if v.prove("b"); v.had("b") != 30 || before == 30 {
			t.Errorf("of who is proven now %d are in, before %d", v.had("b"), before)
		}
		v.serve("payer", 0)
		<-time.After(time.Second)
		v.decide()
		if v.had("a") != 30 || len(v.away) != 0 {
			t.Errorf("where nobody is served %d of a are in", v.had("a"))
		}
	})
}

// TestLobbyOpen: where nobody is proven strangers come in as fast as they are decided on,
// a few at a time, and who had least is first.
func TestLobbyOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, inside := newVisitors(), lobbyInside*runtime.GOMAXPROCS(0)
		v.asks("a", 100)
		if len(v.in) != inside {
			t.Errorf("%d are decided on at a time, want %d", len(v.in), inside)
		}
		v.asks("b", 1)
		v.entered(v.ids[0])
		if v.decided(v.ids[0]); v.had("b") != 1 {
			t.Error("who has had nothing waits for one who has")
		}
		if v.decide(); v.had("a") != 100 {
			t.Errorf("%d of 100 came in", v.had("a"))
		}
		if len(v.guests) != 2 || v.room != lobbyRoom || len(v.inside) != 0 || len(v.coming) != 0 {
			t.Errorf("left are %d guests, %d, %d, %d", len(v.guests), lobbyRoom-v.room, len(v.inside), len(v.coming))
		}
	})
}

// TestLobbyFull: of the one with most the last ones go away.
func TestLobbyFull(t *testing.T) {
	v := newVisitors()
	seats := lobbyRoom / lobbySeat
	v.asks("many", seats+50)
	v.asks("few", 3)
	if slices.Contains(v.away, "few") || len(v.away) != 50+3-lobbyInside*runtime.GOMAXPROCS(0) || v.room != 0 {
		t.Errorf("%d went away, and there is room for %d bytes", len(v.away), v.room)
	}
	large := gsmsg.NewRequest(graphsync.NewRequestID(), cid.NewCidV1(cid.Raw, multihash.Multihash("\x00\x01x")), basicnode.NewBytes(make([]byte, 5*lobbySeat)), 0)
	v.away = nil
	if v.come("large", large); len(v.away) != 6 || v.waits("large") != 1 || v.room < 0 || v.room >= lobbySeat {
		t.Errorf("for one of six seats %d went away, and there is room for %d bytes", len(v.away), v.room)
	}
	v.forget("many")
	v.forget("few")
	if v.forget("large"); v.room != lobbyRoom {
		t.Errorf("of an empty lobby %d bytes are taken", lobbyRoom-v.room)
	}
}

// TestLobbyFlood: of who floods nothing waits to be served later.
func TestLobbyFlood(t *testing.T) {
	v, inside := newVisitors(), lobbyInside*runtime.GOMAXPROCS(0)
	v.asks("a", inside)
	v.asks("flood", 10)
	v.decide()
	if v.had("flood") != 0 || len(v.away) != 10 || v.room != lobbyRoom {
		t.Errorf("%d came in of a flood, %d were refused", v.had("flood"), len(v.away))
	}
}

// TestLobbyLeave: what is cancelled comes in and is cancelled then, unless it goes on
// before, and nothing comes in of a peer that is gone.
func TestLobbyLeave(t *testing.T) {
	v := newVisitors()
	inside := lobbyInside * runtime.GOMAXPROCS(0)
	ids := v.asks("a", inside+3)
	switch {
	case v.cancel("b", ids[inside+1]):
		t.Error("one was cancelled by another peer")
	case !v.cancel("a", ids[inside+1]):
		t.Error("what waits cannot be cancelled")
	case v.cancel("a", ids[0]):
		t.Error("graphsync is not told that what it has is cancelled")
	case v.waits("a") != 3:
		t.Errorf("%d wait, want 3: what is cancelled may be restarted", v.waits("a"))
	}
	again := gsmsg.NewRequest(ids[inside+1], cid.NewCidV1(cid.Raw, multihash.Multihash("\x00\x01x")), nil, 0)
	if now, _ := v.come("a", again); now || v.waits("a") != 3 {
		t.Errorf("%d wait, want 3, when what was paused goes on", v.waits("a"))
	}
	v.cancel("a", ids[inside+2])
	v.decided(ids[0]) // so that the next one is coming
	if !v.cancel("a", ids[inside]) || !v.entered(ids[inside]) || v.entered(ids[inside]) {
		t.Error("what is coming was cancelled, and is not when it has come")
	}
	for i := 1; i <= 2; i++ {
		v.decided(ids[i])
		if cancelled := v.entered(ids[inside+i]); cancelled != (i == 2) {
			t.Errorf("that %d is cancelled is said to be %v", inside+i, cancelled)
		}
	}
	v.asks("a", 1)
	v.forget("a")
	if v.decide(); v.had("a") != inside+3 || v.room != lobbyRoom {
		t.Errorf("%d of who is gone came in, %d bytes wait", v.had("a"), lobbyRoom-v.room)
	}
	if v.prove("a"); len(v.guests) != 0 {
		t.Error("who is gone is remembered")
	}
}

// TestLobbyLost: what graphsync loses holds up others for a while.
func TestLobbyLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, inside := newVisitors(), lobbyInside*runtime.GOMAXPROCS(0)
		v.asks("a", inside+1)
		<-time.After(lobbyStale + time.Second)
		if v.had("a") != inside+1 {
			t.Error("what waits stands still for what is lost")
		}
	})
}

// TestLobbyNetwork: what waits is not seen by graphsync, nor is its cancel; it counts for
// what its peer may have, and is seen, and cancelled, when the peer is proven.
func TestLobbyNetwork(t *testing.T) {
	root := buildDAG(t, newMemStore(), 1, 1, 10, nil).root
	s := &netStub{}
	n := WrapNetwork(s, NetworkGuard{Logger: quiet()})
	n.SetDelegate(s)
	e := &Exchange{pace: newPace(1 << 20), table: newTable(10), arrivals: newArrivals(), ctx: t.Context()}
	e.lobby, e.cfg.MaxLivePerPeer = newLobby(e.table.liveOf), 4
	n.bind(e)
	e.lobby.guest("payer").proven = true
	e.table.peers["payer"] = 1
	var reqs []gsmsg.GraphSyncRequest
	send := func(req gsmsg.GraphSyncRequest) {
		reqs = append(reqs, req)
		s.delegate.ReceiveMessage(t.Context(), "p", requestsMessage(req))
	}
	for range 7 {
		send(newRequest(root, wholeDAG()))
	}
	e.lobby.decided(reqs[0].ID())
	if waits := e.lobby.waits("p"); len(s.got)+waits < 5 || waits == 0 || waits > 4 {
		t.Fatalf("of 7 graphsync sees %d at once, and %d wait", len(s.got), waits)
	}
	before, waits := len(s.got), e.lobby.waits("p")
	send(gsmsg.NewCancelRequest(reqs[before+1].ID()))
	if len(s.got) != before || e.lobby.waits("p") != waits {
		t.Errorf("graphsync saw %d when one was cancelled that waits, of which %d are left", len(s.got)-before, e.lobby.waits("p"))
	}
	e.Prove("p")
	e.work.Wait()
	if len(s.got) != before+waits+1 {
		t.Errorf("graphsync sees %d of %d and a cancel when their peer is proven", len(s.got)-before, waits)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestLobbyOldGuest: one that was here for long, and had much, has its turn among those
// that come under ever new names.
func TestLobbyOldGuest(t *testing.T) {
	many := runtime.GOMAXPROCS(0)
	synctest.Test(t, func(t *testing.T) {
		v := newVisitors()
		v.asks("old", 50)
		v.decide()
		v.proven("payer")
		v.asks("old", 5)
		const long = 20
		for i := range long {
			for j := range many {
				v.asks(peer.ID(string(rune('a'+many*i+j))), lobbyRate+3)
			}
			for start := time.Now(); time.Since(start) < time.Second; <-time.After(20 * time.Millisecond) {
				v.decide()
			}
		}
		if v.had("old") < 3 {
			t.Errorf("who was here for long had %d of 5 in %d s", v.had("old"), long)
		}
	})
}
