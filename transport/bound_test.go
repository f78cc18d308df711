package transport

import (
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
)

// TestBound pins what a channel may be sent of blocks of 60 bytes, of which it skips two.
func TestBound(t *testing.T) {
	links := someLinks(t, 10)
	for name, tc := range map[string]struct {
		bound bound
		sent  int // blocks, until one is outside
	}{
		"none":                              {bound{}, 8},
		"free":                              {bound{set: true, own: true, size: 1 << 62}, 8},
		"its own beginning":                 {bound{set: true, own: true, size: 100}, 4},
		"its own beginning, to the byte":    {bound{set: true, own: true, size: 120}, 4},
		"its own beginning, one more":       {bound{set: true, own: true, size: 121}, 5},
		"held until it is paid for":         {bound{set: true, own: true}, 2},
		"begins further on":                 {bound{set: true, from: 60, size: 121, held: 60}, 4},
		"begins further on than it can":     {bound{set: true, from: 60, size: 121, held: 59}, 0},
		"begins where it should":            {bound{set: true, from: 120, size: 121}, 5},
		"begins before":                     {bound{set: true, from: 121, size: 1 << 62}, 0},
		"holds more than it may be sent":    {bound{set: true, size: 60, held: 120}, 2},
		"holds all that it may be sent":     {bound{set: true, size: 120, held: 120}, 2},
		"holds more than it may and cannot": {bound{set: true, size: 60, held: 119}, 0},
	} {
		m, id := &meter{}, graphsync.NewRequestID()
		m.begin(id, 2)
		m.bound = tc.bound
		sent := 0
		for i := range int64(10) {
			wire := i >= 2
			if _, outside := m.block(id, fakeBlock{links[i], 60, wire, i + 1}); outside {
				break
			}
			if wire {
				sent++
			}
		}
		if sent != tc.sent {
			t.Errorf("%s: %d blocks, want %d", name, sent, tc.sent)
		}
		p := m.progress()
		if p.Outside != (sent < 8) || p.Latest != 60*uint64(sent) || sent == 0 && (p.Begun || p.Reached != 0 || p.High != 0) {
			t.Errorf("%s: what is outside counts: %+v", name, p)
		}
	}
}

// TestBoundRaised: two blocks more are sent whenever the bound is raised, and none when
// it is not.
func TestBoundRaised(t *testing.T) {
	links := someLinks(t, 10)
	e := &Exchange{table: newTable(8)}
	in := Incoming{ID: graphsync.NewRequestID(), Channel: datatransfer.ChannelID{Initiator: "p", Responder: "me", ID: 1}}
	s, err := e.table.admit(in, 1)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	send := func() (outside bool) {
		_, outside = s.meter.block(in.ID, fakeBlock{links[sent], 60, true, int64(sent) + 1})
		sent++
		return outside
	}
	for _, size := range []uint64{60, 120} {
		e.Bound(in.Channel, -1, size, 0)
		for uint64(sent) < size/60+mayPass {
			if send() {
				t.Fatalf("%d blocks are too many for %d bytes", sent, size)
			}
			e.Bound(in.Channel, -1, size, 1000) // is no raise
		}
	}
	if send() || !send() { // the last raise led past one that was sent already
		t.Error("a block was sent behind the bound and what may pass it")
	}
}
