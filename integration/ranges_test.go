package integration

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// blockSet is blocks and their sizes.
type blockSet map[cid.Cid]uint64

func (b blockSet) sum() (n uint64) {
	for _, size := range b {
		n += size
	}
	return n
}

// selected adds to b what a selector selects at a seller.
func (b blockSet) selected(t *testing.T, s *seller, root cid.Cid, sel datamodel.Node) {
	t.Helper()
	info, _ := s.pieces.Find(root, nil)
	ls := goods{s.pieces}.LinkSystem(info.ID)
	open := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		r, err := open(lc, l)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		b[l.(cidlink.Link).Cid] = uint64(len(data))
		return bytes.NewBuffer(data), err
	}
	_, err := selectors.Measure(t.Context(), ls, root, sel, 1<<20)
	must(t, err)
}

// entityBytes selects bytes of what is at a path, both ends included; to 0 is the
// end of the file.
func entityBytes(t *testing.T, path string, from, to int64) datamodel.Node {
	t.Helper()
	end := &to
	if to == 0 {
		end = nil
	}
	sel, err := selectors.EntityBytes(path, from, end)
	must(t, err)
	return sel
}

// TestUnionOfRanges: overlapping ranges of the bytes of a file, bought one after
// the other, cost the blocks of their union, whoever sells which.
func TestUnionOfRanges(t *testing.T) {
	t.Parallel()
	car, root := makeForest(t)
	one := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	two := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	const file = "big file.bin"
	of := func(from, to int64) datamodel.Node { return entityBytes(t, file, from, to) }
	for name, wanted := range map[string][]datamodel.Node{
		"rising":          {of(0, 1_500_000), of(1_000_000, 3_000_000), of(2_500_000, 4_000_000)},
		"falling":         {of(3_000_000, 4_500_000), of(2_000_000, 4_000_000), of(500_000, 2_500_000)},
		"middle first":    {of(2_000_000, 2_500_000), of(1_000_000, 4_000_000), of(0, 0)},
		"then everything": {of(1_000_000, 2_000_000), of(3_000_000, 3_500_000), nil},
		"from the end":    {of(-2_000_000, -1_000_000), of(-1_500_000, 0), of(-4_000_000, -1_200_000)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuyer(t, t.TempDir())
			want, got := blockSet{}, voucher.Bytes(0)
			for i, sel := range wanted {
				s := []*seller{one, two}[i%2]
				request := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Selector: sel, Budget: voucher.OneFIL}
				estimate, err := b.Estimate(within(t, longest), request)
				must(t, err)
				d, err := b.Get(within(t, longest), request)
				must(t, err)
				if d.TotalReceived != estimate.Bytes || d.FundsSpent != estimate.Cost {
					t.Errorf("range %d: %d bytes for %s, estimated %d for %s", i, d.TotalReceived, d.FundsSpent, estimate.Bytes, estimate.Cost)
				}
				want.selected(t, s, root, sel)
				got += d.TotalReceived
			}
			if uint64(got) != want.sum() || b.spent(t) != defaultAsk.PricePerByte.Of(voucher.Bytes(want.sum())) {
				t.Errorf("%d bytes received for %s, the union has %d", got, b.spent(t), want.sum())
			}
		})
	}
}

// TestRangeInterrupted: a deal for a range, whose blocks are found by reading a
// file, goes on where it was stopped.
func TestRangeInterrupted(t *testing.T) {
	t.Parallel()
	car, root := makeForest(t)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	sel := entityBytes(t, "big file.bin", 100_000, 5_000_000)
	some := b.received(t, 1<<20)
	ctx := within(t, longest)
	request := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Selector: sel, Budget: voucher.OneFIL, AtRisk: risk(0)}
	id, err := b.Retrieve(ctx, request)
	must(t, err)
	select {
	case <-some:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	must(t, b.PauseDeal(ctx, id))
	again, err := b.ResumeDeal(ctx, id)
	must(t, err)
	if _, err = b.Wait(ctx, again); err != nil || again != id {
		t.Errorf("deal %d went on as %d: %v", id, again, err)
	}
	want := blockSet{}
	want.selected(t, s, root, sel)
	settledExactly(t, s, b, want.sum(), defaultAsk)
}

// hold puts some of the blocks of a DAG into the store of b: those of which
// choose says so.
func (b *buyer) hold(t *testing.T, s *seller, root cid.Cid, choose func(cid.Cid) bool) (held blockSet) {
	t.Helper()
	all := blockSet{}
	all.selected(t, s, root, nil)
	store, err := b.stores.Open(t.Context(), root)
	must(t, err)
	info, _ := s.pieces.Find(root, nil)
	from, to := goods{s.pieces}.LinkSystem(info.ID), store.LinkSystem()
	held = blockSet{}
	for c, size := range all {
		if choose(c) {
			data, err := from.LoadRaw(ipld.LinkContext{}, cidlink.Link{Cid: c})
			must(t, err)
			w, commit, err := to.StorageWriteOpener(linking.LinkContext{})
			must(t, err)
			_, err = w.Write(data)
			must(t, err)
			must(t, commit(cidlink.Link{Cid: c}))
			held[c] = size
		}
	}
	must(t, store.Close())
	return held
}

// TestManyGaps: however scattered what is held is, nothing of it is bought again.
func TestManyGaps(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 512<<10, 1<<10)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	for _, one := range []int{2, 16} {
		t.Run(fmt.Sprintf("one in %d", one), func(t *testing.T) {
			b := newBuyer(t, t.TempDir())
			held := b.hold(t, s, root, func(c cid.Cid) bool {
				hash := c.Hash()
				return c.Prefix().Codec != cid.Raw || int(hash[len(hash)-1])%one == 0
			})
			got, err := b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL})
			must(t, err)
			if want := size - held.sum(); uint64(got.TotalReceived) != want || b.spent(t) != defaultAsk.PricePerByte.Of(voucher.Bytes(want)) {
				t.Errorf("%d bytes for %s, %d were missing", got.TotalReceived, b.spent(t), want)
			}
			deals, err := b.Deals(t.Context(), 1000)
			must(t, err)
			t.Logf("%d of %d bytes in %d deals", got.TotalReceived, size, len(deals))
		})
	}
}
