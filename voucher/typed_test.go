package voucher

import (
	"errors"
	"math"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/node/bindnode"
	"github.com/multiformats/go-multihash"
)

// TestTypedNodes: data-transfer hands over nodes of the type system too, whose
// fields have other names and forms than what they represent.
func TestTypedNodes(t *testing.T) {
	ts, err := ipld.LoadSchemaBytes([]byte(`
		type Voucher struct {
			Channel Bytes Min Int Max Int Hash Bytes Extra nullable Any Lane Int Nonce Int
			Money Bytes Height Int Merges [Int] Sig nullable Bytes
		} representation tuple
		type Payment struct {
			Number Int (rename "ID")
			Channel Bytes (rename "PaymentChannel")
			Voucher Voucher (rename "PaymentVoucher")
		}`))
	if err != nil {
		t.Fatal(err)
	}
	type voucher struct {
		Channel     []byte
		Min, Max    int64
		Hash        []byte
		Extra       *datamodel.Node
		Lane, Nonce uint64
		Money       []byte
		Height      int64
		Merges      []int64
		Sig         *[]byte
	}
	type wrapped struct {
		Number  uint64
		Channel []byte
		Voucher voucher
	}
	channel := addr(t, channelHex)
	p := &wrapped{math.MaxUint64, channel.Bytes(), voucher{Channel: channel.Bytes(), Lane: math.MaxUint64, Nonce: 7, Money: []byte{0, 9}}}
	got, err := DecodeDealPayment(bindnode.Wrap(p, ts.TypeByName("Payment")))
	if err != nil {
		t.Fatal(err)
	}
	want := DealPayment{ID: math.MaxUint64, PaymentChannel: channel, PaymentVoucher: &SignedVoucher{
		ChannelAddr: channel, Lane: math.MaxUint64, Nonce: 7, Amount: big.NewInt(9),
	}}
	if !same(got, want) {
		t.Errorf("got %+v %+v\nwant %+v %+v", got, got.PaymentVoucher, want, want.PaymentVoucher)
	}
}

// TestLinks: links that are none, or too long.
func TestLinks(t *testing.T) {
	long, err := multihash.Encode(make([]byte, 300), multihash.IDENTITY)
	if err != nil {
		t.Fatal(err)
	}
	n, err := proposal(t, nil).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]datamodel.Link{
		"undefined": cidlink.Link{}, "long": cidlink.Link{Cid: cid.NewCidV1(cid.Raw, long)}, "nil": nil,
	} {
		bad := change(t, n, basicnode.NewLink(link), "PayloadCID")
		if got, err := DecodeDealProposal(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v; want ErrMalformed", name, got, err)
		}
	}
	if _, err := (DealProposal{PayloadCID: cid.NewCidV1(cid.Raw, long)}).Encode(); err == nil {
		t.Error("a long CID is encoded")
	}
}

// TestWideSelector: numbers above 2^63-1 in a selector neither panic nor change.
func TestWideSelector(t *testing.T) {
	s, err := mapNode([]entry{{"R", basicnode.NewUint(math.MaxUint64)}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := encoder(proposal(t, s))()
	if err != nil {
		t.Fatal(err)
	}
	p, err := decoder(DecodeDealProposal)(b)
	if err != nil {
		t.Fatal(err)
	}
	back, err := encoder(p.(DealProposal))()
	if err != nil || string(back) != string(b) {
		t.Errorf("%x, %v; want %x", back, err, b)
	}
}

func BenchmarkEncodePayment(b *testing.B) {
	p := DealPayment{ID: 1, PaymentChannel: addr(b, channelHex), PaymentVoucher: payment(b, signature(1))}
	for b.Loop() {
		if _, err := onNode(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePayment(b *testing.B) {
	wire := unhex(b, paymentVectors(b)[0].hex)
	decode := nodeDecoder(DecodeDealPayment)
	for b.Loop() {
		if _, err := decode(wire); err != nil {
			b.Fatal(err)
		}
	}
}
