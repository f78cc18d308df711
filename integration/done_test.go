package integration

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestDoneEarly: a client that pays for what it has and then says that it
// wants no more, while the transfer only stands still, is not sent the rest.
func TestDoneEarly(t *testing.T) {
	t.Parallel()
	const block = 100_000
	car, root, _ := makeCAR(t, t.TempDir(), 12<<20, block)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	f := newFreeloader(t, root)
	ctx := within(t, longest)
	chid := f.open(s, root, 7, defaultAsk)
	moved := served(ctx, t, s, chid, uint64(defaultAsk.PaymentInterval))

	ch, err := f.wallet.GetOrCreatePaymentChannel(ctx, f.wallet.Address(), s.till.Address(), voucher.OneFIL)
	must(t, err)
	lane, err := f.wallet.AllocateLane(ctx, ch, voucher.OneFIL)
	must(t, err)
	v, err := f.wallet.CreatePaymentVoucher(ctx, ch, defaultAsk.PricePerByte.Of(voucher.Bytes(moved)), lane)
	must(t, err)
	payment, err := voucher.DealPayment{ID: 7, PaymentChannel: ch, PaymentVoucher: v}.Encode()
	must(t, err)
	frame, err := qp.BuildMap(basicnode.Prototype.Map, 3, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "ID", qp.Int(7))
		qp.MapEntry(m, "Done", qp.Bool(true))
		qp.MapEntry(m, "Payment", qp.Node(payment))
	})
	must(t, err)
	var body bytes.Buffer
	must(t, dagcbor.Encode(frame, &body))
	stream, err := f.host.NewStream(ctx, s.host.ID(), market.PaymentProtocol)
	must(t, err)
	defer stream.Close()
	_, err = stream.Write(append(binary.AppendUvarint(nil, uint64(body.Len())), body.Bytes()...))
	must(t, err)
	_, err = stream.Read(make([]byte, 1)) // the answer is on its way
	must(t, err)

	limit := 2*uint64(defaultAsk.PaymentInterval) + block // what it paid for buys the next interval
	if got := served(ctx, t, s, chid, 0); got >= limit {
		t.Errorf("%d bytes served, %d allowed", got, limit)
	}
}
