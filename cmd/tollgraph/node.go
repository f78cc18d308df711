package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/payment"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
)

// node is the stack on a repo, running.
type node struct {
	repo   *repo
	host   host.Host
	stack  *transport.Node // nil where deals are carried on streams only
	egress *transport.Egress
	listen []string // where open lets others in
}

// What carries deals, as --carrier says it.
const (
	carrierAuto = "auto" // what the other side speaks
	carrierV0   = "v0"   // streams of /fil/retrieval/0.0.1, and no data-transfer
)

func carrierFlag() cli.Flag {
	return &cli.StringFlag{Name: "carrier", Value: carrierAuto,
		Usage: "how blocks travel, a `NAME`: auto for what the other side speaks, or v0 for /fil/retrieval/0.0.1 only"}
}

// carrier reads carrierFlag.
func (r *reader) carrier() string {
	name := r.String("carrier")
	if name != carrierAuto && name != carrierV0 {
		r.fail("carrier", errors.New("name auto or v0"))
	}
	return name
}

// startNode opens the repo at dir and starts the stack on it. Without listen
// addresses it only dials; at those that it has it is to be reached after open.
func startNode(ctx context.Context, dir string, listen []string) (*node, error) {
	return startServing(ctx, dir, reach{listen: listen, carrier: carrierAuto})
}

// reach is whom a node can deal with, and how fast.
type reach struct {
	listen  []string // without any it only dials
	carrier string
	egress  transport.EgressConfig
}

// startServing is startNode with a limit on what is sent, and the carrier that
// is asked for.
func startServing(ctx context.Context, dir string, r reach) (_ *node, err error) {
	n := &node{listen: r.listen}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.repo, err = openRepo(ctx, dir); err != nil {
		return nil, err
	}
	if r.carrier == carrierV0 {
		n.egress = transport.NewEgress(r.egress)
		n.host, err = newHost(n.repo.id)
		return n, err
	}
	if n.host, n.stack, err = startStack(ctx, n.repo.id, n.repo.path("transfer"), r.egress); err != nil {
		return nil, err
	}
	n.egress = n.stack.Egress
	return n, nil
}

// open lets others in. Before all that is to be there for them is, they would take
// this node for one that does not have it, and remember that.
func (n *node) open() error {
	addrs := make([]multiaddr.Multiaddr, 0, len(n.listen))
	for _, text := range n.listen {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return fmt.Errorf("listen at %q: %w", text, err)
		}
		addrs = append(addrs, a)
	}
	if len(addrs) == 0 {
		return nil
	}
	return n.host.Network().Listen(addrs...)
}

func newHost(id crypto.PrivKey) (host.Host, error) {
	return transport.NewHost(transport.HostConfig{Key: id, UserAgent: "tollgraph/" + versionText()})
}

// startStack starts host, graphsync and data-transfer. With state "" progress
// is kept in memory only.
func startStack(ctx context.Context, id crypto.PrivKey, state string, egress transport.EgressConfig) (host.Host, *transport.Node, error) {
	h, err := newHost(id)
	if err != nil {
		return nil, nil, err
	}
	log := logger("tollgraph/transport")
	stack, err := transport.New(ctx, transport.Config{
		Host:     h,
		StateDir: state,
		Egress:   egress,
		Logger:   log,
	})
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, stack, nil
}

// Close stops the stack and gives the repo free.
func (n *node) Close() error {
	var errs []error
	if n.stack != nil {
		errs = append(errs, n.stack.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	if n.repo != nil {
		errs = append(errs, n.repo.Close())
	}
	return errors.Join(errs...)
}

// transfers is what carries deals beside streams; nothing without a stack.
func (n *node) transfers() (market.Transfers, market.UseStore) {
	if n.stack == nil {
		return nil, nil
	}
	return n.stack.Transfers(), transport.UseStore
}

// meter reads how much a channel has moved.
func (n *node) meter(chid datatransfer.ChannelID) (market.Progress, bool) {
	p, ok := n.stack.Meter.Progress(chid)
	return market.Progress(p), ok
}

// prove says of a client that it is no stranger.
func (n *node) prove(p peer.ID) {
	if n.stack != nil {
		n.stack.Meter.Prove(p)
	}
}

// bound says what of its traversal a channel may be sent.
func (n *node) bound(chid datatransfer.ChannelID, from int64, size, held uint64) {
	n.stack.Meter.Bound(chid, from, size, held)
}

// hold stops a channel behind a link.
func (n *node) hold(chid datatransfer.ChannelID, link int64) { n.stack.Meter.Hold(chid, link) }

// buyer is a client on a node, with what it bought.
type buyer struct {
	*market.Client
	blocks *blocks
}

// newBuyer starts a client on n.
func newBuyer(ctx context.Context, n *node, cfg market.ClientConfig) (*buyer, error) {
	cfg.DB = n.repo.db
	return newBuyerIn(ctx, n, cfg, n.repo.path("blocks"))
}

// newBuyerIn starts a client on n that keeps its deals in cfg.DB and what it
// receives in dir, and pays from the wallet of the repo.
func newBuyerIn(ctx context.Context, n *node, cfg market.ClientConfig, dir string) (*buyer, error) {
	wallet, err := payment.NewWallet(n.repo.db, n.repo.key, payment.WalletConfig{})
	if err != nil {
		return nil, err
	}
	store := &blocks{dir: dir}
	if err := os.MkdirAll(store.dir, 0o700); err != nil {
		return nil, fmt.Errorf("blocks: %w", err)
	}
	cfg.Host = n.host
	cfg.Transfers, cfg.UseStore = n.transfers()
	cfg.Stores, cfg.Node, cfg.Wallet = store, wallet, wallet.Address()
	cfg.Logger = logger("tollgraph/client")
	client, err := market.NewClient(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &buyer{client, store}, nil
}
