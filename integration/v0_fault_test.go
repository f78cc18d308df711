package integration

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestV0WrongBlock: a provider that sends anything but the block that comes next
// is paid for nothing from there on, the deal ends with the reason, and no other
// is begun.
func TestV0WrongBlock(t *testing.T) {
	t.Parallel()
	const bad = 11 // in the middle of an answer
	ask := voucher.Ask{PricePerByte: 3, PaymentInterval: 300_000}
	car, root, _ := makeCAR(t, t.TempDir(), 3_000_000, 100_000)
	walk := walkOf(t, []string{car}, root)
	for name, spoil := range map[string]func(voucher.Block) []voucher.Block{
		"a bit flipped": func(b voucher.Block) []voucher.Block {
			b.Data = bytes.Clone(b.Data)
			b.Data[7] ^= 1
			return []voucher.Block{b}
		},
		"cut short": func(b voucher.Block) []voucher.Block { b.Data = b.Data[:len(b.Data)-1]; return []voucher.Block{b} },
		"other prefix": func(b voucher.Block) []voucher.Block {
			b.Prefix = []byte{1, 0x70, 0x12, 0x20}
			return []voucher.Block{b}
		},
		"own hash": func(voucher.Block) []voucher.Block {
			return []voucher.Block{{Prefix: []byte{1, 0x55, 0, 5}, Data: []byte("wrong")}}
		},
		"left out": func(voucher.Block) []voucher.Block { return nil },
		"twice":    func(b voucher.Block) []voucher.Block { return []voucher.Block{b, b} },
	} {
		t.Run(name, func(t *testing.T) {
			p := newOldProvider(t, ask, walk)
			p.spoil = func(i int, b voucher.Block) []voucher.Block {
				if i != bad {
					return []voucher.Block{b}
				}
				return spoil(b)
			}
			b := newBuyer(t, t.TempDir())
			ctx := within(t, longest)
			got, err := b.Get(ctx, p.request(root))
			if !errors.Is(err, voucher.ErrWrongBlock) || got.Status != voucher.DealStatusErrored || !strings.Contains(got.Message, "block") {
				t.Errorf("%v, %s %q", err, got.Status, got.Message)
			}
			good := sum(walk[:bad])
			if name == "twice" {
				good = sum(walk[:bad+1])
			}
			if got.TotalReceived != good || ask.PricePerByte.Of(good).Less(got.FundsSpent) {
				t.Errorf("%d bytes for %s, %d were good", got.TotalReceived, got.FundsSpent, good)
			}
			if len(p.ended(ctx, 1)) != 1 || len(p.ids) != 1 {
				t.Errorf("%d deals", len(p.ids))
			}
		})
	}
}

// TestV0BehindTheEnd: blocks behind the last one are as wrong as any.
func TestV0BehindTheEnd(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 300_000, 100_000)
	walk := walkOf(t, []string{car}, root)
	p := newOldProvider(t, voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 20}, walk)
	p.spoil = func(i int, b voucher.Block) []voucher.Block {
		if i == len(walk)-1 {
			return []voucher.Block{b, b}
		}
		return []voucher.Block{b}
	}
	b := newBuyer(t, t.TempDir())
	got, err := b.Get(within(t, longest), p.request(root))
	if err == nil || got.Status != voucher.DealStatusErrored || !got.FundsSpent.IsZero() {
		t.Errorf("%v, %s for %s", err, got.Status, got.FundsSpent)
	}
}

// asked reads answers until money is asked for, and that nothing follows for a
// second.
func (c *oldClient) asked() voucher.DealResponse {
	c.t.Helper()
	r := c.next()
	for r.Status == voucher.DealStatusOngoing {
		r = c.next()
	}
	must(c.t, c.s.SetReadDeadline(time.Now().Add(time.Second))) // nothing tells of what is not sent
	if more, n, err := c.in.Response(); err == nil {
		c.t.Errorf("behind %+v came %+v with %d blocks", r, more, n)
	} else if errors.Is(err, io.EOF) {
		c.t.Error("the stream ended")
	}
	must(c.t, c.s.SetReadDeadline(time.Now().Add(time.Minute)))
	return r
}

// TestV0Exposure: who does not pay gets one interval and at most one block, who
// stops paying at most the next boundary and one block, and who pays too little
// is asked for the rest and gets nothing for it.
func TestV0Exposure(t *testing.T) {
	t.Parallel()
	const block = 100_000
	for name, ask := range map[string]voucher.Ask{
		"level":   {PricePerByte: 3, PaymentInterval: 1 << 20},
		"growing": {PricePerByte: 3, PaymentInterval: 1 << 20, PaymentIntervalIncrease: 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			car, root, _ := makeCAR(t, t.TempDir(), 12<<20, block)
			walk := walkOf(t, []string{car}, root)
			s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, ask, voucher.OneFIL, sellsByStream)
			c := newOldClient(t, s, root, walk, 7, ask)
			c.accepted()
			first := ask.PaymentInterval
			asked := c.asked()
			if c.received < first || c.received >= first+block {
				t.Errorf("unpaid: %d bytes, interval %d and one block of %d allowed", c.received, first, block)
			}
			all := ask.PricePerByte.Of(first)
			if asked.Status != voucher.DealStatusFundsNeeded || asked.PaymentOwed != all {
				t.Errorf("asked %+v, want %s", asked, all)
			}
			before := c.received
			c.sendPayment(all.Sub(voucher.Atto(1)))
			if asked = c.asked(); c.received != before || asked.Status != voucher.DealStatusFundsNeeded || asked.PaymentOwed != voucher.Atto(1) {
				t.Errorf("one attoFIL short: %d bytes more, asked %+v", c.received-before, asked)
			}
			c.sendPayment(all)
			c.asked()
			if second := 2*first + ask.PaymentIntervalIncrease; c.received < second || c.received >= second+block {
				t.Errorf("paid once: %d bytes, %d and one block of %d allowed", c.received, second, block)
			}
			sold, err := s.Deals(t.Context(), 10)
			must(t, err)
			if len(sold) != 1 || sold[0].TotalSent != c.received || sold[0].FundsReceived != all {
				t.Errorf("the book has %+v, the client got %d", sold, c.received)
			}
		})
	}
}

// TestV0NeverPaid: a deal that is not paid ends when it was idle for too long,
// and the client is told.
func TestV0NeverPaid(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 3<<20, 100_000)
	walk := walkOf(t, []string{car}, root)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL, sellsByStream,
		func(c *market.ProviderConfig) { c.IdleTimeout = time.Second })
	c := newOldClient(t, s, root, walk, 7, defaultAsk)
	c.accepted()
	var r voucher.DealResponse
	for r.Status != voucher.DealStatusErrored {
		r = c.next()
	}
	if !strings.Contains(r.Message, "nothing was paid") {
		t.Errorf("told %q", r.Message)
	}
	if _, _, err := c.in.Response(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last word: %v", err)
	}
}

// TestV0BadPayment: a payment that is not good raises nothing and is answered
// with why, and a good one may follow.
func TestV0BadPayment(t *testing.T) {
	t.Parallel()
	car, root, _ := makeCAR(t, t.TempDir(), 3<<20, 100_000)
	walk := walkOf(t, []string{car}, root)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL, sellsByStream)
	c := newOldClient(t, s, root, walk, 7, defaultAsk)
	c.accepted()
	c.asked()
	before := c.received
	forged := c.pay(defaultAsk.PricePerByte.Of(1 << 20))
	v := *forged.PaymentVoucher
	forged.PaymentVoucher = &v
	v.Signature.Data = slices.Clone(v.Signature.Data)
	v.Signature.Data[3] ^= 1
	c.write(forged.MarshalTuple())
	r := c.asked()
	if code, _, ok := voucher.ParseRefusal(r.Message); !ok || code != voucher.RefusedPayment || c.received != before {
		t.Errorf("%d bytes more, told %+v", c.received-before, r)
	}
	v.Signature.Data[3] ^= 1
	c.paid = append(c.paid, defaultAsk.PricePerByte.Of(1<<20))
	c.write(forged.MarshalTuple())
	if c.asked(); c.received <= before {
		t.Error("nothing follows a good payment")
	}
}
