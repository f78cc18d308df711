package integration

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// silence keeps a host from saying what it speaks until release is called. gaveUp is
// closed when a peer has given up waiting for that.
func silence(t *testing.T, h host.Host) (release func(), gaveUp <-chan struct{}) {
	t.Helper()
	released, over := make(chan struct{}), make(chan struct{})
	var end sync.Once
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	h.SetStreamHandler(identify.ID, func(s network.Stream) {
		go func() {
			_, _ = io.Copy(io.Discard, s) // it says nothing: this ends with the stream
			end.Do(func() { close(over) })
		}()
		<-released
		_ = s.Reset() // it will never be known
	})
	return release, over
}

// silentTo is silence, of which h comes to hear by says, which returns when it has.
// h is not connected yet: a host tells only those of whom it knows already.
func silentTo(ctx context.Context, t *testing.T, from, h host.Host) (says func()) {
	t.Helper()
	release, _ := silence(t, from)
	known := listen(t, from, new(event.EvtPeerIdentificationCompleted))
	said := listen(t, h, new(event.EvtPeerProtocolsUpdated))
	return func() {
		hear(ctx, known, func(e any) bool { return e.(event.EvtPeerIdentificationCompleted).Peer == h.ID() })
		from.SetStreamHandler("/anything/else", func(s network.Stream) { _ = s.Reset() }) // so that it says what it speaks
		hear(ctx, said, func(e any) bool { return e.(event.EvtPeerProtocolsUpdated).Peer == from.ID() })
		release()
	}
}

// listen are the events of one kind at h.
func listen(t *testing.T, h host.Host, kind any) <-chan any {
	t.Helper()
	sub, err := h.EventBus().Subscribe(kind)
	must(t, err)
	t.Cleanup(func() { _ = sub.Close() }) // nobody listens any more
	return sub.Out()
}

// hear waits for an event that is meant, or for the end of ctx, which ends the test too.
func hear(ctx context.Context, events <-chan any, meant func(any) bool) {
	for {
		select {
		case e := <-events:
			if meant(e) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// TestUnidentified: a provider is asked, and a deal on known terms proposed, before it
// has said what it speaks: that would be a round trip more on a new connection.
func TestUnidentified(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 4<<20, 64<<10)
	for name, buys := range map[string]bool{"asked": false, "bought from": true} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
			release, gaveUp := silence(t, s.host)
			b := newBuyer(t, t.TempDir())
			ctx := within(t, longest)
			inTime := func() {
				select {
				case <-gaveUp:
					t.Error("the client has waited until it gave up")
				default:
				}
				release()
			}
			to := market.RetrievalPeer{AddrInfo: s.addr(), Address: s.till.Address()}
			if !buys {
				_, err := b.Query(ctx, to, root, market.QueryParams{})
				must(t, err)
				inTime()
				return
			}
			var first sync.Once
			defer b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
				if d.TotalReceived > 0 {
					first.Do(inTime)
				}
			})()
			_, err := b.Get(ctx, market.Request{Provider: to, Root: root, Ask: &defaultAsk, Expected: voucher.Bytes(size), Budget: voucher.OneFIL})
			must(t, err)
			settledExactly(t, s, b, size, defaultAsk)
		})
	}
}

// TestUnidentifiedSilent: a provider that takes a question before it has said what it
// speaks, and does not answer, is said to have given no answer.
func TestUnidentifiedSilent(t *testing.T) {
	t.Parallel()
	h := newHost(t, true)
	defer h.Close()
	release, _ := silence(t, h)
	defer release()
	ctx, cancel := context.WithCancel(within(t, longest))
	h.SetStreamHandler(voucher.QueryProtocol, func(s network.Stream) { cancel() })
	to := market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}}
	_, err := newBuyer(t, t.TempDir()).Query(ctx, to, cid.MustParse("bafkqaaa"), market.QueryParams{})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("error is %v", err)
	}
}

// TestUnidentifiedV0: a deal on known terms that is proposed on data-transfer, before the
// provider has said that it does not speak that, goes on a stream. It is the same deal,
// and each byte is paid once.
func TestUnidentifiedV0(t *testing.T) {
	t.Parallel()
	g := v0Goods(t)["many"]
	walk, ask := walkOf(t, []string{g.car}, g.root), v0Asks["at once"]
	p := newOldProvider(t, ask, walk)
	asked := make(chan struct{})
	var once sync.Once
	p.host.SetStreamHandler(gsnet.ProtocolGraphsync_2_0_0, func(s network.Stream) {
		once.Do(func() { close(asked) })
		_ = s.Reset()
	})
	b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.StallTimeout = time.Hour })
	ctx := within(t, longest)
	says := silentTo(ctx, t, p.host, b.host)
	go func() {
		<-asked
		says()
	}()
	r := p.request(g.root)
	r.Ask, r.Expected = &ask, sum(walk)
	got, err := b.Get(ctx, r)
	must(t, err)
	deals, err := b.ListDeals(t.Context())
	must(t, err)
	if want := ask.PricePerByte.Of(sum(walk)); len(deals) != 1 || got.FundsSpent != want || got.Status != voucher.DealStatusCompleted {
		t.Errorf("%s spent in %d deals, %s; want %s in one", got.FundsSpent, len(deals), got.Status, want)
	}
}

// askedLast is a host that has its peer say what it speaks when it waits for that.
type askedLast struct {
	host.Host
	says func()
}

func (h *askedLast) NewStream(ctx context.Context, p peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	h.says()
	return h.Host.NewStream(ctx, p, protocols...)
}

// TestUnidentifiedHeld: what is held is not bought again from a plain provider, which
// sends all of what a deal selects, and is not known for one when that is planned.
func TestUnidentifiedHeld(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 3_000_000, 100_000)
	walk := walkOf(t, []string{car}, root)
	p := newOldProvider(t, voucher.Ask{PricePerByte: 3, PaymentInterval: 300_000}, walk)
	dir, ctx := t.TempDir(), within(t, longest)
	b := newBuyer(t, dir)
	b.begun(ctx, t, p.request(root), 1_500_000)
	b.stop()
	h := newHost(t, false)
	says := sync.OnceFunc(silentTo(ctx, t, p.host, h))
	b = newBuyerOn(t, dir, h, func(c *market.ClientConfig) { c.Host = &askedLast{Host: h, says: says} })
	h.Peerstore().AddAddrs(p.host.ID(), p.host.Addrs(), peerstore.TempAddrTTL)
	_, err := h.Network().DialPeer(ctx, p.host.ID()) // it is connected, and not known
	must(t, err)
	r := p.request(root)
	r.Ask, r.Expected = &p.ask, sum(walk)
	_, err = b.Get(ctx, r)
	must(t, err)
	if most := p.ask.PricePerByte.Of(sum(walk) + p.roots); most.Less(p.earned()) {
		t.Errorf("paid %s, at most %s was to be", p.earned(), most)
	}
}
