package integration

import (
	"crypto/rand"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// road is a deal over a network that can be damaged: two ways to one provider,
// of which only the first is open to begin with.
type road struct {
	t        *testing.T
	s        *seller
	b        *buyer
	one, two *netproxy
	request  market.Request
	size     uint64
	received chan voucher.Bytes // the latest count
}

func newRoad(t *testing.T) *road {
	t.Helper()
	car, root, size := makeCAR(t, t.TempDir(), 12<<20, 64<<10)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	h := hiddenHost(t, key)
	r := &road{t: t, size: size, received: make(chan voucher.Bytes, 1)}
	r.s = newSeller(t, t.TempDir(), h, []string{car}, defaultAsk, voucher.OneFIL)
	var first, second peer.AddrInfo
	r.one, first = proxyTo(t, h)
	r.two, second = proxyTo(t, h)
	r.two.refuse(true)
	r.b = newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.StallTimeout = 2 * time.Second })
	t.Cleanup(r.b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
		select {
		case <-r.received: // it is superseded
		default:
		}
		r.received <- d.TotalReceived
	}))
	first.Addrs = append(first.Addrs, second.Addrs...)
	r.request = market.Request{Provider: market.RetrievalPeer{AddrInfo: first}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(4 << 20)}
	return r
}

// TestNetwork: whatever the network does, a deal ends by itself once it is
// passable again, and is paid to the byte.
func TestNetwork(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*road){
		"jitter": func(r *road) { r.waits(100*time.Millisecond, 1, 50*time.Millisecond) },
		"loss":   func(r *road) { r.waits(5*time.Millisecond, 100, 300*time.Millisecond) },
		"cut": func(r *road) {
			for at := voucher.Bytes(2 << 20); at < 10<<20; at += 2 << 20 {
				r.at(at)
				r.one.cut()
			}
		},
		"away": func(r *road) {
			r.at(4 << 20)
			r.one.refuse(true)
			r.one.cut()
			<-time.After(2 * time.Second) // the network is away for so long
			r.one.refuse(false)
		},
		"silent for a while": func(r *road) {
			r.at(4 << 20)
			r.one.silence(true)
			<-time.After(3 * time.Second)
			r.one.silence(false)
		},
		"half-open for good": func(r *road) {
			r.at(4 << 20)
			r.one.silence(true)
			r.one.refuse(true)
			r.two.refuse(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoad(t)
			r.one.latency(2 * time.Millisecond) // so that there is a middle
			ctx := within(t, longest)
			id, err := r.b.Retrieve(ctx, r.request)
			must(t, err)
			damage(r)
			_, err = r.b.Wait(ctx, id)
			must(t, err)
			settledExactly(t, r.s, r.b, r.size, defaultAsk)
		})
	}
}

// at waits until n bytes have arrived.
func (r *road) at(n voucher.Bytes) {
	r.t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case got := <-r.received:
			if got >= n {
				return
			}
		case <-timeout:
			r.t.Fatalf("%d bytes have not arrived in a minute", n)
		}
	}
}

// waits delays all data by base, and one piece in few by up to more besides,
// which holds up what is behind it: what TCP makes of a lossy network.
func (r *road) waits(base time.Duration, few int, more time.Duration) {
	rnd := mrand.New(mrand.NewPCG(1, 2))
	r.one.jitter(func() time.Duration {
		if rnd.IntN(few) != 0 {
			return base
		}
		return base + time.Duration(rnd.Int64N(int64(more)))
	})
}

// TestProviderMoves: the provider comes back at another address, which the
// client is told by asking for the same again while its deal waits.
func TestProviderMoves(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 12<<20, 64<<10)
	dir := t.TempDir()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	s := newSeller(t, dir, newHostWithKey(t, key, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	half := b.received(t, 4<<20)
	ctx := within(t, longest)
	req := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}
	id, err := b.Retrieve(ctx, req)
	must(t, err)
	select {
	case <-half:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	s.stop()
	moved := newSeller(t, dir, newHostWithKey(t, key, true), []string{car}, defaultAsk, voucher.OneFIL)
	req.Provider.AddrInfo = moved.addr()
	again, err := b.Retrieve(ctx, req)
	must(t, err)
	if again != id {
		t.Errorf("a second deal %d besides %d", again, id)
	}
	_, err = b.Wait(ctx, id)
	must(t, err)
	settledExactly(t, moved, b, size, defaultAsk)
}
