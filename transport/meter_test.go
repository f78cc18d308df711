package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

// TestMeter fetches DAGs of which the client holds a part, and checks every
// figure. The leaves have 10,000 bytes; the order is that of the links.
func TestMeter(t *testing.T) {
	const size = 10_000
	cases := []struct {
		name  string
		order []int
		holds []int // leaves; the root as well if not nil
		want  func(d dag) Progress
	}{
		{"nothing held", []int{0, 1, 2, 3}, nil, func(d dag) Progress {
			return Progress{Sent: d.size, Links: 5, High: 5}
		}},
		{"root held", []int{0, 1, 2, 3}, []int{}, func(d dag) Progress {
			return Progress{SkipLinks: 1, Skipped: d.rootSz, Sent: 4 * size, Links: 5, High: 5}
		}},
		{"first two held", []int{0, 1, 2, 3}, []int{0, 1}, func(d dag) Progress {
			return Progress{SkipLinks: 3, Skipped: d.rootSz + 2*size, Sent: 2 * size, Links: 5, High: 5}
		}},
		{"repeated, nothing held", []int{0, 0, 1, 0, 1}, nil, func(d dag) Progress {
			return Progress{Sent: d.rootSz + 2*size, Links: 6, High: 4, Repeats: 3}
		}},
		{"repeated, held ones count once", []int{0, 1, 0, 0, 2, 1, 3}, []int{0, 1}, func(d dag) Progress {
			// Links 1–5 are root, 0, 1, 0, 0; link 7 is 1 again: held, not on the wire.
			return Progress{SkipLinks: 5, Skipped: d.rootSz + 2*size, Sent: 2 * size, Links: 8, High: 8, Repeats: 3}
		}},
		{"a later one held", []int{0, 1, 2, 3}, []int{0, 2}, func(d dag) Progress {
			// Only the prefix is skipped: 2 is sent although it is held.
			return Progress{SkipLinks: 2, Skipped: d.rootSz + size, Sent: 3 * size, Links: 5, High: 5}
		}},
	}
	v := &validator{}
	p := newNodePair(t, v, nil)
	var atValidation Progress
	v.pull = func(chid datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		atValidation, _ = p.provider.Meter.Progress(chid)
		return datatransfer.ValidationResult{Accepted: true}, nil
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := within(t, 20*time.Second)
			leaves := 0
			for _, n := range c.order {
				leaves = max(leaves, n+1)
			}
			d := buildDAG(t, p.source, uint64(100+i), leaves, size, c.order)
			p.sink = newMemStore()
			if c.holds != nil {
				p.sink.put(d.root, p.source.get(d.root))
			}
			for _, h := range c.holds {
				for j, n := range c.order {
					if n == h {
						p.sink.put(d.leaves[j], p.source.get(d.leaves[j]))
					}
				}
			}
			chid := p.open(t, ctx, d.root)
			if e := p.getting.finished(t, ctx, chid); e.status != datatransfer.Completed {
				t.Fatalf("client: %s: %s", e.status, e.msg)
			}
			p.providing.finished(t, ctx, chid)
			want := c.want(d)
			want.Started, want.Requests, want.Written = true, 1, want.Sent
			want.Begun, want.Base, want.Latest, want.Reached = true, want.Skipped, want.Sent, want.Skipped+want.Sent
			if got := mustProgress(t, p.provider, chid); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if atValidation.SkipLinks != want.SkipLinks || atValidation.Requests != 1 || atValidation.Started {
				t.Errorf("at validation: %+v", atValidation)
			}
			p.provider.Meter.Forget(chid)
			if _, ok := p.provider.Meter.Progress(chid); ok {
				t.Error("not forgotten")
			}
		})
	}
}

// fakeBlock is a graphsync.BlockData.
type fakeBlock struct {
	link  ipld.Link
	size  uint64
	wire  bool
	index int64
}

func (b fakeBlock) Link() ipld.Link   { return b.link }
func (b fakeBlock) BlockSize() uint64 { return b.size }
func (b fakeBlock) Index() int64      { return b.index }
func (b fakeBlock) BlockSizeOnWire() uint64 {
	if b.wire {
		return b.size
	}
	return 0
}

// someLinks returns n different links.
func someLinks(t testing.TB, n int) []ipld.Link {
	var out []ipld.Link
	for i := range n {
		c, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}.Sum([]byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cidlink.Link{Cid: c})
	}
	return out
}

// TestMeterLaws runs random sequences of requests over a traversal as graphsync
// does, against a naive count.
func TestMeterLaws(t *testing.T) {
	links := someLinks(t, 8)
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.SliceOfN(rapid.IntRange(0, 7), 1, 20).Draw(t, "order")
		m := &meter{}
		var sent, resent, base, reached uint64
		var begun bool
		var first, high int64
		skip := int64(rapid.IntRange(0, len(order)).Draw(t, "skip"))
		first = skip
		for r := range rapid.IntRange(1, 4).Draw(t, "requests") {
			id := graphsync.NewRequestID()
			if r > 0 {
				skip = int64(rapid.IntRange(int(first), len(order)).Draw(t, "skip again"))
			}
			m.begin(id, skip)
			stop := rapid.IntRange(0, len(order)).Draw(t, "stop")
			seen, skipped := map[int]bool{}, map[int]bool{}
			var started bool
			var latest, passed uint64 // sent by this request, and the different blocks it has come to
			var repeats int64
			for i, n := range order[:stop] {
				index := int64(i + 1)
				wire := index > skip && !seen[n]
				size := uint64(1 << n)
				if seen[n] {
					repeats++
				} else {
					passed += size
				}
				seen[n] = true
				m.block(id, fakeBlock{links[n], size, wire, index})
				if index <= skip {
					skipped[n] = true
				}
				if wire {
					sent += size
					latest += size
					if !begun {
						begun, base = true, passed-size
					}
					started, reached = true, max(reached, passed)
					if index <= high {
						resent += size
					}
					high = max(high, index)
				}
			}
			var sum uint64
			for n := range skipped {
				sum += 1 << n
			}
			want := Progress{SkipLinks: skip, Skipped: sum, Sent: sent, Resent: resent, Links: int64(stop), Started: started, Requests: r + 1,
				Latest: latest, High: high, Begun: begun, Base: base, Reached: reached, Repeats: repeats}
			if got := m.progress(); got != want {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			if started && m.seen != nil {
				t.Fatal("the set of skipped blocks is kept after the start")
			}
		}
	})
}

// TestTable checks what may be live together and what is remembered.
func TestTable(t *testing.T) {
	in := func(p string, ch int, skip int64) Incoming {
		return Incoming{ID: graphsync.NewRequestID(), SkipLinks: skip,
			Channel: datatransfer.ChannelID{Initiator: peer.ID(p), Responder: "self", ID: datatransfer.TransferID(ch)}}
	}
	reason := func(_ *served, err error) Reason {
		if err == nil {
			return ""
		}
		return reasonOf(err, "?")
	}
	tab := newTable(3)
	a, err := tab.admit(in("p", 1, 5), 2)
	if err != nil {
		t.Fatal(err)
	}
	if r := reason(tab.admit(in("p", 1, 5), 2)); r != ReasonLive {
		t.Errorf("second request of a channel: %q", r)
	}
	if _, err := tab.admit(in("p", 2, 0), 2); err != nil {
		t.Error(err)
	}
	if r := reason(tab.admit(in("p", 3, 0), 2)); r != ReasonBusy {
		t.Errorf("third request of a peer: %q", r)
	}
	tab.end(a.id)
	tab.end(a.id) // no harm
	if r := reason(tab.admit(in("p", 1, 4), 2)); r != ReasonSkip {
		t.Errorf("request from before the first: %q", r)
	}
	again, err := tab.admit(in("p", 1, 6), 2)
	if err != nil {
		t.Fatal(err)
	}
	if n := tab.meterOf(again.channel).progress().Requests; n != 2 {
		t.Errorf("%d requests", n)
	}
	for ch := range 10 {
		s, err := tab.admit(in("q", ch, 0), 2)
		if err != nil {
			t.Fatal(err)
		}
		tab.end(s.id)
	}
	if len(tab.channels) > 3 || tab.meterOf(again.channel) == nil {
		t.Errorf("%d channels remembered, the live one too: %v", len(tab.channels), tab.meterOf(again.channel) != nil)
	}
	s, err := tab.admit(in("r", 1, 0), 2)
	if err != nil {
		t.Fatal(err)
	}
	tab.reject(s)
	if tab.meterOf(s.channel) != nil {
		t.Error("a rejected channel is remembered")
	}
}

func TestSameNode(t *testing.T) {
	if !sameNode(basicnode.NewInt(1), basicnode.NewInt(1)) || sameNode(basicnode.NewInt(1), basicnode.NewInt(2)) {
		t.Error("integers")
	}
	if !sameNode(wholeDAG(), wholeDAG()) {
		t.Error("selectors")
	}
}
