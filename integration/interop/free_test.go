package interop

import (
	"io"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// freeProposal is what clients that fetch only for free send: no piece, no
// price, no intervals.
func freeProposal(root cid.Cid) rt.DealProposal {
	return rt.DealProposal{PayloadCID: root, ID: 1, Params: params(0, 0, 0, 0, wholeDAG, nil)}
}

// TestFreeClient goes the way of such a client: the probes, then the deal. It
// gives up when anything is asked for.
func TestFreeClient(t *testing.T) {
	dag := newChain(t, times(20, 1000)...)
	provider := newSeller(t, voucher.Ask{}, false, dag.car(t))
	client := newLazyClient(t)
	checkTransports(t, client, provider)
	for _, p := range []protocol.ID{"/ipfs/graphsync/2.0.0", "/fil/datatransfer/1.2.0"} {
		s, err := client.host.NewStream(within(t, 5*time.Second), provider.host.ID(), p)
		must(t, err)
		if s.Protocol() != p {
			t.Errorf("asked for %s, got %s", p, s.Protocol())
		}
		must(t, s.Reset())
	}
	deal := client.propose(within(t, 10*time.Second), provider.addr(), address.Undef, freeProposal(dag.root), wholeDAG)
	deal.wait(within(t, 20*time.Second))
	if deal.err != nil || !deal.completed || deal.received != 20_000 || len(deal.statuses) != 2 || deal.statuses[0] != rt.DealStatusAccepted {
		t.Errorf("want Accepted and Completed: %s", deal)
	}
}

// TestFreeFirstByte: such a client has its first byte within a second of its
// first connection. The fastest of a few counts: the others wait for what else the
// machine does.
func TestFreeFirstByte(t *testing.T) {
	dag := newChain(t, times(20, 1000)...)
	provider := newSeller(t, voucher.Ask{}, false, dag.car(t))
	fastest := time.Hour
	for range 5 {
		client := newLazyClient(t)
		start := time.Now()
		deal := client.propose(within(t, 10*time.Second), provider.addr(), address.Undef, freeProposal(dag.root), wholeDAG)
		deal.wait(within(t, 20*time.Second))
		if deal.err != nil || !deal.completed {
			t.Fatalf("%s", deal)
		}
		fastest = min(fastest, deal.first.Sub(start))
	}
	t.Logf("the first byte came after %s", fastest)
	if fastest > time.Second {
		t.Errorf("the first byte came after %s", fastest)
	}
}

// checkTransports asks over which protocols the provider deals.
func checkTransports(t *testing.T, client *lazyClient, provider *seller) {
	t.Helper()
	must(t, client.host.Connect(within(t, 5*time.Second), provider.addr()))
	s, err := client.host.NewStream(within(t, 5*time.Second), provider.host.ID(), "/fil/retrieval/transports/1.0.0")
	must(t, err)
	must(t, s.SetReadDeadline(time.Now().Add(5*time.Second)))
	answer, err := io.ReadAll(s) // it ends by itself
	must(t, err)
	protocols, err := unmarshal(t, answer).LookupByString("Protocols")
	must(t, err)
	if protocols.Length() != 1 {
		t.Fatalf("%d protocols", protocols.Length())
	}
	libp2p, err := protocols.LookupByIndex(0)
	must(t, err)
	keys, values := entries(t, libp2p)
	if len(keys) != 2 || keys[0] != "Name" || keys[1] != "Addresses" {
		t.Fatalf("keys %v", keys)
	}
	if name, err := values[0].AsString(); err != nil || name != "libp2p" {
		t.Errorf("name %q, %v", name, err)
	}
	addrs := provider.host.Addrs()
	if values[1].Length() != int64(len(addrs)) {
		t.Fatalf("%d addresses, want %v", values[1].Length(), addrs)
	}
	for i, want := range addrs {
		n, err := values[1].LookupByIndex(int64(i))
		must(t, err)
		b, err := n.AsBytes()
		must(t, err)
		if got, err := multiaddr.NewMultiaddrBytes(b); err != nil || !got.Equal(want) {
			t.Errorf("address %v, %v, want %v", got, err, want)
		}
	}
}

// TestFreeClientAndPaidRoot: one node gives one root away and sells another,
// which a free client is refused with a reason.
func TestFreeClientAndPaidRoot(t *testing.T) {
	free, paid := newChain(t, times(5, 1000)...), newChain(t, times(6, 1000)...)
	provider := newSeller(t, voucher.Ask{PricePerByte: 2, PaymentInterval: 10_000}, false, free.car(t), paid.car(t))
	provider.pricing = func(in market.PricingInput) voucher.Ask {
		if in.Payload.PayloadCID == free.root {
			return voucher.Ask{}
		}
		return in.Ask
	}
	client := newLazyClient(t)
	refused := client.propose(within(t, 10*time.Second), provider.addr(), address.Undef, freeProposal(paid.root), wholeDAG)
	refused.wait(within(t, 20*time.Second))
	if len(refused.statuses) != 1 || refused.statuses[0] != rt.DealStatusRejected || refused.message == "" || refused.received != 0 {
		t.Errorf("want Rejected with a reason, not %q: %s", refused.message, refused)
	}
	again := freeProposal(free.root)
	again.ID = 2
	deal := client.propose(within(t, 10*time.Second), provider.addr(), address.Undef, again, wholeDAG)
	deal.wait(within(t, 20*time.Second))
	if deal.err != nil || !deal.completed || deal.received != 5_000 {
		t.Errorf("the free root: %s", deal)
	}
	again.ID, again.PayloadCID = 3, newChain(t, 77).root
	unknown := client.propose(within(t, 10*time.Second), provider.addr(), address.Undef, again, wholeDAG)
	unknown.wait(within(t, 20*time.Second))
	if len(unknown.statuses) != 1 || unknown.statuses[0] != rt.DealStatusDealNotFound {
		t.Errorf("want DealNotFound: %s", unknown)
	}
}

// TestSelectorNull: a proposal without a selector means the whole DAG, and a
// piece may be named.
func TestSelectorNull(t *testing.T) {
	dag := newChain(t, times(5, 1000)...)
	provider := newSeller(t, voucher.Ask{}, false, dag.car(t))
	info, ok := provider.goods.Store.Find(dag.root, nil)
	if !ok {
		t.Fatal("the piece is not found")
	}
	client := newLazyClient(t)
	deal := client.propose(within(t, 10*time.Second), provider.addr(), address.Undef,
		rt.DealProposal{PayloadCID: dag.root, ID: 1, Params: params(0, 0, 0, 0, nil, &info.ID)}, wholeDAG)
	deal.wait(within(t, 20*time.Second))
	if deal.err != nil || !deal.completed || deal.received != 5_000 {
		t.Errorf("%s", deal)
	}
}
