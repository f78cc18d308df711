package integration

import (
	"io"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/tollgraph/tollgraph/voucher"
)

// TestQueryOfOlderPeers: a query in tuples, as peers before 2021 send it, is
// answered in tuples.
func TestQueryOfOlderPeers(t *testing.T) {
	seller := newTrader(t, newSite(t), 1<<20)
	asker := newHost(t, false)
	t.Cleanup(func() { must(t, asker.Close()) })
	ctx := within(t, 20*time.Second)
	must(t, asker.Connect(ctx, seller.addr()))
	s, err := asker.NewStream(ctx, seller.host.ID(), protocol.ID(voucher.QueryProtocolV0))
	must(t, err)
	must(t, s.SetDeadline(time.Now().Add(15*time.Second)))
	question, err := voucher.Query{PayloadCID: seller.root}.MarshalTuple()
	must(t, err)
	_, err = s.Write(question)
	must(t, err)
	must(t, s.CloseWrite())
	answer, err := io.ReadAll(s)
	must(t, err)
	r, err := voucher.UnmarshalQueryResponseV0(answer)
	must(t, err)
	if r.Status != voucher.QueryResponseAvailable || r.MinPricePerByte != defaultAsk.PricePerByte || r.MaxPaymentInterval != defaultAsk.PaymentInterval {
		t.Errorf("answered %+v", r)
	}
}

// TestLegacyVoucherType: a proposal of the type before RetrievalDealProposal/1 is
// refused at once; no channel stands open for it.
func TestLegacyVoucherType(t *testing.T) {
	seller := newTrader(t, newSite(t), 1<<20)
	client, _ := homemade(t, false)
	ctx := within(t, 20*time.Second)
	must(t, client.host.Connect(ctx, seller.addr()))
	ended := make(chan datatransfer.ChannelState, 1)
	_, err := client.transfers.OpenPullDataChannel(ctx, seller.host.ID(),
		datatransfer.TypedVoucher{Type: "RetrievalDealProposal", Voucher: basicnode.NewString("any tuple")}, seller.root,
		selectorparse.CommonSelector_ExploreAllRecursively, datatransfer.WithSubscriber(func(_ datatransfer.Event, st datatransfer.ChannelState) {
			if s := st.Status(); s == datatransfer.Failed || s == datatransfer.Cancelled || s == datatransfer.Completed {
				ended <- st
			}
		}))
	must(t, err)
	select {
	case st := <-ended:
		if st.Status() != datatransfer.Failed || st.Received() != 0 {
			t.Errorf("%s after %d bytes", st.Status(), st.Received())
		}
	case <-ctx.Done():
		t.Error("the channel stands open")
	}
	if n := len(seller.provider.ListDeals()); n != 0 {
		t.Errorf("%d deals on record", n)
	}
}
