package voucher

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// The parts of which the vectors are made.
const (
	helloCID   = "015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // raw, sha2-256 of "hello"
	helloLink  = "d82a582500" + helloCID
	exploreAll = "a16152a2616ca1646e6f6e65a0623a3ea16161a1613ea16140a0"
	channelHex = "02000102030405060708090a0b0c0d0e0f10111213" // f2
	voucherHex = "8b55" + channelHex + "000040f60307440020000000" + "80"
)

func hello(t testing.TB) cid.Cid {
	t.Helper()
	c, err := cid.Cast(unhex(t, helloCID))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.NewFromBytes(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ptr[T any](v T) *T { return &v }

func proposal(t testing.TB, selector datamodel.Node) DealProposal {
	return DealProposal{PayloadCID: hello(t), ID: 1, Params: Params{
		Selector: selector, PricePerByte: 2, PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20,
	}}
}

// payment is the voucher of the vectors: lane 3, nonce 7, 2097152 attoFIL.
func payment(t testing.TB, sig *crypto.Signature) *SignedVoucher {
	return &SignedVoucher{
		ChannelAddr: addr(t, channelHex), Lane: 3, Nonce: 7, Amount: big.NewInt(2097152), Signature: sig,
	}
}

func signature(n byte) *crypto.Signature {
	return &crypto.Signature{Type: crypto.SigType(n), Data: bytes.Repeat([]byte{0xaa}, 65)}
}

// message is what Encode and its decoder have in common.
type message interface {
	Encode() (datamodel.Node, error)
}

func encoder(m message) func() ([]byte, error) {
	return func() ([]byte, error) { return marshal(m.Encode()) }
}

func decoder[T any](decode func(datamodel.Node) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) {
		n, err := UnmarshalNode(b)
		if err != nil {
			return nil, err
		}
		return decode(n)
	}
}

func unmarshaler[T any](unmarshal func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return unmarshal(b) }
}

type vector struct {
	name   string
	hex    string
	value  any
	encode func() ([]byte, error)
	decode func([]byte) (any, error)
}

func of[T message](name, hex string, m T, decode func(datamodel.Node) (T, error)) vector {
	return vector{name, hex, m, encoder(m), decoder(decode)}
}

const (
	maxUint  = "1bffffffffffffffff"
	maxPrice = "4900ffffffffffffffff"
	maxFunds = "5100ffffffffffffffffffffffffffffffff"
)

func dealVectors(t testing.TB) []vector {
	head := "a36249440166506172616d73a6685069656365434944f66853656c6563746f72"
	tail := "6b556e7365616c5072696365406c5072696365506572427974654200026f5061796d656e74496e74657276616c1a00100000" +
		"775061796d656e74496e74657276616c496e6372656173651a001000006a5061796c6f6164434944" + helloLink
	c := hello(t)
	dear := DealProposal{PayloadCID: c, ID: math.MaxUint64, Params: Params{
		Selector: DefaultSelector(), PieceCID: &c, PricePerByte: math.MaxUint64, PaymentInterval: MaxBytes,
		PaymentIntervalIncrease: MaxBytes, UnsealPrice: MaxAmount,
	}}
	return []vector{
		of("proposal, explore all", head+exploreAll+tail, proposal(t, DefaultSelector()), DecodeDealProposal),
		of("proposal, null selector", head+"f6"+tail, proposal(t, nil), DecodeDealProposal),
		of("proposal, largest", "a3624944"+maxUint+"66506172616d73a6685069656365434944"+helloLink+
			"6853656c6563746f72"+exploreAll+"6b556e7365616c5072696365"+maxFunds+"6c507269636550657242797465"+maxPrice+
			"6f5061796d656e74496e74657276616c"+maxUint+"775061796d656e74496e74657276616c496e637265617365"+maxUint+
			"6a5061796c6f6164434944"+helloLink, dear, DecodeDealProposal),
		of("proposal, zero", "a36249440066506172616d73a6685069656365434944f66853656c6563746f72f6"+
			"6b556e7365616c5072696365406c507269636550657242797465406f5061796d656e74496e74657276616c00"+
			"775061796d656e74496e74657276616c496e637265617365006a5061796c6f6164434944"+helloLink,
			DealProposal{PayloadCID: c}, DecodeDealProposal),
		of("response, accepted", "a4624944016653746174757306674d657373616765606b5061796d656e744f77656440",
			DealResponse{Status: DealStatusAccepted, ID: 1}, DecodeDealResponse),
		of("response, funds needed", "a462494401665374617475730a674d657373616765606b5061796d656e744f7765644400200000",
			DealResponse{Status: DealStatusFundsNeeded, ID: 1, PaymentOwed: Atto(2097152)}, DecodeDealResponse),
		of("response, largest", "a4624944"+maxUint+"66537461747573"+maxUint+"674d65737361676578"+"18"+
			hex.EncodeToString([]byte("refused-price: too low ☹"))[:48]+"6b5061796d656e744f776564"+maxFunds,
			DealResponse{math.MaxUint64, math.MaxUint64, MaxAmount, "refused-price: too low ☹"[:24]}, DecodeDealResponse),
	}
}

func paymentVectors(t testing.TB) []vector {
	head := "a3624944016e5061796d656e744368616e6e656c55" + channelHex + "6e5061796d656e74566f7563686572"
	sig := strings.Repeat("aa", 65)
	pay := func(v *SignedVoucher) DealPayment {
		return DealPayment{ID: 1, PaymentChannel: addr(t, channelHex), PaymentVoucher: v}
	}
	full := payment(t, signature(3))
	full.TimeLockMin, full.TimeLockMax, full.MinSettleHeight = -1, math.MaxInt64, math.MinInt64
	full.SecretHash = []byte{1, 2}
	full.Extra = &paych.ModVerifyParams{Actor: addr(t, "0065"), Method: math.MaxUint64, Data: []byte{9}}
	full.Lane, full.Nonce, full.Amount = math.MaxUint64, 0, big.Int{Int: MaxAmount.Big()}
	full.Merges = []paych.Merge{{Lane: 1, Nonce: 2}, {Lane: math.MaxUint64, Nonce: 0}}
	zero := payment(t, nil)
	zero.Amount = big.Zero()
	return []vector{
		of("payment", head+voucherHex+"584201"+sig, pay(payment(t, signature(1))), DecodeDealPayment),
		of("payment, BLS", head+voucherHex+"584202"+sig, pay(payment(t, signature(2))), DecodeDealPayment),
		of("payment, not signed", head+voucherHex+"f6", pay(payment(t, nil)), DecodeDealPayment),
		of("payment of nothing", head+"8b55"+channelHex+"000040f603074000"+"80f6", pay(zero), DecodeDealPayment),
		of("payment, everything", head+"8b55"+channelHex+"20"+"1b7fffffffffffffff"+"420102"+
			"83420065"+maxUint+"4109"+maxUint+"00"+maxFunds+"3b7fffffffffffffff"+
			"8282010282"+maxUint+"00"+"584203"+sig, pay(full), DecodeDealPayment),
	}
}

func queryVectors(t testing.TB) []vector {
	c := hello(t)
	plain := Query{PayloadCID: c}
	piece := Query{PayloadCID: c, QueryParams: QueryParams{PieceCID: &c}}
	rich := Query{PayloadCID: c, QueryParams: QueryParams{
		PieceCID: &c, Selector: DefaultSelector(), MaxPricePerByte: ptr(Price(2)), MinPaymentInterval: 3,
		MinPaymentIntervalIncrease: MaxBytes,
	}}
	free := Query{PayloadCID: c, QueryParams: QueryParams{MaxPricePerByte: ptr(Price(0))}}
	head := "a26a5061796c6f6164434944" + helloLink + "6b5175657279506172616d73"
	onMap := func(name, hex string, q Query) vector {
		return vector{name, hex, q, q.MarshalCBORMap, unmarshaler(UnmarshalQuery)}
	}
	onTuple := func(name, hex string, q Query) vector {
		return vector{name, hex, q, q.MarshalTuple, unmarshaler(UnmarshalQueryV0)}
	}
	return []vector{
		onMap("query", head+"a1685069656365434944f6", plain),
		onMap("query, piece", head+"a1685069656365434944"+helloLink, piece),
		onMap("query, everything", head+"a5685069656365434944"+helloLink+"6853656c6563746f72"+exploreAll+
			"6f4d617850726963655065724279746542"+"0002"+"724d696e5061796d656e74496e74657276616c03"+
			"781a4d696e5061796d656e74496e74657276616c496e637265617365"+maxUint, rich),
		onMap("query, free only", head+"a2685069656365434944f6"+"6f4d617850726963655065724279746540", free),
		onTuple("query 0.0.1", "82"+helloLink+"81f6", plain),
		onTuple("query 0.0.1, piece", "82"+helloLink+"81"+helloLink, piece),
	}
}

func responseVectors(t testing.TB) []vector {
	q := QueryResponse{
		Size: 1016, PaymentAddress: addr(t, "00e807"), MinPricePerByte: 2,
		MaxPaymentInterval: 1 << 20, MaxPaymentIntervalIncrease: 1 << 20,
	}
	nobody := QueryResponse{Status: QueryResponseError, PieceCIDFound: QueryItemUnknown, Message: "no"}
	rich := q
	rich.PayloadCIDFound, rich.SelectorFound = ptr(QueryItemAvailable), ptr(QueryItemUnknown)
	rich.ExpectedPayloadSize, rich.ExpectedBlocks = ptr(Bytes(1000)), ptr(uint64(4))
	rich.CreditLine = ptr(Atto(5))
	const (
		min     = "6d5069656365434944466f756e64006e5061796d656e74416464726573734300e8076f4d696e50726963655065724279746542000272"
		most    = "4d61785061796d656e74496e74657276616c1a00100000"
		most2   = "781a4d61785061796d656e74496e74657276616c496e6372656173651a00100000"
		message = "6653746174757300674d657373616765606b556e7365616c507269636540"
	)
	onMap := func(name, hex string, q QueryResponse) vector {
		return vector{name, hex, q, q.MarshalCBORMap, unmarshaler(UnmarshalQueryResponse)}
	}
	onTuple := func(name, hex string, q QueryResponse) vector {
		return vector{name, hex, q, q.MarshalTuple, unmarshaler(UnmarshalQueryResponseV0)}
	}
	return []vector{
		onMap("query response", "a96453697a651903f8"+message+min+most+most2, q),
		onMap("query response, error", "a96453697a65006653746174757302674d657373616765626e6f6b556e7365616c507269636540"+
			"6d5069656365434944466f756e64026e5061796d656e744164647265737340"+"6f4d696e507269636550657242797465"+"40"+
			"724d61785061796d656e74496e74657276616c00781a4d61785061796d656e74496e74657276616c496e63726561736500", nobody),
		onMap("query response, everything", "ae6453697a651903f8"+message[:16]+"674d65737361676560"+
			"6a4372656469744c696e65420005"+"6b556e7365616c507269636540"+
			"6d5069656365434944466f756e6400"+"6d53656c6563746f72466f756e6402"+
			"6e4578706563746564426c6f636b7304"+"6e5061796d656e74416464726573734300e807"+
			"6f4d696e507269636550657242797465420002"+"6f5061796c6f6164434944466f756e6400"+
			"72"+most+"734578706563746564"+"5061796c6f616453697a65"+"1903e8"+most2, rich),
		onTuple("query response 0.0.1", "8900001903f84300e8074200021a001000001a001000006040", q),
		onTuple("query response 0.0.1, error", "890202004040000062"+"6e6f40", nobody),
	}
}

func vectors(t testing.TB) []vector {
	all := dealVectors(t)
	for _, more := range [][]vector{paymentVectors(t), queryVectors(t), responseVectors(t), tupleVectors(t)} {
		all = append(all, more...)
	}
	return all
}

// TestVectors holds the codec to the wire of the existing network, byte for byte
// and both ways.
func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			got, err := v.encode()
			if err != nil {
				t.Fatal(err)
			}
			if hex.EncodeToString(got) != v.hex {
				t.Errorf("encoded\n got %x\nwant %s", got, v.hex)
			}
			back, err := v.decode(unhex(t, v.hex))
			if err != nil {
				t.Fatal(err)
			}
			if !same(back, v.value) {
				t.Errorf("decoded\n got %+v\nwant %+v", back, v.value)
			}
		})
	}
}

// same compares messages. Selectors are equal if they are as nodes.
func same(a, b any) bool {
	a, sa := withoutSelector(a)
	b, sb := withoutSelector(b)
	return reflect.DeepEqual(a, b) && datamodel.DeepEqual(sa, sb)
}

func withoutSelector(m any) (any, datamodel.Node) {
	var s datamodel.Node
	switch m := m.(type) {
	case DealProposal:
		s, m.Params.Selector = m.Params.Selector, nil
		return m, s
	case Query:
		s, m.QueryParams.Selector = m.QueryParams.Selector, nil
		return m, s
	}
	return m, nil
}

func TestDefaultSelector(t *testing.T) {
	got, err := MarshalNode(DefaultSelector())
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(got) != exploreAll {
		t.Errorf("got %x, want %s", got, exploreAll)
	}
}

// TestSigningBytes: a payment is signed in the form of Filecoin, and its node
// has the bytes of its own codec.
func TestSigningBytes(t *testing.T) {
	v := payment(t, signature(1))
	got, err := signingBytes(v)
	if err != nil {
		t.Fatal(err)
	}
	if want := voucherHex + "f6"; hex.EncodeToString(got) != want {
		t.Errorf("signing bytes\n got %x\nwant %s", got, want)
	}
	for _, vec := range paymentVectors(t) {
		v := vec.value.(DealPayment).PaymentVoucher
		var b bytes.Buffer
		if err := v.MarshalCBOR(&b); err != nil {
			t.Fatal(err)
		}
		ours, err := marshal(EncodeSignedVoucher(v))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, b.Bytes()) {
			t.Errorf("%s\n got %x\nwant %x", vec.name, ours, b.Bytes())
		}
	}
}
