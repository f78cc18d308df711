// Command provider has a data-transfer stack of its own, on which it gives its
// friends what its CAR files hold. On the same stack it sells it to everybody.
//
//	provider DIRECTORY CAR...
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtimpl "github.com/filecoin-project/go-data-transfer/v2/impl"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime/datamodel"
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
	dir, cars := os.Args[1], os.Args[2:]
	pieces, err := piece.Open(ctx, piece.Config{Paths: cars, IndexDir: filepath.Join(dir, "index")})
	check(err)
	defer pieces.Close()

	// What was there before: a host, blocks, graphsync and data-transfer. New are the
	// wrappers of transport, which make it safe to sell from them.
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	check(err)
	defer h.Close()
	patient := transport.WrapHost(h, transport.HostGuard{})
	defer patient.Release()
	network := transport.WrapNetwork(gsnet.NewFromLibp2pHost(patient), transport.NetworkGuard{})
	graphsync := gsimpl.New(ctx, network, pieces.LinkSystem(cid.Undef), gsimpl.RejectAllRequestsByDefault())
	exchange := transport.WrapExchange(graphsync, h.ID(), transport.GuardConfig{Network: network})
	defer exchange.Close()
	messages := transport.WrapTransferNetwork(dtnet.NewFromLibp2pHost(h), transport.TransferGuard{})
	under := transport.WrapTransport(dtgs.NewTransport(h.ID(), exchange), exchange)
	manager, err := dtimpl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), messages, under)
	check(err)
	transfers := transport.WrapManager(manager)
	check(transfers.Start(ctx))
	defer transfers.Stop(context.WithoutCancel(ctx))
	check(transfers.RegisterVoucherType("example/friend/1", friends{}))

	// The market: its books, who is paid, what is sold and for how much.
	db, err := market.OpenDatabase(filepath.Join(dir, "market.db"))
	check(err)
	defer db.Close()
	check(payment.Migrate(ctx, db))
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	check(err)
	till, err := payment.NewTill(db, key.Address(), payment.TillConfig{DefaultCredit: voucher.OneFIL})
	check(err)
	provider, err := market.NewProvider(market.ProviderConfig{
		Host: h, Transfers: transfers, UseStore: transport.UseStore, Pieces: goods{pieces}, DB: db, Node: till, PayTo: till.Address(),
		Ask: voucher.Ask{PricePerByte: 2, PaymentInterval: 1 << 20},
		Meter: func(chid datatransfer.ChannelID) (market.Progress, bool) {
			p, ok := exchange.Progress(chid)
			return market.Progress(p), ok
		},
		Hold: exchange.Hold, Bound: exchange.Bound, Proven: exchange.Prove,
	})
	check(err)
	check(provider.Start(ctx))
	defer provider.Close()
	fmt.Printf("%s/p2p/%s\n", h.Addrs()[0], h.ID())
	<-ctx.Done()
}

// goods are the pieces as the market sees them.
type goods struct{ *piece.Store }

func (g goods) Find(payload cid.Cid, want *cid.Cid) (market.Piece, bool) {
	info, ok := g.Store.Find(payload, want)
	return market.Piece{ID: info.ID, Size: market.Bytes(info.Size), Sealed: info.Sealed}, ok
}

func (g goods) BlockSize(c cid.Cid) (uint64, bool) { return g.Size(c) }

// friends validates the vouchers that the program had before.
type friends struct{}

func (friends) ValidatePull(_ datatransfer.ChannelID, _ peer.ID, v datamodel.Node, _ cid.Cid, _ datamodel.Node) (r datatransfer.ValidationResult, err error) {
	word, _ := v.AsString() // another kind of voucher is not the word
	return datatransfer.ValidationResult{Accepted: word == "mellon"}, nil
}

func (friends) ValidatePush(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (r datatransfer.ValidationResult, err error) {
	return r, errors.New("nothing is taken")
}

func (friends) ValidateRestart(datatransfer.ChannelID, datatransfer.ChannelState) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{Accepted: true}, nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
