package integration

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// raid is what an attacker has.
type raid struct {
	t       *testing.T
	ctx     context.Context
	victim  peer.AddrInfo
	shop    *shop // of it only the roots
	endless cid.Cid
	payee   address.Address
}

// An attack is begun with what it returns at a steady rate, which is far above
// what a peer may do.
type attack struct {
	every time.Duration
	begin func(r *raid) (again func() error)
}

// raids are the attacks of peers that mean to take the provider's time. What they
// send is made before they begin, so that they cost their maker little.
var raids = map[string]attack{
	// A hundred times what a peer may ask: 5,000 requests each second.
	"flood": {20 * time.Millisecond, func(r *raid) func() error {
		a := newRaiderOf(r.t, r.victim)
		var frames []*frame
		for i := range 10 {
			var some []gsmsg.GraphSyncRequest
			for j := range 100 {
				some = append(some, gsRequest(r.shop.deal, pullMessage(r.t, voucher.DealID(100*i+j+1), false, r.shop.deal)))
			}
			frames = append(frames, newFrame(r.t, some...))
		}
		out := a.stream(r.ctx, gsnet.ProtocolGraphsync_2_0_0)
		return func() error {
			frames = append(frames[1:], frames[0])
			return out.write(frames[0].fresh())
		}
	}},
	// Fifty peers that do not read what they ask for twenty times, and ask for more.
	"unread": {200 * time.Millisecond, func(r *raid) func() error {
		var lazy []*raider
		n := 0
		ask := func() gsmsg.GraphSyncRequest {
			n++ // a key of its own, or nothing is sent twice
			key := graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewString(fmt.Sprint(n))}
			return gsRequest(r.shop.deal, pullMessage(r.t, voucher.DealID(n), false, r.shop.deal), key)
		}
		for range 50 {
			a := newRaiderOf(r.t, r.victim)
			lazy = append(lazy, a)
			for range 20 {
				sloth(r.ctx, a, ask())
			}
		}
		return func() error {
			a := lazy[n%len(lazy)]
			return a.trySend(r.ctx, ask())
		}
	}},
	// A DAG with a million million ways through it, ten times each second.
	"endless": {100 * time.Millisecond, func(r *raid) func() error {
		a, n := newRaiderOf(r.t, r.victim), 0
		return func() error {
			n++
			return a.trySend(r.ctx, gsRequest(r.endless, pullMessage(r.t, voucher.DealID(n), false, r.endless)))
		}
	}},
	// One deal, of which the first interval is fetched a hundred times each second.
	"restarts": {10 * time.Millisecond, func(r *raid) func() error {
		a := newRaiderOf(r.t, r.victim)
		q := gsRequest(r.shop.deal, pullMessage(r.t, 7, false, r.shop.deal))
		must(r.t, a.trySend(r.ctx, q))
		ext := pullMessage(r.t, 7, true, r.shop.deal)
		return func() error {
			_ = a.trySend(r.ctx, gsmsg.NewCancelRequest(q.ID()))
			q = gsRequest(r.shop.deal, ext)
			return a.trySend(r.ctx, q)
		}
	}},
	// The same with a new channel each time.
	"channels": {10 * time.Millisecond, func(r *raid) func() error {
		a, n := newRaiderOf(r.t, r.victim), datatransfer.TransferID(7)
		var q gsmsg.GraphSyncRequest
		return func() error {
			if n++; n > 8 {
				_ = a.trySend(r.ctx, gsmsg.NewCancelRequest(q.ID()))
			}
			q = a.channelOf(r.shop, 7, n)
			return a.trySend(r.ctx, q)
		}
	}},
	// Messages that decode to nothing that is served, five hundred each second.
	"null": {2 * time.Millisecond, func(r *raid) func() error {
		a := newRaiderOf(r.t, r.victim)
		out := a.stream(r.ctx, gsnet.ProtocolGraphsync_2_0_0)
		f := newFrame(r.t, gsmsg.NewRequest(graphsync.NewRequestID(), r.shop.deal, nil, 0))
		return func() error { return out.write(f.fresh()) }
	}},
	// Payments that nobody signed, a thousand each second.
	"forged payments": {time.Millisecond, func(r *raid) func() error {
		a := newRaiderOf(r.t, r.victim)
		must(r.t, a.trySend(r.ctx, gsRequest(r.shop.deal, pullMessage(r.t, 7, false, r.shop.deal))))
		out := a.stream(r.ctx, market.PaymentProtocol)
		f := forged(r.t, r.payee, 7)
		return func() error { return out.write(f) }
	}},
	// Queries, a thousand each second.
	"queries": {time.Millisecond, func(r *raid) func() error {
		a := newRaiderOf(r.t, r.victim)
		q, err := voucher.Query{PayloadCID: r.shop.deal}.MarshalCBORMap()
		must(r.t, err)
		return func() error {
			s, err := a.host.NewStream(r.ctx, a.to, voucher.QueryProtocol)
			if err != nil {
				return err // over the limit of streams
			}
			if _, err = s.Write(q); err == nil {
				err = s.CloseWrite()
			}
			go func() {
				_, _ = io.Copy(io.Discard, s)
				_ = s.Close()
			}()
			return err
		}
	}},
}

// channelOf opens another channel of a deal.
func (r *raider) channelOf(s *shop, id voucher.DealID, n datatransfer.TransferID) gsmsg.GraphSyncRequest {
	r.t.Helper()
	v := proposalFor(r.t, id, s.deal, selectors.All())
	m, err := message.NewRequest(n, false, true, &v, s.deal, selectors.All())
	must(r.t, err)
	return gsRequest(s.deal, dtExt(r.t, m))
}
