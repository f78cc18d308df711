package transport_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"log/slog"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/tollgraph/tollgraph/transport"
)

// Example_wrappers puts the guards around a data-transfer stack that is built by
// hand, the way a program that has one already would. Each wrapper stands where
// the thing that it wraps was.
func Example_wrappers() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	check(err)
	h, err := transport.NewHost(transport.HostConfig{Key: key}) // or any host
	check(err)
	defer h.Close()

	// Streams may be idle while a transfer waits, blocks leave at 100 MiB/s at most,
	// and graphsync sees no request that could harm it.
	patient := transport.WrapHost(h, transport.HostGuard{})
	defer patient.Release()
	var net gsnet.GraphSyncNetwork = gsnet.NewFromLibp2pHost(patient) // or transport.NewNetwork(h, …), which is faster
	net = transport.WrapEgress(net, transport.EgressConfig{Total: 100 << 20})
	guarded := transport.WrapNetwork(net, transport.NetworkGuard{Logger: quiet})

	// Graphsync refuses what nobody accepts, and has no blocks of its own.
	gs := gsimpl.New(ctx, guarded, emptyStore(), gsimpl.RejectAllRequestsByDefault())

	// Requests are held to their data-transfer message, blocks are counted, and
	// pausing waits for nobody.
	exchange := transport.WrapExchange(gs, h.ID(), transport.GuardConfig{Network: guarded, Logger: quiet})
	defer exchange.Close()
	defer cancel() // graphsync stops first

	// Channels are opened by graphsync requests only; the transport and the manager
	// neither deadlock nor panic.
	messages := transport.WrapTransferNetwork(dtnet.NewFromLibp2pHost(h), transport.TransferGuard{Logger: quiet})
	under := transport.WrapTransport(dtgs.NewTransport(h.ID(), exchange), exchange)
	plain, err := dtimpl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), messages, under)
	check(err)
	manager := transport.WrapManager(plain)
	check(manager.Start(ctx))
	defer manager.Stop(ctx)

	// From here on everything is as it was.
	err = manager.UpdateValidationStatus(ctx, datatransfer.ChannelID{Initiator: "nobody", Responder: h.ID(), ID: 1}, datatransfer.ValidationResult{Accepted: true})
	fmt.Println("an update of no channel:", err != nil)
	_, known := exchange.Progress(datatransfer.ChannelID{})
	fmt.Println("blocks served for it:", known)
	// Output:
	// an update of no channel: true
	// blocks served for it: false
}

// emptyStore holds nothing: every channel gets its own with transport.UseStore.
func emptyStore() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(ipld.LinkContext, ipld.Link) (io.Reader, error) { return nil, transport.ErrNoStore }
	return ls
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
