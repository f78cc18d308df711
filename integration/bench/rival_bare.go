package main

import (
	"context"
	"path/filepath"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
)

// bareName is the market without the guard: what the guard costs is the
// difference. It is measured only if it is named.
const bareName = "paid-unguarded"

// stack is what the market needs of a transport.
type stack struct {
	transfers datatransfer.Manager
	meter     market.Meter // nil: there is none
	hold      market.Hold
	bound     market.Bound
	prove     func(peer.ID)
}

func makeBare(ctx context.Context, f *field) (rival, error) {
	f.bare = true
	return makeMarket(ctx, f, paid)
}

// stack starts a transport on h, with the guard or bare.
func (f *field) stack(ctx context.Context, h host.Host, dir string) (stack, error) {
	if f.bare {
		m, err := f.bareTransfers(ctx, h, dir)
		return stack{transfers: m}, err
	}
	n, err := f.node(ctx, h, dir)
	if err != nil {
		return stack{}, err
	}
	meter := func(chid datatransfer.ChannelID) (market.Progress, bool) {
		p, ok := n.Meter.Progress(chid)
		return market.Progress(p), ok
	}
	return stack{n.Transfers(), meter, n.Meter.Hold, n.Meter.Bound, n.Meter.Prove}, nil
}

// bareTransfers is what transport.New assembles, with everything that makes it
// fast and nothing that makes it safe: the network, the records, their writing
// behind and the gathering of progress, around the two libraries as they are.
func (f *field) bareTransfers(ctx context.Context, h host.Host, dir string) (datatransfer.Manager, error) {
	const much = 1 << 30
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.atEnd(stop)
	gs := gsimpl.New(life, transport.NewNetwork(h, transport.NetworkConfig{}), cidlink.DefaultLinkSystem(),
		gsimpl.RejectAllRequestsByDefault(),
		gsimpl.MaxInProgressIncomingRequests(200), gsimpl.MaxInProgressOutgoingRequests(200),
		gsimpl.MaxMemoryPerPeerResponder(8<<20), gsimpl.MaxMemoryResponder(much),
		gsimpl.MessageSendRetries(2), gsimpl.SendMessageTimeout(20*time.Second))
	log, err := transport.OpenStateLog(filepath.Join(dir, "transfers"))
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { _ = log.Close() })
	records, err := transport.NewWriteBehind(ctx, log, 0)
	if err != nil {
		return nil, err
	}
	f.atEnd(func() { _ = records.Close() })
	quiet := transport.NewQuiet(transport.QuietConfig{})
	m, err := dtimpl.NewDataTransfer(records, dtnet.NewFromLibp2pHost(h), quiet.Transport(dtgs.NewTransport(h.ID(), gs)))
	if err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	f.atEnd(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		quiet.Close()
		_ = m.Stop(ctx) // nothing depends on it
	})
	return quiet.Manager(m), <-ready
}
