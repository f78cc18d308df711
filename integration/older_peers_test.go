package integration

import (
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/tollgraph/tollgraph/voucher"
)

// TestQueryOfOlderPeers: a query in tuples, as peers before 2021 send it, is
// answered in tuples.
func TestQueryOfOlderPeers(t *testing.T) {
	t.Parallel()
	seller := newTrader(t, newSite(t), 1<<20)
	asker := newHost(t, false)
	t.Cleanup(func() { must(t, asker.Close()) })
	ctx := within(t, longest)
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
