package interop

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/voucher"
)

// lazyClient is a client of the existing network. It pays only when it is asked,
// only for what it received, on one lane, and waits for the provider's word at
// the end.
type lazyClient struct {
	*stock
	wallet  voucher.Key
	dialect dialect
}

func newLazyClient(t testing.TB) *lazyClient {
	t.Helper()
	key, err := voucher.NewKey()
	must(t, err)
	return &lazyClient{newStock(t, newBlocks()), key, inMaps{}}
}

// lazyDeal is one deal of a lazyClient, and what it notes for the test.
type lazyDeal struct {
	c        *lazyClient
	dialect  dialect
	proposal rt.DealProposal
	channel  address.Address
	chid     datatransfer.ChannelID
	events   *events
	cancel   context.CancelFunc
	accepted chan struct{} // closed when the channel is accepted
	ended    chan struct{}

	// Owned by run until ended is closed.
	received, paidFor, interval uint64
	requested, spent            big.Int
	unsealPaid                  big.Int
	wanting, last, all          bool // asked for money; for the last; every block is here
	finalizing, completed       bool // the last payment was sent; the provider is content
	paid                        []uint64
	statuses                    []rt.DealStatus
	message                     string // the last
	status                      datatransfer.Status
	trail                       []string  // what data-transfer said, for a deal that does not end well
	first                       time.Time // when the first byte came
	err                         error
}

// propose opens a deal. Where price is zero nobody is paid.
func (c *lazyClient) propose(ctx context.Context, p peer.AddrInfo, payTo address.Address, proposal rt.DealProposal, sel datamodel.Node) *lazyDeal {
	c.t.Helper()
	d := &lazyDeal{
		c: c, dialect: c.dialect, proposal: proposal, events: newEvents(), accepted: make(chan struct{}), ended: make(chan struct{}),
		interval: proposal.PaymentInterval, requested: big.Zero(), spent: big.Zero(), unsealPaid: big.Zero(),
	}
	if payTo != address.Undef {
		var err error
		d.channel, err = payment.ChannelAddress(c.wallet.Address(), payTo)
		must(c.t, err)
	}
	must(c.t, c.host.Connect(ctx, p))
	life, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	c.t.Cleanup(cancel)
	v, err := c.dialect.proposal(proposal)
	must(c.t, err)
	d.chid, err = c.dt.OpenPullDataChannel(life, p.ID, v, proposal.PayloadCID, sel, datatransfer.WithSubscriber(d.events.put))
	must(c.t, err)
	go d.run(life)
	return d
}

// params are a stock proposal's parameters.
func params(price, unseal, interval, increase uint64, sel datamodel.Node, piece *cid.Cid) rt.Params {
	return rt.Params{
		Selector: rt.CborGenCompatibleNode{Node: sel}, PieceCID: piece, PricePerByte: big.NewIntUnsigned(price),
		PaymentInterval: interval, PaymentIntervalIncrease: increase, UnsealPrice: big.NewIntUnsigned(unseal),
	}
}

func (d *lazyDeal) run(ctx context.Context) {
	defer close(d.ended)
	for {
		for _, e := range d.events.take() {
			if d.handle(ctx, e) {
				return
			}
		}
		select {
		case <-d.events.wake:
		case <-ctx.Done():
			return
		}
	}
}

// wait returns when the deal has ended, or fails the test.
func (d *lazyDeal) wait(ctx context.Context) {
	d.c.t.Helper()
	select {
	case <-d.ended:
	case <-ctx.Done():
		d.cancel()
		<-d.ended
		d.c.t.Fatalf("the deal did not end: %s", d)
	}
}

func (d *lazyDeal) String() string {
	return fmt.Sprintf("received %d, paid %v, statuses %v, wanting %t, all %t, completed %t, channel %s, err %v, after %q",
		d.received, d.paid, d.statuses, d.wanting, d.all, d.completed, datatransfer.Statuses[d.status], d.err, d.trail)
}

// handle takes in one event, and reports whether the deal is over.
func (d *lazyDeal) handle(ctx context.Context, e event) bool {
	d.status = e.st.Status()
	if e.Code != datatransfer.DataReceived && e.Code != datatransfer.DataReceivedProgress {
		d.trail = append(d.trail, fmt.Sprintf("%s %s: %s", datatransfer.Events[e.Code], d.status, e.Message))
	}
	switch e.Code {
	case datatransfer.Accept:
		close(d.accepted)
	case datatransfer.DataReceivedProgress:
		if d.received = e.st.Received(); d.first.IsZero() {
			d.first = time.Now()
		}
	case datatransfer.FinishTransfer:
		d.all = true
	case datatransfer.NewVoucherResult:
		d.answer(e.st.LastVoucherResult())
	}
	for d.err == nil && d.wanting && d.mustPay() {
		if d.pay(ctx); !d.requested.GreaterThan(big.Zero()) || d.finalizing {
			break
		}
	}
	if d.completed && !d.finalizing && !d.all && !d.proposal.PricePerByte.IsZero() {
		d.err = fmt.Errorf("the provider says completed before all blocks are here")
	}
	final := d.status == datatransfer.Completed || d.status == datatransfer.Failed || d.status == datatransfer.Cancelled
	return d.err != nil || final
}

// answer takes in what the provider says.
func (d *lazyDeal) answer(v datatransfer.TypedVoucher) {
	r, err := d.dialect.response(v)
	if err != nil {
		d.err = fmt.Errorf("unreadable answer of type %s: %w", v.Type, err)
		return
	}
	d.statuses, d.message = append(d.statuses, r.Status), r.Message
	switch r.Status {
	case rt.DealStatusAccepted:
	case rt.DealStatusFundsNeededUnseal, rt.DealStatusFundsNeeded, rt.DealStatusOngoing, rt.DealStatusFundsNeededLastPayment:
		d.requested = big.Add(d.requested, r.PaymentOwed)
		d.wanting, d.last = true, d.last || r.Status == rt.DealStatusFundsNeededLastPayment
	case rt.DealStatusCompleted:
		d.completed = true
	default:
		d.err = fmt.Errorf("unexpected status %s: %s", r.Status, r.Message)
	}
}

// mustPay is what such a client checks before it pays.
func (d *lazyDeal) mustPay() bool {
	switch {
	case d.proposal.UnsealPrice.GreaterThan(d.unsealPaid):
		return true
	case d.paidFor >= d.received:
		return false
	}
	return d.all || d.received >= d.interval
}

func (d *lazyDeal) pay(ctx context.Context) {
	d.wanting = false
	total := big.Add(big.Mul(big.NewIntUnsigned(d.received), d.proposal.PricePerByte), d.proposal.UnsealPrice)
	if !total.GreaterThan(d.spent) {
		return
	}
	v := &paych.SignedVoucher{ChannelAddr: d.channel, Lane: uint64(d.proposal.ID), Nonce: uint64(len(d.paid) + 1), Amount: total}
	if d.err = d.c.wallet.Sign(v); d.err != nil {
		return
	}
	var said datatransfer.TypedVoucher
	if said, d.err = d.dialect.payment(d.proposal.ID, d.channel, v); d.err != nil {
		return
	}
	if d.err = d.c.dt.SendVoucher(ctx, d.chid, said); d.err != nil {
		return
	}
	d.paid = append(d.paid, total.Uint64())
	d.requested = big.Sub(d.requested, big.Sub(total, d.spent))
	d.spent, d.finalizing = total, d.last
	d.unsealPaid = d.proposal.UnsealPrice
	if d.proposal.PricePerByte.IsZero() {
		return
	}
	d.paidFor = big.Div(big.Sub(total, d.unsealPaid), d.proposal.PricePerByte).Uint64()
	if d.paidFor >= d.interval {
		d.interval = d.next(d.interval)
	}
	d.wanting = d.requested.GreaterThan(big.Zero())
}

// next is the end of the interval after the one that x is in.
func (d *lazyDeal) next(x uint64) uint64 {
	end, length := uint64(0), d.proposal.PaymentInterval
	for end <= x {
		end += length
		length += d.proposal.PaymentIntervalIncrease
	}
	return end
}

// restart asks for the rest of the channel the way data-transfer does, as its
// channel monitor would after a failure.
func (d *lazyDeal) restart(ctx context.Context, p peer.AddrInfo) {
	d.c.t.Helper()
	must(d.c.t, d.c.host.Connect(ctx, p))
	life, cancel := context.WithCancel(context.Background())
	d.c.t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- d.c.dt.RestartDataTransferChannel(life, d.chid) }()
	select {
	case err := <-done:
		must(d.c.t, err)
	case <-time.After(time.Minute):
		d.c.t.Fatal("the restart does not return")
	}
}
