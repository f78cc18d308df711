package retrievalmarket

import (
	"bufio"
	"bytes"
	"errors"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/tollgraph/tollgraph/voucher"
)

func testPayment(t testing.TB) *voucher.DealPayment {
	t.Helper()
	channel, err := address.NewActorAddress([]byte("channel"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := voucher.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	v := &voucher.SignedVoucher{ChannelAddr: channel, Lane: 3, Nonce: 7, Amount: big.NewInt(1 << 40)}
	if err := key.Sign(v); err != nil {
		t.Fatal(err)
	}
	return &voucher.DealPayment{ID: 9, PaymentChannel: channel, PaymentVoucher: v}
}

func TestFramesRoundTrip(t *testing.T) {
	for _, f := range []payFrame{{id: 9}, {id: ^voucher.DealID(0), done: true}, {id: 9, payment: testPayment(t), done: true}} {
		var wire bytes.Buffer
		n, err := f.node()
		if err := writeFrame(&wire, n, err); err != nil {
			t.Fatal(err)
		}
		n, err = readFrame(bufio.NewReader(&wire))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsePayFrame(n)
		if err != nil || got.id != f.id || got.done != f.done || (got.payment == nil) != (f.payment == nil) {
			t.Errorf("%+v became %+v, %v", f, got, err)
		}
	}
	for _, a := range []ackFrame{{}, {id: 9, paid: voucher.MaxAmount, limit: voucher.MaxBytes, settled: true}, {id: 1, refused: voucher.RefusedCredit, message: "näh"}} {
		var wire bytes.Buffer
		n, err := a.node()
		if err := writeFrame(&wire, n, err); err != nil {
			t.Fatal(err)
		}
		n, err = readFrame(bufio.NewReader(&wire))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseAckFrame(n); err != nil || got != a {
			t.Errorf("%+v became %+v, %v", a, got, err)
		}
	}
}

func TestFrameSizeIsBounded(t *testing.T) {
	_, err := readFrame(bufio.NewReader(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})))
	if !errors.Is(err, errFrameSize) {
		t.Errorf("got %v", err)
	}
}

func FuzzFrames(f *testing.F) {
	for _, frame := range []payFrame{{id: 9}, {id: 9, payment: testPayment(f), done: true}} {
		var wire bytes.Buffer
		n, err := frame.node()
		if err := writeFrame(&wire, n, err); err != nil {
			f.Fatal(err)
		}
		f.Add(wire.Bytes())
	}
	var wire bytes.Buffer
	n, err := ackFrame{id: 1, message: "x"}.node()
	if err := writeFrame(&wire, n, err); err != nil {
		f.Fatal(err)
	}
	f.Add(wire.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := readFrame(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if p, err := parsePayFrame(n); err == nil {
			if _, err := p.node(); err != nil {
				t.Fatalf("%+v cannot be written again: %v", p, err)
			}
		}
		if a, err := parseAckFrame(n); err == nil {
			if _, err := a.node(); err != nil {
				t.Fatalf("%+v cannot be written again: %v", a, err)
			}
		}
	})
}
