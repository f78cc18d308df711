package retrievalmarket

import (
	"context"
	"errors"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

// A deal does not know how its blocks travel. It has a channel at a time, and
// what happens on that comes to its inbox as channelNotes; what the deal wants of
// the channel it asks of a carrier. There are two: data-transfer over graphsync
// (carrier_transfer.go) and the streams of the first retrieval protocol
// (carrier_stream.go). A channel is named by its ChannelID on both, with rising
// ids, and belongs to the carrier that knows it.

// clientCarrier carries the channels of a Client.
type clientCarrier interface {
	// open begins a channel for d with a provider that is connected. The channel
	// lives until it ends, is closed, or ctx ends.
	open(ctx context.Context, d *clientDeal) (chid datatransfer.ChannelID, older bool, err error)
	// restart begins the channel of a deal anew at a provider that takes no
	// second one for it: open said that it is older. An error is final.
	restart(ctx context.Context, chid datatransfer.ChannelID) error
	// pay sends a payment on a channel. It is not acknowledged.
	pay(ctx context.Context, chid datatransfer.ChannelID, p voucher.DealPayment) error
	// close ends a channel.
	close(ctx context.Context, chid datatransfer.ChannelID) error
	// inBand reports whether payments go on the channel wherever they could go.
	inBand() bool
	// skips reports whether a channel to a provider that is connected can begin
	// behind what is held. Where it cannot, all of a deal is sent and charged.
	skips(to peer.ID) bool
	// carriable refuses a deal that would die of its payments.
	carriable(to peer.ID, terms voucher.Terms, expected, risk Bytes) error
}

// providerCarrier carries the channels of a Provider.
type providerCarrier interface {
	// meter reads how far channels are; nil if nothing but the carrier's own
	// count is known.
	meter() Meter
	// hold is Hold, and reports whether the carrier knows how. It does not block.
	hold(chid datatransfer.ChannelID, link int64) bool
	// bound is Bound. It does not block.
	bound(chid datatransfer.ChannelID, from int64, size, held uint64)
	// opening is closed when what validation granted a channel holds, and with it what
	// it is told from then on; nil if it does.
	opening(chid datatransfer.ChannelID) <-chan struct{}
	// grant lets a channel go as far as g says, and sends reply if it is not nil.
	grant(ctx context.Context, chid datatransfer.ChannelID, g validation.Grant, reply *voucher.DealResponse) error
	// reject ends a channel with a reason.
	reject(ctx context.Context, chid datatransfer.ChannelID, reply *voucher.DealResponse) error
	// close ends a channel.
	close(ctx context.Context, chid datatransfer.ChannelID) error
	// forget says that the deal of a channel has ended, and said its last word.
	forget(chid datatransfer.ChannelID)
}

// errNoChannel is returned for a channel that is not there any more.
var errNoChannel = errors.New("no such channel")

// carrierFor chooses how to reach a provider that is connected: by streams where
// it speaks those and no data-transfer.
func (c *Client) carrierFor(to peer.ID) clientCarrier {
	if c.transfers == nil {
		return c.streams
	}
	known, err := c.cfg.Host.Peerstore().SupportsProtocols(to, voucher.DealProtocolV0, datatransfer.ProtocolDataTransfer1_2)
	if err == nil && len(known) == 1 && known[0] == voucher.DealProtocolV0 {
		return c.streams
	}
	return c.transfers
}

// carrierOf returns the carrier of a channel.
func (c *Client) carrierOf(chid datatransfer.ChannelID) clientCarrier {
	if c.transfers == nil || c.streams.has(chid) {
		return c.streams
	}
	return c.transfers
}

// carrierOf returns the carrier of a channel.
func (p *Provider) carrierOf(chid datatransfer.ChannelID) providerCarrier {
	if p.transfers == nil || p.streams.has(chid) {
		return p.streams
	}
	return p.transfers
}
