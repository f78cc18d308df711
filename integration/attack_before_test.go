package integration

import (
	"testing"
	"time"

	"github.com/tollgraph/tollgraph/voucher"
)

// TestReturnBeforeRestarted: the same after a restart of the provider, which knows where
// the deal begins in bytes only: it gives no more than the block that shows it.
func TestReturnBeforeRestarted(t *testing.T) {
	shop := newShop(t)
	ctx := within(t, longest)
	r := newRecalled(ctx, t, shop, 16)
	before := r.loot(ctx, shop)
	r.next++
	r.begin(ctx, 0)
	if got := r.loot(ctx, shop); got.unique > before.unique+shopBlock {
		t.Errorf("%+v, then %+v", before, got)
	}
}

// TestReturnBeforeV0: the same on streams.
func TestReturnBeforeV0(t *testing.T) {
	t.Parallel()
	const block = 64 << 10
	car, root, _ := makeCAR(t, t.TempDir(), 60*block, block)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, shopAsk, voucher.OneFIL)
	h := newHost(t, false)
	t.Cleanup(func() { _ = h.Close() })
	must(t, h.Connect(t.Context(), s.addr()))
	got := 0
	for _, skip := range []uint64{40, 0, 39} {
		stream, err := h.NewStream(t.Context(), s.host.ID(), voucher.SkipProtocolV0)
		must(t, err)
		must(t, stream.SetDeadline(time.Now().Add(2*time.Second))) // a stream that waits for money says nothing more
		raw, err := voucher.ProposalV0{DealProposal: proposalOn(root, 8, shopAsk), Once: true, Skip: skip}.MarshalCBOR()
		must(t, err)
		_, err = stream.Write(raw)
		must(t, err)
		in := voucher.NewReaderV0(stream)
		for {
			_, n, err := in.Response()
			if err != nil {
				break
			}
			for range n {
				b, err := in.Block()
				must(t, err)
				got += len(b.Data)
			}
		}
		must(t, stream.Reset())
	}
	if got < shopInterval || got >= shopInterval+block {
		t.Errorf("%d bytes without paying, an interval of %d and less than a block of %d allowed", got, shopInterval, block)
	}
}
