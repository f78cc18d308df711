package transport

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// lobbyRate is how many requests of strangers begin each second for each processor
// while others are served, and lobbyInside how many of them are decided on at a time,
// for each processor. lobbyRoom is how many bytes wait, of which each request counts for
// lobbySeat at least: a thousand, or less of large ones. lobbyStale is how long one is
// believed to be decided on.
const (
	lobbyRate   = 5
	lobbyInside = 2
	lobbyRoom   = 32 << 20
	lobbySeat   = 32 << 10
	lobbyStale  = arrivalsStale
)

// A lobby is where the requests of strangers wait: of peers that have neither paid for
// anything nor taken it. To begin a deal takes some 8 ms of processor time and costs its
// peer nothing, and who comes under many names could take all the time there is. So the
// first request of each stranger begins at once, a few at a time, and what else they ask
// for a few each second while peers that are proven are served, those first who have had
// nothing and then in turns. Who is proven does not wait. Without any that is proven
// nobody is held up.
type lobby struct {
	// enter gives one that has waited to graphsync, on a goroutine of its own, and calls
	// entered. It and refuse are called with mu held, and must not call back.
	enter  func(p peer.ID, req gsmsg.GraphSyncRequest, awaited bool)
	refuse func(peer.ID, graphsync.RequestID)
	floods func(peer.ID) bool // whether a peer asks faster than it may; likewise
	live   func(peer.ID) int  // how many requests of a peer are served

	mu     sync.Mutex // guards the fields below
	guests map[peer.ID]*guest
	inside map[graphsync.RequestID]time.Time // strangers' that are being decided on, and since when
	room   int                               // bytes that may wait beside those that do
	coming map[graphsync.RequestID]bool      // that enter was called for and entered not yet; true if cancelled since
	order  uint64                            // of who comes
	pace   *rate.Limiter
	timer  *time.Timer // of what waits for its pace
}

// guest is a peer that asks for something.
type guest struct {
	proven bool
	begun  int      // requests as a stranger
	waits  []seated // in the order in which they came
	weighs int      // waits, in bytes
	since  uint64   // when the first of waits came, or the last of its requests had its turn
}

// seated is a request that waits, and what it takes of the room.
type seated struct {
	gsmsg.GraphSyncRequest
	weighs    int
	cancelled bool
}

func newLobby(live func(peer.ID) int) *lobby {
	many := runtime.GOMAXPROCS(0)
	return &lobby{
		live: live, guests: make(map[peer.ID]*guest), inside: make(map[graphsync.RequestID]time.Time),
		coming: make(map[graphsync.RequestID]bool), room: lobbyRoom,
		pace: rate.NewLimiter(rate.Limit(lobbyRate*many), 1),
	}
}

// guest returns what is known of p. mu is held.
func (l *lobby) guest(p peer.ID) *guest {
	g := l.guests[p]
	if g == nil {
		g = &guest{}
		l.guests[p] = g
	}
	return g
}

// come takes a new request of p. It reports whether that begins now, and whether blocks
// wait for it; else it waits for enter. Where the room is full, the last one of the peer
// that takes most of it is refused.
func (l *lobby) come(p peer.ID, req gsmsg.GraphSyncRequest) (now, awaited bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.guest(p)
	if g.again(req) {
		return false, false
	}
	if g.proven || l.room == lobbyRoom && l.mayBegin(g) {
		l.begin(g, req)
		return true, g.awaited()
	}
	if len(g.waits) == 0 {
		l.order++
		g.since = l.order
	}
	s := seated{req, max(lobbySeat, weight(req)), false}
	g.waits, g.weighs = append(g.waits, s), g.weighs+s.weighs
	for l.room -= s.weighs; l.room < 0; {
		l.sendAway()
	}
	l.advance()
	return false, false
}

// sendAway refuses the last request of the peer that takes most of the room. mu is held.
func (l *lobby) sendAway() {
	var who peer.ID
	var most *guest
	for p, g := range l.guests {
		if most == nil || g.weighs > most.weighs {
			who, most = p, g
		}
	}
	l.refuse(who, l.take(most, len(most.waits)-1).ID())
}

// refuseAll refuses what a peer has waiting. mu is held.
func (l *lobby) refuseAll(p peer.ID, g *guest) {
	for len(g.waits) > 0 {
		l.refuse(p, l.take(g, len(g.waits)-1).ID())
	}
}

// take takes out what waits of g at i. mu is held.
func (l *lobby) take(g *guest, i int) seated {
	s := g.waits[i]
	g.waits, g.weighs = slices.Delete(g.waits, i, i+1), g.weighs-s.weighs
	l.room += s.weighs
	return s
}

// begin notes that a request of g is given to graphsync. mu is held.
func (l *lobby) begin(g *guest, req gsmsg.GraphSyncRequest) {
	if !g.proven {
		g.begun++
		l.inside[req.ID()] = time.Now()
	}
}

// awaited reports whether blocks wait for the request that begins, see arrivals: not for
// one of a stranger that has asked for something before, or they would wait for many.
// It is called after begin.
func (g *guest) awaited() bool { return g.proven || g.begun == 1 }

// mayBegin reports whether a request of the stranger g may begin now, and has it paced.
// mu is held.
func (l *lobby) mayBegin(g *guest) bool {
	if len(l.inside) >= lobbyInside*runtime.GOMAXPROCS(0) {
		l.dropStale()
		return false
	}
	return g.begun == 0 || !l.guarded() || l.pace.Allow()
}

// dropStale forgets requests that graphsync may have lost. mu is held.
func (l *lobby) dropStale() {
	for id, since := range l.inside {
		if time.Since(since) > lobbyStale {
			delete(l.inside, id)
		}
	}
}

// guarded reports whether a peer that is proven is served. mu is held.
func (l *lobby) guarded() bool {
	for p, g := range l.guests {
		if g.proven && l.live(p) > 0 {
			return true
		}
	}
	return false
}

// advance lets in who may begin. mu is held.
func (l *lobby) advance() {
	for l.room < lobbyRoom {
		p, g := l.first()
		if l.floods(p) {
			l.refuseAll(p, g) // what is above its rate is not served: nor what is within
			continue
		}
		if !l.mayBegin(g) {
			l.wakeLater()
			return
		}
		l.admit(p, g)
	}
}

// first is the stranger whose turn it is: one that has had nothing, else the one that has
// waited longest since its last turn. How much each had does not count: who is here for
// long would come behind all that come under new names. mu is held, and there is one that
// waits.
func (l *lobby) first() (who peer.ID, g *guest) {
	for p, o := range l.guests {
		if len(o.waits) > 0 && (g == nil || o.before(g)) {
			who, g = p, o
		}
	}
	return who, g
}

// before reports whether it is g's turn rather than o's.
func (g *guest) before(o *guest) bool {
	if (g.begun == 0) != (o.begun == 0) {
		return g.begun == 0
	}
	return g.since < o.since
}

// admit lets in the first that waits of a guest. mu is held.
func (l *lobby) admit(p peer.ID, g *guest) {
	s := l.take(g, 0)
	l.order++
	g.since = l.order
	l.begin(g, s.GraphSyncRequest)
	l.coming[s.ID()] = s.cancelled
	l.enter(p, s.GraphSyncRequest, g.awaited())
}

// entered notes that graphsync has a request that enter was called for, and reports
// whether its peer has cancelled it in the meantime.
func (l *lobby) entered(id graphsync.RequestID) (cancelled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cancelled = l.coming[id]
	delete(l.coming, id)
	return cancelled
}

// cancel notes that p has cancelled a request that graphsync does not have yet, and
// reports whether there is one. That comes in all the same, to be cancelled then: it may
// be restarted, and data-transfer has to know its channel for that.
func (l *lobby) cancel(p peer.ID, id graphsync.RequestID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, coming := l.coming[id]; coming {
		l.coming[id] = true
		return true
	}
	if g := l.guests[p]; g != nil {
		for i := range g.waits {
			if g.waits[i].ID() == id {
				g.waits[i].cancelled = true
				return true
			}
		}
	}
	return false
}

// again reports whether req is one that was cancelled and waits, and now is not: it was
// paused and goes on. mu is held.
func (g *guest) again(req gsmsg.GraphSyncRequest) bool {
	for i := range g.waits {
		if s := &g.waits[i]; s.cancelled && s.ID() == req.ID() {
			s.GraphSyncRequest, s.cancelled = req, false
			return true
		}
	}
	return false
}

// waits returns how many requests of p wait.
func (l *lobby) waits(p peer.ID) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.guests[p]; g != nil {
		return len(g.waits)
	}
	return 0
}

// forget forgets p, that is gone, and what it has waiting.
func (l *lobby) forget(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.guests[p]; g != nil {
		l.room += g.weighs
		delete(l.guests, p)
	}
}

// wakeLater has advance called when the pace allows for one more, or what was lost is
// stale. What is decided on comes before. mu is held.
func (l *lobby) wakeLater() {
	wait := time.Duration(float64(time.Second) / float64(l.pace.Limit()))
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.wake)
		return
	}
	l.timer.Reset(wait)
}

func (l *lobby) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance()
}

// decided notes that a request has begun, or never will.
func (l *lobby) decided(id graphsync.RequestID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.inside[id]; ok {
		delete(l.inside, id)
		l.advance()
	}
}

// prove notes that p is no stranger: what it has waiting begins. One that has asked for
// nothing is not remembered.
func (l *lobby) prove(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.guests[p]
	if g == nil {
		return
	}
	g.proven = true
	for len(g.waits) > 0 {
		l.admit(p, g)
	}
}
