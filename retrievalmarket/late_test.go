package retrievalmarket

import (
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

// me is the host of a client.
type me struct{ host.Host }

func (me) ID() peer.ID { return "client" }

// lateChannel is a channel of a deal that data-transfer tells of.
type lateChannel struct {
	datatransfer.ChannelState
	id       datatransfer.TransferID
	status   datatransfer.Status
	proposal datatransfer.TypedVoucher
}

func (c lateChannel) ChannelID() datatransfer.ChannelID {
	return datatransfer.ChannelID{Initiator: "client", Responder: "provider", ID: c.id}
}
func (c lateChannel) Status() datatransfer.Status        { return c.status }
func (c lateChannel) Voucher() datatransfer.TypedVoucher { return c.proposal }
func (c lateChannel) Message() string                    { return "" }

// TestLateWord: what comes of a channel that a deal had before it was paused, or before
// the node was stopped, is not for the deal that goes on.
func TestLateWord(t *testing.T) {
	p, err := testRecord(t, 7).proposal()
	if err != nil {
		t.Fatal(err)
	}
	node, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d := &clientDeal{id: p.ID, inbox: newInbox()}
	c := &Client{cfg: ClientConfig{Host: me{}}, live: map[DealID]*clientDeal{p.ID: d}, byChan: map[datatransfer.ChannelID]*clientDeal{}}
	typed := datatransfer.TypedVoucher{Voucher: node, Type: voucher.ProposalType}
	old := lateChannel{id: 1, status: datatransfer.Cancelled, proposal: typed}
	for _, code := range []datatransfer.EventCode{datatransfer.NewVoucherResult, datatransfer.Cancel, datatransfer.CleanupComplete} {
		c.onEvent(datatransfer.Event{Code: code}, old)
	}
	if got := d.inbox.take(); len(got) != 0 {
		t.Errorf("heard %+v of a channel that it did not open", got)
	}
	now := lateChannel{id: 2, status: datatransfer.Requested, proposal: typed}
	c.onEvent(datatransfer.Event{Code: datatransfer.Open}, now)
	c.onEvent(datatransfer.Event{Code: datatransfer.Accept}, now)
	got := d.inbox.take()
	if len(got) != 1 || got[0].(channelNote).kind != noteAccepted || got[0].(channelNote).chid != now.ChannelID() {
		t.Errorf("heard %+v of its own channel", got)
	}
}
