package integration

import (
	"context"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// below selects everything below a path.
func below(t *testing.T, path string) datamodel.Node {
	t.Helper()
	sel, err := selectors.Path(path, selectors.ScopeAll)
	must(t, err)
	return sel
}

// makeForest is makeTree with no two files the same.
func makeForest(t *testing.T) (car string, root cid.Cid) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "forest")
	rnd := mrand.NewChaCha8([32]byte{5})
	write := func(name string, size int) {
		path := filepath.Join(src, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		data := make([]byte, size)
		_, err := rnd.Read(data)
		must(t, errors.Join(err, os.WriteFile(path, data, 0o600)))
	}
	write("big file.bin", 5<<20)
	write("a/b/c/deep.txt", 1234)
	write("a/one", 70_000)
	write("a/b/two", 70_000)
	for i := range entries {
		write(entry(i), 50+i%7)
	}
	car = filepath.Join(t.TempDir(), "forest.car")
	res, err := piece.Create(t.Context(), car, []string{src}, piece.CreateOptions{ChunkSize: 64 << 10})
	must(t, err)
	return car, res.Root
}

// TestUnion: overlapping selections of one DAG, bought one after the other,
// cost their union, whoever sells which.
func TestUnion(t *testing.T) {
	t.Parallel()
	car, root := makeForest(t)
	one := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	two := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	for name, paths := range map[string][]string{
		"inner first":  {"a/b", "a", ""},
		"middle first": {"big file.bin", entry(921), ""},
		"last first":   {entry(17), "a/b/c/deep.txt", ""},
		"whole first":  {"", "a", "many"},
		"neighbours":   {entry(17), entry(921), entry(18), entry(17), ""},
	} {
		for _, twice := range []*seller{one, two} {
			t.Run(name, func(t *testing.T) {
				b := newBuyer(t, t.TempDir())
				var got, spent voucher.Bytes
				for i, path := range paths {
					s := one
					if i%2 == 1 {
						s = twice
					}
					d, err := b.Get(within(t, longest), market.Request{
						Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Selector: below(t, path), Budget: voucher.OneFIL,
					})
					must(t, err)
					got, spent = got+d.TotalReceived, spent+defaultAsk.PricePerByte.Buys(d.FundsSpent)
				}
				info, _ := one.pieces.Find(root, nil)
				want, err := selectors.Measure(t.Context(), goods{one.pieces}.LinkSystem(info.ID), root, nil, 1<<20)
				must(t, err)
				if uint64(got) != want.Bytes || uint64(spent) != want.Bytes {
					t.Errorf("%d bytes received, %d paid, the whole has %d", got, spent, want.Bytes)
				}
				b.holdsEachOnce(t, root, want)
			})
		}
	}
}

// holdsEachOnce checks that the store has every block, and none twice.
func (b *buyer) holdsEachOnce(t *testing.T, root cid.Cid, want selectors.Count) {
	t.Helper()
	p, err := piece.OpenPartial(b.stores.path(root), root)
	must(t, err)
	defer p.Close()
	done, count, err := selectors.Complete(t.Context(), p.LinkSystem(), root, nil, 1<<20)
	must(t, err)
	if !done || count.Bytes != want.Bytes || p.Written() != want.Bytes {
		t.Errorf("complete %v, %d bytes in the selection, %d in the store, want %d", done, count.Bytes, p.Written(), want.Bytes)
	}
}

// TestChangeOfProvider: a deal that another provider finished is not paid to
// the first one.
func TestChangeOfProvider(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 12<<20, 64<<10)
	one := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	two := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	from := func(s *seller) market.Request {
		return market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}
	}
	ctx, pause := context.WithCancel(within(t, longest))
	id, err := b.Retrieve(ctx, from(one))
	must(t, err)
	stop := b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
		if d.TotalReceived > 4<<20 {
			pause()
		}
	})
	<-ctx.Done()
	stop()
	ctx = within(t, longest)
	must(t, b.PauseDeal(ctx, id))
	first, err := b.RetrievalStatus(ctx, id)
	must(t, err)
	second, err := b.Get(ctx, from(two))
	must(t, err)
	third, err := b.Get(ctx, from(one))
	must(t, err)
	if !third.FundsSpent.IsZero() || uint64(first.TotalReceived+second.TotalReceived) != size {
		t.Errorf("%d and %d bytes of %d, then %s paid for nothing", first.TotalReceived, second.TotalReceived, size, third.FundsSpent)
	}
	unpaid := defaultAsk.Terms().Cost(first.TotalReceived).Sub(first.FundsSpent)
	if most := defaultAsk.Terms().Cost(defaultAsk.PaymentInterval + 64<<10); most.Less(unpaid) {
		t.Errorf("%s were not paid, more than an interval and a block", unpaid)
	}
}

// TestUnionInterrupted: a retrieval in parts that is stopped in one of them goes
// on there, and comes to the same sum.
func TestUnionInterrupted(t *testing.T) {
	t.Parallel()
	car, root := makeForest(t)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, voucher.Ask{PricePerByte: 3, PaymentInterval: 64 << 10}, voucher.OneFIL)
	dir := t.TempDir()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	request := func(path string) market.Request {
		return market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Selector: below(t, path), Budget: voucher.OneFIL, AtRisk: risk(0)}
	}
	b := newBuyerOn(t, dir, newHostWithKey(t, key, false))
	_, err = b.Get(within(t, longest), request(entry(17)))
	must(t, err)
	ctx, interrupt := context.WithCancel(within(t, longest))
	b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
		if d.PayloadCID == root && d.TotalReceived > 300<<10 || d.PayloadCID != root && d.Whole == root {
			interrupt()
		}
	})
	_, err = b.Get(ctx, request(""))
	if err == nil {
		t.Fatal("nothing was interrupted")
	}
	b.stop()
	again := newBuyerOn(t, dir, newHostWithKey(t, key, false))
	_, err = again.Get(within(t, longest), request(""))
	must(t, err)
	info, _ := s.pieces.Find(root, nil)
	want, err := selectors.Measure(t.Context(), goods{s.pieces}.LinkSystem(info.ID), root, nil, 1<<20)
	must(t, err)
	settledExactly(t, s, again, want.Bytes, voucher.Ask{PricePerByte: 3})
	again.stop()
	again.holdsEachOnce(t, root, want)
}
