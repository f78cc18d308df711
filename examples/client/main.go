// Command client has a data-transfer stack of its own, on which it fetches from
// friends. On the same stack it buys from everybody.
//
//	client DIRECTORY PROVIDER FREE-ROOT BOUGHT-ROOT
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/channels"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, gift, root := os.Args[1], cid.MustParse(os.Args[3]), cid.MustParse(os.Args[4])
	provider, err := peer.AddrInfoFromString(os.Args[2])
	check(err)
	free, err := piece.OpenPartial(filepath.Join(dir, "free.car"), gift)
	check(err)
	defer free.Close()

	// What was there before: a host, blocks, graphsync and data-transfer. New is that
	// graphsync waits while a provider unseals, and that the manager does not panic.
	h, err := libp2p.New(libp2p.NoListenAddrs)
	check(err)
	defer h.Close()
	patient := transport.WrapHost(h, transport.HostGuard{})
	defer patient.Release()
	graphsync := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(patient), free.LinkSystem(), gsimpl.RejectAllRequestsByDefault())
	manager, err := dtimpl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), dtnet.NewFromLibp2pHost(h), dtgs.NewTransport(h.ID(), graphsync))
	check(err)
	transfers := transport.WrapManager(manager)
	check(transfers.Start(ctx))
	defer transfers.Stop(context.WithoutCancel(ctx))

	// The market: its books, who pays, and where to put what arrives.
	db, err := market.OpenDatabase(filepath.Join(dir, "market.db"))
	check(err)
	defer db.Close()
	check(payment.Migrate(ctx, db))
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	check(err)
	wallet, err := payment.NewWallet(db, key, payment.WalletConfig{})
	check(err)
	client, err := market.NewClient(ctx, market.ClientConfig{
		Host: h, Transfers: transfers, UseStore: transport.UseStore, Stores: stores(dir), DB: db, Node: wallet, Wallet: wallet.Address(),
	})
	check(err)
	defer client.Close()

	check(h.Connect(ctx, *provider))
	check(fetch(ctx, transfers, provider.ID, gift))
	fmt.Printf("free %s: %d bytes\n", gift, free.Written())
	got, err := client.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: *provider}, Root: root, Budget: voucher.OneFIL})
	check(err)
	fmt.Printf("bought %s: %d bytes for %s attoFIL\n", root, got.TotalReceived, got.FundsSpent)
}

// fetch transfers a DAG under a voucher that the program had before.
func fetch(ctx context.Context, transfers datatransfer.Manager, from peer.ID, root cid.Cid) error {
	friend := datatransfer.TypedVoucher{Type: "example/friend/1", Voucher: basicnode.NewString("mellon")}
	ended := make(chan datatransfer.ChannelState, 1)
	_, err := transfers.OpenPullDataChannel(ctx, from, friend, root, selectorparse.CommonSelector_ExploreAllRecursively,
		datatransfer.WithSubscriber(func(_ datatransfer.Event, st datatransfer.ChannelState) {
			if channels.IsChannelTerminated(st.Status()) {
				ended <- st // the last event
			}
		}))
	if err != nil {
		return err
	}
	select {
	case st := <-ended:
		if st.Status() != datatransfer.Completed {
			return fmt.Errorf("fetch %s: %s: %s", root, st.Status(), st.Message())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stores keeps what is bought: one CAR for each root.
type stores string

func (dir stores) Open(_ context.Context, root cid.Cid) (market.Store, error) {
	return piece.OpenPartial(filepath.Join(string(dir), root.String()+".car"), root)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
