package transport

import (
	"errors"
	"fmt"
	"io"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// ErrNoStore is the error of a node's own link system, which holds nothing and
// takes nothing.
var ErrNoStore = errors.New("channel has no store: give it one with transport.UseStore")

// UseStore makes ls the store of a channel: where its blocks come from at the
// provider, and go to at the client. Give it to datatransfer.WithTransportOptions
// or return it from a transport configurer. ls.StorageReadOpener must not be nil;
// for speed it returns a *bytes.Buffer, and ls.TrustedStorage is set if the store
// need not be checked (what comes from the network is always checked). On a
// restart the store replaces the earlier one. It fails if the store could not be
// registered.
//
// A block is handed to the writers of ls.StorageWriteOpener in one piece: with
// SetBytes([]byte) error to those that have it, which may keep the bytes, else with
// Write. A writer that holds them only until the commit says so with
// BorrowBytes([]byte) error, which is called in its place; the memory of what was
// received is then used again.
//
// The store must stay readable until the channel is terminal, and tolerate reads
// that come a little later.
func UseStore(ls ipld.LinkSystem) datatransfer.TransportOption {
	return func(chid datatransfer.ChannelID, t datatransfer.Transport) error {
		gst, err := graphsyncTransport(t)
		if err != nil {
			return err
		}
		if ls.StorageReadOpener == nil {
			return fmt.Errorf("store of channel %s: link system has no StorageReadOpener", chid)
		}
		if err := gst.UseStore(chid, knowsEmpty(budgeted(t, chid, ls))); err != nil {
			return fmt.Errorf("store of channel %s: %w", chid, err)
		}
		return nil
	}
}

// MaxLinks bounds how many links the traversal of a channel may pass, repeated
// ones included and the root being one. The node's own limit holds as well. Zero
// leaves it at that.
func MaxLinks(n uint64) datatransfer.TransportOption {
	return func(chid datatransfer.ChannelID, t datatransfer.Transport) error {
		gst, err := graphsyncTransport(t)
		if err != nil {
			return err
		}
		gst.MaxLinks(chid, n)
		return nil
	}
}

// storing is data-transfer's graphsync transport, and whatever embeds it.
type storing interface {
	UseStore(datatransfer.ChannelID, ipld.LinkSystem) error
	MaxLinks(datatransfer.ChannelID, uint64)
}

var _ storing = (*dtgs.Transport)(nil)

// graphsyncTransport returns the graphsync transport in t, guarded or not, or
// embedded by a caller that wrapped it for a purpose of its own.
func graphsyncTransport(t datatransfer.Transport) (storing, error) {
	switch t := t.(type) {
	case storing:
		return t, nil
	case *quietTransport:
		return graphsyncTransport(t.PauseableTransport)
	}
	return nil, fmt.Errorf("%T is not a graphsync transport: %w", t, datatransfer.ErrUnsupported)
}

// budgeted takes what a channel of a Node stores off its account with the
// sender; see Config.ReceiveAhead.
func budgeted(t datatransfer.Transport, chid datatransfer.ChannelID, ls ipld.LinkSystem) ipld.LinkSystem {
	switch t := t.(type) {
	case *guardedTransport:
		if t.ahead != nil {
			return t.ahead.LinkSystem(ls, chid.Responder)
		}
	case *quietTransport:
		return budgeted(t.PauseableTransport, chid, ls)
	}
	return ls
}

// denyAll returns a link system that holds nothing and takes nothing.
func denyAll() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(ipld.LinkContext, ipld.Link) (io.Reader, error) { return nil, ErrNoStore }
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		return nil, nil, ErrNoStore
	}
	return ls
}

// storePrefix is how data-transfer names the stores of its channels.
const storePrefix = "data-transfer-"

// RegisterPersistenceOption registers a store under a name. For the name of a
// channel it replaces the earlier one: graphsync refuses that, and then a
// channel that is restarted in the same process keeps its old store.
func (e *Exchange) RegisterPersistenceOption(name string, ls ipld.LinkSystem) error {
	err := e.GraphExchange.RegisterPersistenceOption(name, ls)
	if err == nil || len(name) < len(storePrefix) || name[:len(storePrefix)] != storePrefix {
		return err
	}
	// It is registered already: graphsync has no other error. Whoever unregisters
	// it at the same time does what we want.
	_ = e.GraphExchange.UnregisterPersistenceOption(name)
	return e.GraphExchange.RegisterPersistenceOption(name, ls)
}
