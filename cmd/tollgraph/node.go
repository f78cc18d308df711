package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/tollgraph/tollgraph/payment"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
)

// node is the stack on a repo, running.
type node struct {
	repo  *repo
	host  host.Host
	stack *transport.Node
}

// startNode opens the repo at dir and starts the stack on it. Without listen
// addresses it only dials.
func startNode(ctx context.Context, dir string, listen []string) (*node, error) {
	return startServing(ctx, dir, listen, transport.EgressConfig{})
}

// startServing is startNode with a limit on what is sent.
func startServing(ctx context.Context, dir string, listen []string, egress transport.EgressConfig) (_ *node, err error) {
	n := new(node)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.repo, err = openRepo(ctx, dir); err != nil {
		return nil, err
	}
	if n.host, n.stack, err = startStack(ctx, n.repo.id, listen, n.repo.path("transfer"), egress); err != nil {
		return nil, err
	}
	return n, nil
}

// startStack starts host, graphsync and data-transfer. With state "" progress
// is kept in memory only.
func startStack(ctx context.Context, id crypto.PrivKey, listen []string, state string, egress transport.EgressConfig) (host.Host, *transport.Node, error) {
	h, err := transport.NewHost(transport.HostConfig{Key: id, Listen: listen, UserAgent: "tollgraph/" + versionText()})
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

// meter reads how much a channel has moved.
func (n *node) meter(chid datatransfer.ChannelID) (market.Progress, bool) {
	p, ok := n.stack.Meter.Progress(chid)
	return market.Progress(p), ok
}

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
	cfg.Host, cfg.Transfers, cfg.UseStore = n.host, n.stack.Transfers(), transport.UseStore
	cfg.Stores, cfg.Node, cfg.Wallet = store, wallet, wallet.Address()
	cfg.Logger = logger("tollgraph/client")
	client, err := market.NewClient(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &buyer{client, store}, nil
}
