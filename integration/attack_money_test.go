package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"github.com/tollgraph/tollgraph/payment"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// crook is a client that signs what it likes.
type crook struct {
	*freeloader
	s    *seller
	key  voucher.Key
	id   voucher.DealID
	chid datatransfer.ChannelID
}

// newCrook has a deal that stands at its first boundary.
func newCrook(ctx context.Context, t *testing.T, s *seller, shop *shop, id voucher.DealID) *crook {
	t.Helper()
	key, err := voucher.NewKey()
	must(t, err)
	c := &crook{freeloader: newFreeloader(t, shop.deal), s: s, key: key, id: id}
	c.chid = c.open(s, shop.deal, id, shopAsk)
	took(ctx, t, s, c.chid, shopInterval)
	return c
}

// channel is where this crook's vouchers for the seller belong.
func (c *crook) channel() address.Address {
	a, err := payment.ChannelAddress(c.key.Address(), c.s.till.Address())
	must(c.t, err)
	return a
}

// interval is the price of n intervals.
func intervals(n uint64) *big.Int {
	return shopAsk.PricePerByte.Of(voucher.Bytes(n * shopInterval)).Big()
}

// voucher is signed by the crook, as it is after change.
func (c *crook) voucher(lane, nonce uint64, amount *big.Int, change func(*voucher.SignedVoucher)) *voucher.SignedVoucher {
	v := &voucher.SignedVoucher{ChannelAddr: c.channel(), Lane: lane, Nonce: nonce, Amount: fbig.NewFromGo(amount)}
	if change != nil {
		change(v)
	}
	must(c.t, c.key.Sign(v))
	return v
}

// encodePayment is a DealPayment for any voucher.
func encodePayment(t testing.TB, id voucher.DealID, channel address.Address, v *voucher.SignedVoucher) datamodel.Node {
	t.Helper()
	n, err := voucher.DealPayment{ID: id, PaymentChannel: channel, PaymentVoucher: v}.Encode()
	must(t, err)
	return n
}

// pay sends a payment on a payment stream, and returns the refusal's number, 0
// if it was taken, and what the provider says.
func (c *crook) frame(ctx context.Context, id voucher.DealID, pay datamodel.Node) (int64, string) {
	c.t.Helper()
	return c.say(ctx, payFrameOf(c.t, id, pay))
}

// done says that the client wants no more, with a payment.
func (c *crook) done(ctx context.Context, id voucher.DealID, pay datamodel.Node) (int64, string) {
	c.t.Helper()
	return c.say(ctx, payFrame(c.t, id, pay, true))
}

// say sends a frame on a payment stream of its own.
func (c *crook) say(ctx context.Context, frame []byte) (int64, string) {
	c.t.Helper()
	s, err := c.host.NewStream(ctx, c.s.host.ID(), market.PaymentProtocol)
	must(c.t, err)
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = s.Write(frame)
	must(c.t, err)
	return readAck(c.t, s)
}

// payFrameOf is a frame of a payment stream with any payment in it.
func payFrameOf(t testing.TB, id voucher.DealID, pay datamodel.Node) []byte {
	t.Helper()
	return payFrame(t, id, pay, false)
}

func payFrame(t testing.TB, id voucher.DealID, pay datamodel.Node, done bool) []byte {
	t.Helper()
	n, err := qp.BuildMap(basicnode.Prototype.Map, 3, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "ID", qp.Int(int64(id))) //nolint:gosec // carried as the same 64 bits
		qp.MapEntry(m, "Done", qp.Bool(done))
		qp.MapEntry(m, "Payment", qp.Node(pay))
	})
	must(t, err)
	raw, err := ipld.Encode(n, dagcbor.Encode)
	must(t, err)
	return frameOf(raw)
}

func readAck(t testing.TB, r io.Reader) (int64, string) {
	t.Helper()
	n, err := readFrame(r)
	must(t, err)
	refused, err := n.LookupByString("Refused")
	must(t, err)
	code, err := refused.AsInt()
	must(t, err)
	message, err := n.LookupByString("Message")
	must(t, err)
	text, err := message.AsString()
	must(t, err)
	return code, text
}

// readFrame reads one frame of a payment stream.
func readFrame(r io.Reader) (datamodel.Node, error) {
	size, err := binary.ReadUvarint(byteReader{r})
	if err != nil {
		return nil, err
	}
	raw := make([]byte, min(size, 1<<20))
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	return ipld.Decode(raw, dagcbor.Decode)
}

// byteReader reads a byte at a time, and never ahead.
type byteReader struct{ io.Reader }

func (r byteReader) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

func frameOf(raw []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...) }

// booked is what the seller has taken for the crook's deal.
func (c *crook) booked() voucher.Amount {
	return c.s.ListDeals()[market.ProviderDealID{From: c.host.ID(), ID: c.id}].FundsReceived
}

// badPayments are vouchers that must not be taken, by what is wrong with them.
// The deal has nothing paid yet, unless first says so.
var badPayments = map[string]struct {
	first func(c *crook) *voucher.SignedVoucher // a good payment before it
	bad   func(c *crook) (address.Address, *voucher.SignedVoucher)
	wire  func(*testing.T, datamodel.Node) datamodel.Node // what is done to it on the way; nil: nothing
}{
	"forged": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		rich, err := voucher.NewKey()
		must(c.t, err)
		theirs, err := payment.ChannelAddress(rich.Address(), c.s.till.Address())
		must(c.t, err)
		return theirs, c.voucher(1, 1, intervals(1), func(v *voucher.SignedVoucher) { v.ChannelAddr = theirs })
	}, nil},
	"changed after it was signed": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		v := c.voucher(1, 1, big.NewInt(1), nil)
		v.Amount = fbig.NewFromGo(intervals(1))
		return c.channel(), v
	}, nil},
	"not signed": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		v := c.voucher(1, 1, intervals(1), nil)
		v.Signature.Data = v.Signature.Data[:3]
		return c.channel(), v
	}, nil},
	"for another payee": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		friend, err := voucher.NewKey()
		must(c.t, err)
		other, err := payment.ChannelAddress(c.key.Address(), friend.Address())
		must(c.t, err)
		return other, c.voucher(1, 1, intervals(1), func(v *voucher.SignedVoucher) { v.ChannelAddr = other })
	}, nil},
	"locked in time": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return c.channel(), c.voucher(1, 1, intervals(1), func(v *voucher.SignedVoucher) { v.TimeLockMin = 1 << 40 })
	}, nil},
	"on a secret": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return c.channel(), c.voucher(1, 1, intervals(1), func(v *voucher.SignedVoucher) { v.SecretHash = []byte("what is it") })
	}, nil},
	"more than is lent": {nil, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return mostThereIs(c)
	}, nil},
	"on another lane": {firstInterval, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return c.channel(), c.voucher(2, 1, intervals(3), nil)
	}, nil},
	"more under a lower nonce": {firstInterval, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return c.channel(), c.voucher(1, 4, intervals(3), nil)
	}, nil},
	"other amount under the same nonce": {firstInterval, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return c.channel(), c.voucher(1, 5, intervals(3), nil)
	}, nil},
	"less under a higher nonce": {firstInterval, func(c *crook) (address.Address, *voucher.SignedVoucher) {
		return c.channel(), c.voucher(1, 6, big.NewInt(1), nil)
	}, nil},
	"negative": {nil, mostThereIs, func(t *testing.T, n datamodel.Node) datamodel.Node {
		return replaceMost(t, n, append([]byte{0x51, 1}, most...))
	}},
	"more than there is": {nil, mostThereIs, func(t *testing.T, n datamodel.Node) datamodel.Node {
		return replaceMost(t, n, append([]byte{0x52, 0, 1}, most...))
	}},
}

// most is the largest amount: 1<<128-1.
var most = bytes.Repeat([]byte{0xff}, 16)

func mostThereIs(c *crook) (address.Address, *voucher.SignedVoucher) {
	return c.channel(), c.voucher(1, 1, new(big.Int).SetBytes(most), nil)
}

// replaceMost puts other CBOR in the place of the largest amount, which no
// encoder of ours writes.
func replaceMost(t *testing.T, n datamodel.Node, with []byte) datamodel.Node {
	t.Helper()
	b, err := voucher.MarshalNode(n)
	must(t, err)
	was := append([]byte{0x51, 0}, most...)
	if !bytes.Contains(b, was) {
		t.Fatal("the amount is not where it is looked for")
	}
	n, err = voucher.UnmarshalNode(bytes.Replace(b, was, with, 1))
	must(t, err)
	return n
}

// firstInterval is paid on lane 1 with nonce 5.
func firstInterval(c *crook) *voucher.SignedVoucher { return c.voucher(1, 5, intervals(1), nil) }

// TestAttackVouchers: none of them brings a byte or is booked, on either way that
// payments take, and a good payment after them is taken. The plain stack knows no
// money: there is nothing to compare with.
func TestAttackVouchers(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	s := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	t.Run("all", func(t *testing.T) {
		for name, p := range badPayments {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := within(t, longest)
				c := newCrook(ctx, t, s, shop, 7)
				var paid uint64
				if p.first != nil {
					paid = 1
					if code, why := c.frame(ctx, c.id, encodePayment(t, c.id, c.channel(), p.first(c))); code != 0 {
						t.Fatalf("a good payment is refused: %s", why)
					}
					took(ctx, t, s, c.chid, 2*shopInterval)
				}
				before := c.booked()
				channel, v := p.bad(c)
				node := encodePayment(t, c.id, channel, v)
				if p.wire != nil {
					node = p.wire(t, node)
				}
				code, why := c.frame(ctx, c.id, node)
				if code == 0 && c.booked() != before {
					t.Errorf("taken: %s, then %s", before, c.booked())
				}
				must(t, c.node.Transfers().SendVoucher(ctx, c.chid, datatransfer.TypedVoucher{Voucher: node, Type: voucher.PaymentType}))
				if got := took(ctx, t, s, c.chid, 0); got > paid*shopInterval+shopCredit {
					t.Errorf("%d bytes served after %q, %d allowed", got, why, paid*shopInterval+shopCredit)
				}
				if c.booked() != before {
					t.Errorf("%s booked, then %s", before, c.booked())
				}
				good := c.voucher(1, 9, intervals(paid+1), nil)
				if code, why := c.frame(ctx, c.id, encodePayment(t, c.id, c.channel(), good)); code != 0 {
					t.Errorf("the good payment after it is refused: %s", why)
				}
				took(ctx, t, s, c.chid, (paid+2)*shopInterval)
			})
		}
	})
	honestSale(t, within(t, longest), s, shop.deal, shop.dealSize)
}

// TestAttackReplay: a voucher pays once. The second deal of the same client, and
// another client that has got hold of it, get nothing for it; nor does paying for
// somebody else's deal change that deal.
func TestAttackReplay(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	s := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
	ctx := within(t, longest)
	first, thief := newCrook(ctx, t, s, shop, 7), newCrook(ctx, t, s, shop, 8)
	v := first.voucher(1, 1, intervals(1), nil)
	node := encodePayment(t, 7, first.channel(), v)
	for range 3 { // the same again is no error and no money
		if code, why := first.frame(ctx, 7, node); code != 0 {
			t.Fatal(why)
		}
	}
	if got := took(ctx, t, s, first.chid, 2*shopInterval); got > shopInterval+shopCredit {
		t.Errorf("%d bytes for one payment, sent three times", got)
	}
	stolen := encodePayment(t, 8, first.channel(), v)
	if code, _ := thief.frame(ctx, 8, stolen); code == 0 {
		t.Error("another client's voucher was taken")
	}
	// For the deal of somebody else: there is none of that id on this connection.
	if code, _ := thief.frame(ctx, 7, node); code == 0 {
		t.Error("a payment for the deal of somebody else was taken")
	}
	if code, _ := thief.frame(ctx, 8, node); code == 0 {
		t.Error("a payment that names another deal was taken")
	}
	if got := took(ctx, t, s, thief.chid, 0); got > shopCredit || !thief.booked().IsZero() {
		t.Errorf("the thief got %d bytes for %s", got, thief.booked())
	}
	if got := first.booked(); got.Big().Cmp(intervals(1)) != 0 {
		t.Errorf("%s booked for the first deal", got)
	}
	second := first.open(s, shop.deal, 9, shopAsk)
	took(ctx, t, s, second, shopInterval)
	if code, _ := first.frame(ctx, 9, encodePayment(t, 9, first.channel(), v)); code == 0 {
		t.Error("a voucher paid for a second deal")
	}
	if got := took(ctx, t, s, second, 0); got > shopCredit {
		t.Errorf("%d bytes served in the second deal", got)
	}
	honestSale(t, ctx, s, shop.deal, shop.dealSize)
}

// TestAttackPayAfterCancel: a payment for a channel that is gone. On the plain
// stack, telling the channel of it panics; whoever called must recover.
func TestAttackPayAfterCancel(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	ctx := within(t, longest)
	t.Run("plain", func(t *testing.T) {
		p := newPlain(t, shop.links(), shopInterval)
		chid := datatransfer.ChannelID{Initiator: "nobody", Responder: p.host.ID(), ID: 7}
		died := func() (died any) {
			defer func() { died = recover() }()
			_ = p.manager.UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{Accepted: true, DataLimit: 1 << 20})
			return nil
		}()
		if died == nil {
			t.Error("the plain stack stands it")
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		s := newSeller(t, t.TempDir(), newHost(t, true), shop.cars, shopAsk, voucher.OneFIL)
		c := newCrook(ctx, t, s, shop, 7)
		must(t, c.node.Transfers().CloseDataTransferChannel(ctx, c.chid))
		if code, why := c.frame(ctx, 7, encodePayment(t, 7, c.channel(), c.voucher(1, 1, intervals(1), nil))); code != 0 {
			t.Errorf("the payment is refused: %s", why)
		}
		if got := took(ctx, t, s, c.chid, 0); got > shopCredit {
			t.Errorf("%d bytes served on a channel that was cancelled", got)
		}
		must(t, s.CancelDeal(market.ProviderDealID{From: c.host.ID(), ID: 7}))
		code, _ := int64(0), ""
		for code == 0 && ctx.Err() == nil { // until the deal is over
			code, _ = c.frame(ctx, 7, encodePayment(t, 7, c.channel(), c.voucher(1, 2, intervals(2), nil)))
		}
		if code == 0 {
			t.Error("a payment for a deal that is over was taken")
		}
		honestSale(t, ctx, s, shop.deal, shop.dealSize)
	})
}
