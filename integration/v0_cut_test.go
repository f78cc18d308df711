package integration

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestV0Cuts: connections that break again and again cost nothing: the deal goes
// on on another stream behind what is held, and both books are exact.
func TestV0Cuts(t *testing.T) {
	for name, ahead := range map[string]*voucher.Bytes{"strict": risk(0), "ahead": risk(2 << 20)} {
		t.Run(name, func(t *testing.T) {
			car, root, size := makeCAR(t, t.TempDir(), 24<<20, 64<<10)
			key, _, err := crypto.GenerateEd25519Key(rand.Reader)
			must(t, err)
			h := hiddenHost(t, key)
			s := newSeller(t, t.TempDir(), h, []string{car}, defaultAsk, voucher.OneFIL, sellsByStream)
			proxy, addr := proxyTo(t, h)
			b := newBuyer(t, t.TempDir(), buysByStream)
			next := voucher.Bytes(3 << 20)
			defer b.SubscribeToEvents(func(_ market.ClientEvent, d market.ClientDealState) {
				if d.TotalReceived > next {
					next = d.TotalReceived + 5<<20
					proxy.cut()
				}
			})()
			_, err = b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: addr}, Root: root, Budget: voucher.OneFIL, AtRisk: ahead})
			must(t, err)
			settledExactly(t, s, b, size, defaultAsk)
		})
	}
}

// TestV0Restarts: either side is closed in the middle and comes back.
func TestV0Restarts(t *testing.T) {
	t.Parallel()
	car, root, size := makeCAR(t, t.TempDir(), 24<<20, 64<<10)
	ctx := within(t, longest)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	dir := t.TempDir()
	addr := freeAddress(t)
	s := newSeller(t, dir, newHostAt(t, key, addr), []string{car}, defaultAsk, voucher.OneFIL, sellsByStream)
	clientDir := t.TempDir()
	clientKey, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	request := market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}
	b := newBuyerOn(t, clientDir, newHostWithKey(t, clientKey, false), buysByStream)
	b.begun(ctx, t, request, 8<<20)
	b.stop()
	b = newBuyerOn(t, clientDir, newHostWithKey(t, clientKey, false), buysByStream)
	id := b.begun(ctx, t, request, 16<<20)
	s.stop()
	again := newSeller(t, dir, newHostAt(t, key, addr), []string{car}, defaultAsk, voucher.OneFIL, sellsByStream)
	_, err = b.Wait(ctx, id)
	must(t, err)
	settledExactly(t, again, b, size, defaultAsk)
}

// TestV0Skip: who comes back without having paid is sent what it did not get, and
// nothing new, however often it comes; each block comes once.
func TestV0Skip(t *testing.T) {
	t.Parallel()
	const block = 100_000
	car, root := makeRepeats(t, t.TempDir(), 60, block)
	walk := walkOf(t, []string{car}, root)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL, sellsByStream)
	once := firsts(walk)
	c := newOldClient(t, s, root, walk, 7, defaultAsk)
	must(t, c.s.Reset())
	seen := 0
	for range 4 {
		stream, err := c.host.NewStream(t.Context(), s.host.ID(), voucher.DealProtocolV0)
		must(t, err)
		c.s, c.in, c.walk, c.got, c.received = stream, voucher.NewReaderV0(stream), once[min(seen, len(once)):], 0, 0
		skip := linksBefore(walk, once, seen)
		c.write(voucher.ProposalV0{DealProposal: proposalOn(root, 8, defaultAsk), Once: true, Skip: skip}.MarshalCBOR())
		c.id = 8
		c.drain()
		seen += c.got
		if got := sum(once[:seen]); got >= defaultAsk.PaymentInterval+block {
			t.Errorf("%d bytes without paying, an interval of %d and a block of %d allowed", got, defaultAsk.PaymentInterval, block)
		}
		must(t, c.s.Reset())
		if seen > 4 {
			seen -= 3 // as if they had been lost on the way
		}
	}
}

// firsts are the steps of a walk without repeats.
func firsts(walk []step) (once []step) {
	seen := make(map[string]bool)
	for _, s := range walk {
		if !seen[s.cid.KeyString()] {
			seen[s.cid.KeyString()] = true
			once = append(once, s)
		}
	}
	return once
}

// linksBefore is how many links of a walk one that holds the first n blocks may
// skip.
func linksBefore(walk, once []step, n int) uint64 {
	held := make(map[string]bool)
	for _, s := range once[:n] {
		held[s.cid.KeyString()] = true
	}
	for i, s := range walk {
		if !held[s.cid.KeyString()] {
			return uint64(i)
		}
	}
	return uint64(len(walk))
}

// drain takes what comes until nothing comes for a second.
func (c *oldClient) drain() {
	c.t.Helper()
	for {
		must(c.t, c.s.SetReadDeadline(time.Now().Add(time.Second))) // nothing tells of what is not sent
		_, n, err := c.in.Response()
		if err != nil {
			return
		}
		c.take(n)
	}
}

// TestV0OldProviderCut: a provider that cannot take up a deal is paid for what it
// sent, and what is missing is bought in other deals. They cost no more than one
// would, and once more at most the block at the root of each: whose links are
// missing.
func TestV0OldProviderCut(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pack  func(testing.TB) (car string, root cid.Cid)
		cuts  []int
		deals int
	}{
		"one cut":                {packed(3_000_000, 100_000), []int{17}, 2},
		"nothing came":           {packed(3_000_000, 100_000), []int{0}, 2},
		"one block is missing":   {packed(3_000_000, 300_000), []int{10}, 2},
		"two levels, three cuts": {packed(3_000_000, 1_000), []int{1500, 310, 310}, 5},
		"repeats":                {func(t testing.TB) (string, cid.Cid) { return makeRepeats(t, t.TempDir(), 21, 100_000) }, []int{11}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			car, root := tc.pack(t)
			walk := walkOf(t, []string{car}, root)
			p := newOldProvider(t, voucher.Ask{PricePerByte: 3, PaymentInterval: 300_000}, walk)
			p.cuts = tc.cuts
			b := newBuyer(t, t.TempDir())
			ctx := within(t, longest)
			got, err := b.Get(ctx, p.request(root))
			must(t, err)
			ends := p.ended(ctx, tc.deals)
			if got.Status != voucher.DealStatusCompleted || ends[len(ends)-1] != nil || len(p.ids) != tc.deals || len(distinctIDs(p.ids)) != tc.deals {
				t.Errorf("%s, the provider's ends %v of %v", got.Status, ends, p.ids)
			}
			if want := p.ask.PricePerByte.Of(p.sent); got.FundsSpent != want || p.earned() != want {
				t.Errorf("paid %s, the provider has %s, what came is %s", got.FundsSpent, p.earned(), want)
			}
			if most := sum(walk) + p.roots; p.sent > most {
				t.Errorf("%d bytes came, at most %d were to: all once and the roots of deals that were here", p.sent, most)
			}
			again, err := b.Get(ctx, p.request(root))
			must(t, err)
			if again.TotalReceived != 0 || len(p.ids) != tc.deals {
				t.Errorf("%d bytes were still missing", again.TotalReceived)
			}
		})
	}
}

// packed packs a file of so many bytes in chunks.
func packed(size, chunk int64) func(testing.TB) (string, cid.Cid) {
	return func(t testing.TB) (string, cid.Cid) {
		car, root, _ := makeCAR(t, t.TempDir(), size, chunk)
		return car, root
	}
}

func distinctIDs(ids []voucher.DealID) map[voucher.DealID]bool {
	set := make(map[voucher.DealID]bool)
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// TestV0OldProviderRestart: a client that was closed in the middle of a deal with
// such a provider buys what is missing, under another number, and what it held is
// not paid again.
func TestV0OldProviderRestart(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 12_000_000, 100_000)
	walk := walkOf(t, []string{car}, root)
	p := newOldProvider(t, voucher.Ask{PricePerByte: 3, PaymentInterval: 300_000}, walk)
	dir, ctx := t.TempDir(), within(t, longest)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	b := newBuyerOn(t, dir, newHostWithKey(t, key, false))
	b.begun(ctx, t, p.request(root), 6_000_000)
	b.stop()
	b = newBuyerOn(t, dir, newHostWithKey(t, key, false))
	got, err := b.Get(ctx, p.request(root))
	must(t, err)
	p.ended(ctx, 2)
	if got.Status != voucher.DealStatusCompleted || len(distinctIDs(p.ids)) != 2 {
		t.Errorf("%s in the deals %v", got.Status, p.ids)
	}
	if most := p.ask.PricePerByte.Of(sum(walk) + p.roots); most.Less(p.earned()) {
		t.Errorf("paid %s, at most %s was to be", p.earned(), most)
	}
}

// TestV0Busy: more streams than allowed are refused with the reason, and a
// proposal that is none too.
func TestV0Busy(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 3<<20, 100_000)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL, sellsByStream,
		func(c *market.ProviderConfig) { c.MaxDealsPerPeer = 2 })
	c := newOldClient(t, s, root, walkOf(t, []string{car}, root), 1, defaultAsk)
	c.accepted()
	_, elsewhere, _ := makeCAR(t, t.TempDir(), 1000, 100)
	other := func(b []byte, err error) voucher.DealResponse {
		t.Helper()
		must(t, err)
		stream, err := c.host.NewStream(t.Context(), s.host.ID(), voucher.DealProtocolV0)
		must(t, err)
		t.Cleanup(func() { _ = stream.Reset() })
		must(t, stream.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = stream.Write(b)
		must(t, err)
		r, _, err := voucher.NewReaderV0(stream).Response()
		must(t, err)
		return r
	}
	for what, tc := range map[string]struct {
		proposal voucher.DealProposal
		raw      []byte
		want     voucher.Refusal
	}{
		"garbage":      {raw: []byte{0x83, 1, 2, 3}, want: voucher.RefusedTerms},
		"for nothing":  {proposal: proposalOn(root, 2, voucher.Ask{}), want: voucher.RefusedPrice},
		"no such root": {proposal: proposalOn(elsewhere, 3, defaultAsk), want: voucher.RefusedContent},
	} {
		b, err := tc.raw, error(nil)
		if b == nil {
			b, err = voucher.ProposalV0{DealProposal: tc.proposal}.MarshalCBOR()
		}
		if code, _, ok := voucher.ParseRefusal(other(b, err).Message); !ok || code != tc.want {
			t.Errorf("%s: %v, want %v", what, code, tc.want)
		}
	}
	second := other(voucher.ProposalV0{DealProposal: proposalOn(root, 4, defaultAsk)}.MarshalCBOR())
	if second.Status != voucher.DealStatusAccepted {
		t.Fatalf("the second stream: %+v", second)
	}
	third := other(voucher.ProposalV0{DealProposal: proposalOn(root, 5, defaultAsk)}.MarshalCBOR())
	if code, _, ok := voucher.ParseRefusal(third.Message); !ok || code != voucher.RefusedBusy || third.Status != voucher.DealStatusRejected {
		t.Errorf("the third stream: %+v", third)
	}
	must(t, c.s.Reset())
	ctx := within(t, longest)
	for { // its place is free when the provider has noticed
		r := other(voucher.ProposalV0{DealProposal: proposalOn(root, 1, defaultAsk)}.MarshalCBOR())
		if r.Status == voucher.DealStatusAccepted {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the place of a stream that ended is not free: %+v", r)
		}
	}
}

// TestV0Endless: a DAG of few blocks with more ways through it than anybody can
// walk ends its deal with the reason, whether its blocks are sent once or, for
// nothing, each time.
func TestV0Endless(t *testing.T) {
	t.Parallel()
	car, root := ladder(t, t.TempDir(), 40)
	for name, tc := range map[string]struct {
		ask  voucher.Ask
		once bool
	}{"once": {defaultAsk, true}, "each time for free": {voucher.Ask{}, false}} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, tc.ask, voucher.OneFIL, sellsByStream,
				func(c *market.ProviderConfig) { c.MaxRepeats = 5000 })
			b := newBuyer(t, t.TempDir(), buysByStream)
			must(t, b.host.Connect(t.Context(), s.addr()))
			stream, err := b.host.NewStream(t.Context(), s.host.ID(), voucher.DealProtocolV0)
			must(t, err)
			defer stream.Reset() //nolint:errcheck // it is over
			must(t, stream.SetDeadline(time.Now().Add(30*time.Second)))
			body, err := voucher.ProposalV0{DealProposal: proposalOn(root, 7, tc.ask), Once: tc.once}.MarshalCBOR()
			must(t, err)
			_, err = stream.Write(body)
			must(t, err)
			in, blocks := voucher.NewReaderV0(stream), 0
			for {
				r, n, err := in.Response()
				must(t, err)
				for range n {
					_, err := in.Block()
					must(t, err)
				}
				if blocks += n; r.Status != voucher.DealStatusErrored {
					continue
				}
				if code, _, ok := voucher.ParseRefusal(r.Message); !ok || code != voucher.RefusedSelector || blocks > 5100 {
					t.Errorf("%d blocks, then %+v", blocks, r)
				}
				return
			}
		})
	}
}
