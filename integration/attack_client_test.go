package integration

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/filecoin-project/go-data-transfer/v2/transport/graphsync/extension"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// rogue is a provider that does what it is told, not what it should. It gives the
// blocks away, so that what a client pays, and does not, is the client's doing.
type rogue struct {
	t      *testing.T
	host   host.Host
	net    gsnet.GraphSyncNetwork
	key    voucher.Key
	shop   *shop
	order  []cid.Cid // of the traversal
	script func(*rogue, *serving)
	work   sync.WaitGroup
	ctx    context.Context
}

// serving is one request that a rogue answers.
type serving struct {
	r    *rogue
	from peer.ID
	id   graphsync.RequestID
	tid  datatransfer.TransferID
	deal voucher.DealID
	skip int
	out  gsnet.MessageSender
}

func newRogue(t *testing.T, s *shop, script func(*rogue, *serving)) *rogue {
	t.Helper()
	key, err := voucher.NewKey()
	must(t, err)
	r := &rogue{t: t, host: plainHost(t), key: key, shop: s, script: script}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	ls := s.links()
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc ipld.LinkContext, l ipld.Link) (io.Reader, error) {
		r.order = append(r.order, l.(cidlink.Link).Cid)
		return read(lc, l)
	}
	_, _, err = selectors.Complete(t.Context(), ls, s.deal, selectors.All(), 1<<20)
	must(t, err)
	r.net = gsnet.NewFromLibp2pHost(r.host)
	r.net.SetDelegate(r)
	r.host.SetStreamHandler(datatransfer.ProtocolDataTransfer1_2, func(s network.Stream) {
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	})
	t.Cleanup(func() {
		cancel()
		_ = r.host.Close()
		r.work.Wait()
	})
	return r
}

func (r *rogue) ReceiveMessage(_ context.Context, p peer.ID, m gsmsg.GraphSyncMessage) {
	for _, q := range m.Requests() {
		if q.Type() != graphsync.RequestTypeNew {
			continue
		}
		msg, err := extension.GetTransferData(q, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
		if err != nil || msg == nil {
			continue
		}
		v, err := msg.(datatransfer.Request).Voucher()
		if err != nil {
			continue
		}
		proposal, err := voucher.DecodeDealProposal(v)
		if err != nil {
			continue
		}
		s := &serving{r: r, from: p, id: q.ID(), tid: msg.TransferID(), deal: proposal.ID}
		if n, has := q.Extension(graphsync.ExtensionsDoNotSendFirstBlocks); has {
			skip, _ := n.AsInt()
			s.skip = int(skip)
		}
		r.work.Go(func() { r.script(r, s) })
	}
}

func (r *rogue) ReceiveError(peer.ID, error) {}
func (r *rogue) Connected(peer.ID)           {}
func (r *rogue) Disconnected(peer.ID)        {}

// send sends what fill puts into a message. It returns false if the client is
// gone.
func (s *serving) send(fill func(*gsmsg.Builder)) bool {
	if s.out == nil {
		out, err := s.r.net.NewMessageSender(s.r.ctx, s.from, gsnet.MessageSenderOpts{SendTimeout: 5 * time.Second})
		if err != nil {
			return false
		}
		s.out = out
	}
	b := gsmsg.NewBuilder()
	fill(b)
	m, err := b.Build()
	return err == nil && s.out.SendMsg(s.r.ctx, m) == nil
}

func (s *serving) reply(d voucher.DealResponse) *datatransfer.TypedVoucher {
	d.ID = s.deal
	node, err := d.Encode()
	if err != nil {
		s.r.t.Error(err)
	}
	return &datatransfer.TypedVoucher{Voucher: node, Type: voucher.ResponseType}
}

// accept answers the proposal.
func (s *serving) accept() {
	m, err := message.NewResponse(s.tid, true, false, s.reply(voucher.DealResponse{Status: voucher.DealStatusAccepted}))
	if err != nil {
		s.r.t.Error(err)
		return
	}
	ext, err := extension.ToExtensionData(m, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
	if err != nil {
		s.r.t.Error(err)
		return
	}
	s.send(func(b *gsmsg.Builder) {
		b.AddResponseCode(s.id, graphsync.PartialResponse)
		b.AddExtensionData(s.id, ext[0])
	})
}

// say sends a data-transfer message on a stream of its own.
func (s *serving) say(m datatransfer.Message, err error) {
	if err != nil {
		s.r.t.Error(err)
		return
	}
	out, err := s.r.host.NewStream(s.r.ctx, s.from, datatransfer.ProtocolDataTransfer1_2)
	if err != nil {
		return // the client has gone
	}
	_ = m.ToNet(out) // likewise
	_ = out.Close()
}

func (s *serving) block(c cid.Cid) blocks.Block {
	raw, err := s.r.shop.blocks.Get(c)
	if err != nil {
		s.r.t.Error(err)
	}
	b, err := blocks.NewBlockWithCid(raw, c)
	if err != nil {
		s.r.t.Error(err)
	}
	return b
}

// blocks sends the first n blocks of the traversal, those that are to be skipped
// by name only.
func (s *serving) blocks(n int) bool {
	for i, c := range s.r.order[:n] {
		ok := s.send(func(b *gsmsg.Builder) {
			if i < s.skip {
				b.AddLink(s.id, cidlink.Link{Cid: c}, graphsync.LinkActionDuplicateNotSent)
				return
			}
			b.AddLink(s.id, cidlink.Link{Cid: c}, graphsync.LinkActionPresent)
			b.AddBlock(s.block(c))
		})
		if !ok {
			return false
		}
	}
	return true
}

// finish says that everything was sent.
func (s *serving) finish() {
	s.send(func(b *gsmsg.Builder) { b.AddResponseCode(s.id, graphsync.RequestCompletedFull) })
	s.say(message.CompleteResponse(s.tid, true, false, nil))
}

// all is everything, in order.
func (s *serving) all() {
	s.accept()
	if s.blocks(len(s.r.order)) {
		s.finish()
	}
}

// acks answers every payment with the account that f makes of it.
func (r *rogue) acks(f func(deal int64, frames int) (paid string, limit int64, settled bool)) {
	r.host.SetStreamHandler(market.PaymentProtocol, func(s network.Stream) {
		defer s.Close()
		for frames := 1; ; frames++ {
			n, err := readFrame(s)
			if err != nil {
				return
			}
			id, err := n.LookupByString("ID")
			if err != nil {
				return
			}
			deal, _ := id.AsInt()
			paid, limit, settled := f(deal, frames)
			if writeAck(s, deal, paid, limit, settled) != nil {
				return
			}
		}
	})
}

func writeAck(w io.Writer, deal int64, paid string, limit int64, settled bool) error {
	n, err := qp.BuildMap(basicnode.Prototype.Map, 6, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "ID", qp.Int(deal))
		qp.MapEntry(m, "Paid", qp.String(paid))
		qp.MapEntry(m, "Limit", qp.Int(limit))
		qp.MapEntry(m, "Message", qp.String(""))
		qp.MapEntry(m, "Refused", qp.Int(0))
		qp.MapEntry(m, "Settled", qp.Bool(settled))
	})
	if err != nil {
		return err
	}
	raw, err := ipld.Encode(n, dagcbor.Encode)
	if err != nil {
		return err
	}
	_, err = w.Write(frameOf(raw))
	return err
}

// rogueries is what providers may do, and what a client should make of it.
var rogueries = map[string]struct {
	script func(r *rogue, s *serving)
	whole  bool // the client has everything in the end
	alone  bool // nothing else may take memory meanwhile
}{
	"wrong blocks": {func(r *rogue, s *serving) {
		s.accept()
		s.blocks(2)
		for _, c := range r.order[2:] {
			s.send(func(b *gsmsg.Builder) {
				b.AddLink(s.id, cidlink.Link{Cid: c}, graphsync.LinkActionPresent)
				b.AddBlock(blocks.NewBlock([]byte("not what " + c.String() + " is")))
			})
		}
	}, false, false},
	"blocks in the wrong order": {func(r *rogue, s *serving) {
		s.accept()
		for i := len(r.order) - 1; i >= 0; i-- {
			s.send(func(b *gsmsg.Builder) {
				b.AddLink(s.id, cidlink.Link{Cid: r.order[i]}, graphsync.LinkActionPresent)
				b.AddBlock(s.block(r.order[i]))
			})
		}
	}, false, false},
	"a flood of other blocks": {func(r *rogue, s *serving) {
		s.accept()
		s.blocks(2)
		for i := range 128 { // 64 MiB
			junk := make([]byte, 512<<10)
			junk[0], junk[1] = byte(i), 1
			ok := s.send(func(b *gsmsg.Builder) {
				b.AddResponseCode(s.id, graphsync.PartialResponse)
				b.AddBlock(blocks.NewBlock(junk))
			})
			if !ok {
				return
			}
		}
	}, false, true},
	"too few": {func(r *rogue, s *serving) {
		s.accept()
		s.blocks(len(r.order) / 2)
		s.finish()
	}, false, false},
	"half a message": {func(r *rogue, s *serving) {
		s.accept()
		s.blocks(3)
		out, err := r.host.NewStream(r.ctx, s.from, gsnet.ProtocolGraphsync_2_0_0)
		if err == nil {
			_, _ = out.Write(append([]byte{0x80, 0x80, 0x10}, make([]byte, 1000)...)) // 1,000 of 256 Ki bytes
		}
	}, false, false},
	"silence": {func(*rogue, *serving) {}, false, false},
	"done before it began": {func(_ *rogue, s *serving) {
		s.accept()
		s.say(message.CompleteResponse(s.tid, true, false, s.reply(voucher.DealResponse{Status: voucher.DealStatusCompleted})))
	}, false, false},
	"asks for more than is due": {func(r *rogue, s *serving) {
		s.accept()
		s.blocks(3)
		s.say(message.VoucherResultResponse(s.tid, true, true, s.reply(voucher.DealResponse{Status: voucher.DealStatusFundsNeeded, PaymentOwed: voucher.OneFIL})))
	}, false, false},
	"asks for more, and serves": {func(r *rogue, s *serving) {
		s.accept()
		s.say(message.VoucherResultResponse(s.tid, true, false, s.reply(voucher.DealResponse{Status: voucher.DealStatusFundsNeeded, PaymentOwed: voucher.OneFIL})))
		if s.blocks(len(r.order)) {
			s.finish()
		}
	}, true, false},
	"never acknowledges":       {func(r *rogue, s *serving) { s.all() }, true, false},
	"forgets what it was paid": {func(r *rogue, s *serving) { s.all() }, true, false},
	"claims that all is settled": {func(r *rogue, s *serving) {
		s.accept()
		s.blocks(3)
	}, false, false},
}

// TestAttackProviders: whatever a provider does, its client signs for no more
// than it has verified and what it may risk, and ends with a reason in time.
func TestAttackProviders(t *testing.T) {
	t.Parallel()
	attackedByProviders(t, false)
}

// TestAttackMemory: nor does it take more memory than the client has for it. This is
// seen in the heap of the process, so nothing else runs.
func TestAttackMemory(t *testing.T) { attackedByProviders(t, true) }

// attackedByProviders runs the rogueries that need the process for themselves, or the
// others.
func attackedByProviders(t *testing.T, alone bool) {
	shop := newShop(t)
	for name, c := range rogueries {
		if c.alone != alone {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !alone {
				t.Parallel()
			}
			r := newRogue(t, shop, c.script)
			switch name {
			case "never acknowledges":
				r.host.SetStreamHandler(market.PaymentProtocol, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
			case "forgets what it was paid":
				r.acks(func(int64, int) (string, int64, bool) { return "0", 0, false })
			case "claims that all is settled":
				r.acks(func(int64, int) (string, int64, bool) { return "0", 1 << 62, true })
			}
			var both sync.WaitGroup
			for _, at := range []voucher.Bytes{0, 128 << 10} {
				both.Go(func() { buyFrom(t, r, at, c.whole, c.alone) })
			}
			both.Wait()
		})
	}
}

// buyFrom buys from a rogue, and checks what the client paid for.
func buyFrom(t *testing.T, r *rogue, atRisk voucher.Bytes, whole, alone bool) {
	patience := 1500 * time.Millisecond // and a few times that if the provider says something
	if whole {
		patience = 6 * time.Second // it is served: on a busy machine too
	}
	b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.Patience, c.StallTimeout = patience, patience/3 })
	defer b.stop()
	grown := func() uint64 { return 0 }
	if alone {
		grown = growth()
	}
	start := time.Now()
	ctx := within(t, longest)
	got, err := b.Get(ctx, market.Request{
		Provider: market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: r.host.ID(), Addrs: r.host.Addrs()}, Address: r.key.Address()},
		Root:     r.shop.deal, Ask: &shopAsk, Expected: voucher.Bytes(r.shop.dealSize), Budget: voucher.OneFIL, AtRisk: &atRisk,
	})
	if ctx.Err() != nil {
		t.Errorf("at risk %d: no end", atRisk)
	}
	t.Logf("at risk %d: %d bytes for %s in %s: %v", atRisk, got.TotalReceived, got.FundsSpent, time.Since(start).Round(time.Millisecond), err)
	if limit := shopAsk.PricePerByte.Of(got.TotalReceived + atRisk); limit.Less(got.FundsSpent) {
		t.Errorf("at risk %d: paid %s for %d bytes", atRisk, got.FundsSpent, got.TotalReceived)
	}
	if have := uint64(got.TotalReceived) == r.shop.dealSize; have != whole {
		t.Errorf("at risk %d: %d of %d bytes", atRisk, got.TotalReceived, r.shop.dealSize)
	}
	if !whole && (err == nil || err.Error() == "") {
		t.Errorf("at risk %d: no reason", atRisk)
	}
	if took := time.Since(start); took > 8*patience {
		t.Errorf("at risk %d: took %s", atRisk, took)
	}
	if n := grown(); n > 64<<20 {
		t.Errorf("at risk %d: the heap grew by %d MiB", atRisk, n>>20)
	}
}

// growth looks at the heap until grown is called, which says by how much more than
// now was in use at most.
func growth() (grown func() uint64) {
	before := heap()
	most := before
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, heap())
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(quit)
		<-done
		return most - before
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
