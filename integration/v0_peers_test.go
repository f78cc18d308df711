package integration

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// step is the block of one link of a walk.
type step struct {
	cid  cid.Cid
	data []byte
}

// walkOf lists the blocks of the whole DAG below root, link by link.
func walkOf(t testing.TB, cars []string, root cid.Cid) []step {
	t.Helper()
	store, err := piece.Open(t.Context(), piece.Config{Paths: cars, IndexDir: t.TempDir(), Logger: testLogger()})
	must(t, err)
	defer store.Close()
	ls := goods{store}.LinkSystem(store.Pieces()[0].ID)
	var steps []step
	must(t, selectors.Walk(t.Context(), ls, root, nil, 0, func(c cid.Cid) ([]byte, error) {
		data, err := ls.LoadRaw(ipld.LinkContext{Ctx: t.Context()}, cidlink.Link{Cid: c})
		steps = append(steps, step{c, data})
		return data, err
	}))
	return steps
}

// sum is what the blocks of a walk come to, each link counted.
func sum(steps []step) (n voucher.Bytes) {
	for _, s := range steps {
		n += voucher.Bytes(len(s.data))
	}
	return n
}

// makeRepeats packs a file of chunks of which every second is the same.
func makeRepeats(t testing.TB, dir string, chunks, size int) (car string, root cid.Cid) {
	t.Helper()
	var data []byte
	for i := range chunks {
		chunk := make([]byte, size)
		if i%2 == 0 {
			copy(chunk, fmt.Sprintf("chunk %d", i))
		}
		data = append(data, chunk...)
	}
	src := filepath.Join(t.TempDir(), "repeats.bin")
	must(t, os.WriteFile(src, data, 0o600))
	car = filepath.Join(dir, "repeats.car")
	res, err := piece.Create(t.Context(), car, []string{src}, piece.CreateOptions{ChunkSize: int64(size)})
	must(t, err)
	return car, res.Root
}

// oldClient buys as the clients of July 2020 did: it pays when asked, what was
// asked, and finds fault with everything that they found fault with.
type oldClient struct {
	t     testing.TB
	host  host.Host
	s     network.Stream
	in    *voucher.ReaderV0
	id    voucher.DealID
	terms voucher.Terms
	walk  []step
	pay   func(voucher.Amount) voucher.DealPayment

	got      int // blocks
	received voucher.Bytes
	paid     []voucher.Amount // cumulative
}

// newOldClient proposes a deal to s.
func newOldClient(t testing.TB, s *seller, root cid.Cid, walk []step, id voucher.DealID, ask voucher.Ask) *oldClient {
	t.Helper()
	b := newBuyer(t, t.TempDir(), buysByStream)
	must(t, b.host.Connect(t.Context(), s.addr()))
	stream, err := b.host.NewStream(t.Context(), s.host.ID(), voucher.DealProtocolV0)
	must(t, err)
	t.Cleanup(func() { _ = stream.Reset() })
	must(t, stream.SetDeadline(time.Now().Add(time.Minute)))
	c := &oldClient{t: t, host: b.host, s: stream, in: voucher.NewReaderV0(stream), id: id, terms: ask.Terms(), walk: walk, pay: payer(t, b.wallet, s.till.Address(), id)}
	c.write(voucher.ProposalV0{DealProposal: proposalOn(root, id, ask)}.MarshalCBOR())
	return c
}

func proposalOn(root cid.Cid, id voucher.DealID, ask voucher.Ask) voucher.DealProposal {
	return voucher.DealProposal{PayloadCID: root, ID: id, Params: voucher.Params{PricePerByte: ask.PricePerByte,
		PaymentInterval: ask.PaymentInterval, PaymentIntervalIncrease: ask.PaymentIntervalIncrease}}
}

// payer signs on a lane of its own.
func payer(t testing.TB, w *payment.Wallet, to address.Address, id voucher.DealID) func(voucher.Amount) voucher.DealPayment {
	t.Helper()
	ch, err := w.GetOrCreatePaymentChannel(t.Context(), w.Address(), to, voucher.OneFIL)
	must(t, err)
	lane, err := w.AllocateLane(t.Context(), ch, voucher.OneFIL)
	must(t, err)
	return func(a voucher.Amount) voucher.DealPayment {
		v, err := w.CreatePaymentVoucher(t.Context(), ch, a, lane)
		must(t, err)
		return voucher.DealPayment{ID: id, PaymentChannel: ch, PaymentVoucher: v}
	}
}

func (c *oldClient) write(b []byte, err error) {
	c.t.Helper()
	must(c.t, err)
	_, err = c.s.Write(b)
	must(c.t, err)
}

// next reads an answer and takes its blocks.
func (c *oldClient) next() voucher.DealResponse {
	c.t.Helper()
	r, n, err := c.in.Response()
	must(c.t, err)
	c.take(n)
	return r
}

// take takes n blocks, which must be the next ones.
func (c *oldClient) take(n int) {
	c.t.Helper()
	for range n {
		b, err := c.in.Block()
		must(c.t, err)
		if c.got >= len(c.walk) {
			c.t.Fatal("a block behind the last one")
		}
		must(c.t, b.Verify(c.walk[c.got].cid))
		c.got++
		c.received += voucher.Bytes(len(b.Data))
	}
}

// last returns what was paid so far.
func (c *oldClient) last() voucher.Amount {
	if len(c.paid) == 0 {
		return voucher.Amount{}
	}
	return c.paid[len(c.paid)-1]
}

// sendPayment pays amount in all.
func (c *oldClient) sendPayment(amount voucher.Amount) {
	c.t.Helper()
	c.paid = append(c.paid, amount)
	c.write(c.pay(amount).MarshalTuple())
}

// accepted reads the first answer, in which older clients look for nothing but
// the status.
func (c *oldClient) accepted() {
	c.t.Helper()
	if r := c.next(); r.Status != voucher.DealStatusAccepted || c.got != 0 {
		c.t.Fatalf("the first answer is %+v with %d blocks", r, c.got)
	}
}

// buy goes through the whole deal.
func (c *oldClient) buy() {
	c.t.Helper()
	c.accepted()
	interval, paidFor := c.terms.Interval, voucher.Bytes(0)
	for {
		r := c.next()
		done := c.got == len(c.walk)
		switch {
		case done && r.Status == voucher.DealStatusCompleted:
			return
		case done && r.Status == voucher.DealStatusFundsNeededLastPayment:
		case !done && r.Status == voucher.DealStatusOngoing:
			continue
		case !done && r.Status == voucher.DealStatusFundsNeeded && c.received-paidFor >= interval:
		default:
			c.t.Fatalf("%+v with %d of %d blocks, %d bytes not paid for, interval %d", r, c.got, len(c.walk), c.received-paidFor, interval)
		}
		if c.terms.Price.Of(c.received - paidFor).Less(r.PaymentOwed) {
			c.t.Fatalf("%s asked for %d bytes", r.PaymentOwed, c.received-paidFor)
		}
		c.sendPayment(c.last().Add(r.PaymentOwed))
		bytes := c.terms.Price.Buys(r.PaymentOwed)
		paidFor += bytes
		if bytes >= interval {
			interval += c.terms.Increase
		}
		if done {
			if r := c.next(); r.Status != voucher.DealStatusCompleted {
				c.t.Fatalf("after the last payment %+v", r)
			}
			return
		}
	}
}

// oldProvider sells as the providers of July 2020 did: all of an interval in one
// answer, everything from the root on, and no deal twice.
type oldProvider struct {
	t     testing.TB
	host  host.Host
	ask   voucher.Ask
	payTo address.Address
	goods *shelf
	size  voucher.Bytes
	// spoil changes a block before it is sent; nil changes nothing.
	spoil func(i int, b voucher.Block) []voucher.Block
	// cuts are in front of which block the first streams end.
	cuts []int

	mu    sync.Mutex
	paid  []voucher.Amount          // guarded by mu: cumulative in each deal
	lanes map[uint64]voucher.Amount // guarded by mu: what each is worth
	ends  []error                   // guarded by mu: how each deal ended
	ids   []voucher.DealID          // guarded by mu
	sent  voucher.Bytes             // guarded by mu; in all answers
	known map[string]bool           // guarded by mu; what was sent in one
	roots voucher.Bytes             // guarded by mu; what the roots of deals come to that were sent before
	done  chan struct{}             // a deal ended
}

func newOldProvider(t testing.TB, ask voucher.Ask, walk []step) *oldProvider {
	t.Helper()
	return newOldProviderOn(t, newHost(t, true), ask, walk)
}

// newOldProviderOn sells on a host, which it closes in the end.
func newOldProviderOn(t testing.TB, h host.Host, ask voucher.Ask, walk []step) *oldProvider {
	t.Helper()
	key, err := payment.LoadOrCreateKey(filepath.Join(t.TempDir(), "wallet.key"))
	must(t, err)
	p := &oldProvider{t: t, host: h, ask: ask, payTo: key.Address(), goods: newShelf(), size: sum(walk), lanes: make(map[uint64]voucher.Amount), known: make(map[string]bool), done: make(chan struct{}, 64)}
	for _, s := range walk {
		p.goods.blocks[cidlink.Link{Cid: s.cid}.Binary()] = s.data
	}
	p.host.SetStreamHandler(voucher.QueryProtocolV0, p.query)
	p.host.SetStreamHandler(voucher.DealProtocolV0, func(s network.Stream) {
		_ = s.SetDeadline(time.Now().Add(30 * time.Second))
		err := p.sell(s)
		_ = s.Close()
		if err != nil {
			_ = s.Reset()
		}
		p.mu.Lock()
		p.ends = append(p.ends, err)
		p.mu.Unlock()
		p.done <- struct{}{}
	})
	t.Cleanup(func() { must(t, p.host.Close()) })
	return p
}

func (p *oldProvider) addr() peer.AddrInfo {
	return peer.AddrInfo{ID: p.host.ID(), Addrs: p.host.Addrs()}
}

func (p *oldProvider) query(s network.Stream) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := voucher.ReadMessage(s, 1<<16); err != nil {
		return
	}
	b, err := voucher.QueryResponse{PaymentAddress: p.payTo, MinPricePerByte: p.ask.PricePerByte, Size: p.size,
		MaxPaymentInterval: p.ask.PaymentInterval, MaxPaymentIntervalIncrease: p.ask.PaymentIntervalIncrease}.MarshalTuple()
	if err == nil {
		_, _ = s.Write(b)
	}
}

// sell is one deal.
func (p *oldProvider) sell(s network.Stream) error {
	in := voucher.NewReaderV0(s)
	proposal, err := in.Proposal()
	if err != nil {
		return err
	}
	if proposal.Once {
		return errors.New("a tuple of four, which is not known here")
	}
	walk, err := p.walk(proposal.DealProposal)
	if err != nil {
		return err
	}
	cut := p.begin(proposal.DealProposal)
	say := func(r voucher.ResponseV0) error {
		r.ID = proposal.ID
		b, err := r.MarshalCBOR()
		if err == nil {
			_, err = s.Write(b)
		}
		return err
	}
	if err := say(voucher.ResponseV0{DealResponse: voucher.DealResponse{Status: voucher.DealStatusAccepted}}); err != nil {
		return err
	}
	interval, sent, paidFor, at := p.ask.PaymentInterval, voucher.Bytes(0), voucher.Bytes(0), 0
	for {
		var batch []voucher.Block
		from := at
		for at < len(walk) && sent-paidFor < interval {
			if at == cut {
				return errors.New("cut")
			}
			b := voucher.BlockOf(walk[at].cid, walk[at].data)
			if p.spoil == nil {
				batch = append(batch, b)
			} else {
				batch = append(batch, p.spoil(at, b)...)
			}
			sent += voucher.Bytes(len(b.Data))
			at++
		}
		status := voucher.DealStatusFundsNeeded
		if at == len(walk) {
			status = voucher.DealStatusFundsNeededLastPayment
		}
		owed := p.ask.PricePerByte.Of(sent - paidFor)
		if err := say(voucher.ResponseV0{DealResponse: voucher.DealResponse{Status: status, PaymentOwed: owed}, Blocks: batch}); err != nil {
			return err
		}
		p.note(walk[from:at])
		for !owed.IsZero() {
			pay, err := in.Payment()
			if err != nil {
				return err
			}
			got, err := p.book(pay)
			if err != nil {
				return err
			}
			paidFor += p.ask.PricePerByte.Buys(got)
			if owed = owed.Sub(got); !owed.IsZero() {
				if err := say(voucher.ResponseV0{DealResponse: voucher.DealResponse{Status: status, PaymentOwed: owed}}); err != nil {
					return err
				}
			}
		}
		interval += p.ask.PaymentIntervalIncrease
		if at == len(walk) {
			return say(voucher.ResponseV0{DealResponse: voucher.DealResponse{Status: voucher.DealStatusCompleted}})
		}
	}
}

// walk is what a proposal selects, in order.
func (p *oldProvider) walk(d voucher.DealProposal) (steps []step, err error) {
	ls := p.goods.links()
	selectors.AddReifiers(&ls)
	err = selectors.Walk(p.t.Context(), ls, d.PayloadCID, d.Params.Selector, 0, func(c cid.Cid) ([]byte, error) {
		data := p.goods.get(cidlink.Link{Cid: c})
		steps = append(steps, step{c, data})
		return data, nil
	})
	return steps, err
}

// begin notes a deal and returns in front of which block it is cut.
func (p *oldProvider) begin(d voucher.DealProposal) (cut int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut = -1
	if len(p.ids) < len(p.cuts) {
		cut = p.cuts[len(p.ids)]
	}
	p.ids = append(p.ids, d.ID)
	if root := d.PayloadCID; p.known[string(root.Hash())] {
		p.roots += voucher.Bytes(len(p.goods.get(cidlink.Link{Cid: root})))
	}
	return cut
}

// note counts what was sent.
func (p *oldProvider) note(batch []step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range batch {
		p.sent += voucher.Bytes(len(s.data))
		p.known[string(s.cid.Hash())] = true
	}
}

// earned is what all lanes are worth.
func (p *oldProvider) earned() (all voucher.Amount) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.lanes {
		all = all.Add(a)
	}
	return all
}

// book takes a payment and returns by how much its lane grew.
func (p *oldProvider) book(pay voucher.DealPayment) (voucher.Amount, error) {
	if _, err := voucher.Signer(pay.PaymentVoucher); err != nil {
		return voucher.Amount{}, err
	}
	total, err := voucher.AmountFromBig(new(big.Int).Set(pay.PaymentVoucher.Amount.Int))
	if err != nil {
		return voucher.Amount{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.lanes[pay.PaymentVoucher.Lane]
	p.lanes[pay.PaymentVoucher.Lane] = last.Max(total)
	p.paid = append(p.paid, last.Max(total))
	return total.Sub(last), nil
}

// ended waits for n deals to end and returns how.
func (p *oldProvider) ended(ctx context.Context, n int) []error {
	p.t.Helper()
	for range n {
		select {
		case <-p.done:
		case <-ctx.Done():
			p.t.Fatal("the deal of the old provider does not end")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends
}

// request asks p for everything.
func (p *oldProvider) request(root cid.Cid) market.Request {
	return market.Request{Provider: market.RetrievalPeer{AddrInfo: p.addr(), Address: p.payTo}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)}
}
