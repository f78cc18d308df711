package voucher

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// change replaces the value at a path of keys and positions, or takes the key
// away if it is nil.
func change(t testing.TB, n datamodel.Node, value datamodel.Node, path ...string) datamodel.Node {
	t.Helper()
	if len(path) == 0 {
		return value
	}
	var out datamodel.Node
	var err error
	if n.Kind() == datamodel.Kind_List {
		var list []datamodel.Node
		for it := n.ListIterator(); !it.Done(); {
			i, v, _ := it.Next()
			if string(rune('a'+i)) == path[0] {
				v = change(t, v, value, path[1:]...)
			}
			if v != nil {
				list = append(list, v)
			}
		}
		out, err = listNode(list)
	} else {
		var es []entry
		found := false
		for it := n.MapIterator(); !it.Done(); {
			k, v, _ := it.Next()
			key, _ := k.AsString()
			if key == path[0] {
				found, v = true, change(t, v, value, path[1:]...)
			}
			if v != nil {
				es = append(es, entry{key, v})
			}
		}
		if !found {
			es = append(es, entry{path[0], value})
		}
		out, err = mapNode(es)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// of every kind, a value of each that no field takes in place of its own.
func kinds(t testing.TB) map[string]datamodel.Node {
	list, err := listNode([]datamodel.Node{basicnode.NewInt(1), datamodel.Null, basicnode.NewInt(1)})
	if err != nil {
		t.Fatal(err)
	}
	obj, err := mapNode([]entry{{"x", datamodel.Null}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]datamodel.Node{
		"null": datamodel.Null, "bool": basicnode.NewBool(true), "float": basicnode.NewFloat(1),
		"int": basicnode.NewInt(-1), "string": basicnode.NewString("x"),
		"bytes": basicnode.NewBytes([]byte{7, 7}), "list": list, "map": obj,
	}
}

// TestKinds puts a value of every wrong kind into every field, takes every field
// away, and adds one: all is refused, but for null where null is meant, and for
// unknown keys where they are ignored.
func TestKinds(t *testing.T) {
	for _, v := range vectors(t) {
		n, err := UnmarshalNode(unhex(t, v.hex))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths(n, nil) {
			dotted := strings.Join(path, ".")
			if kind, _, _ := strings.Cut(v.name, ","); strings.HasPrefix(kind, "tuple ") {
				dotted = kind + " " + dotted // its fields have no names
			}
			if openField[dotted] || strings.Contains(dotted, "Selector.") || strings.HasPrefix(dotted, "tuple proposal c.a") {
				continue
			}
			for kind, value := range kinds(t) {
				if !openField[dotted+" "+kind] {
					refuse(t, v, dotted+" is "+kind, change(t, n, value, path...))
				}
			}
			if !openField[dotted+" missing"] {
				refuse(t, v, dotted+" is missing", change(t, n, nil, path...))
			}
		}
		if n.Kind() == datamodel.Kind_Map && !strings.HasPrefix(v.name, "query") {
			refuse(t, v, "another key", change(t, n, basicnode.NewInt(1), "Extra"))
		}
	}
}

// openField are the fields that may be anything or missing, and the kinds of
// others that are as good as what the vectors hold.
var openField = map[string]bool{
	"Params.Selector null": true, "Params.Selector bool": true, "Params.Selector float": true, "Params.Selector int": true,
	"Params.Selector string": true, "Params.Selector bytes": true, "Params.Selector list": true, "Params.Selector map": true,
	"Params.PieceCID null": true, "Message string": true,
	"QueryParams.PieceCID null": true, "b.a null": true, "h string": true, "QueryParams.Selector": true,
	// of a signed voucher: SecretHash, Extra, its Data, Signature, epochs; a merge may be taken away
	"PaymentVoucher.d bytes": true, "PaymentVoucher.e null": true, "PaymentVoucher.e.c bytes": true, "PaymentVoucher.k null": true,
	"PaymentVoucher.b int": true, "PaymentVoucher.c int": true, "PaymentVoucher.i int": true,
	"PaymentVoucher.j.a missing": true, "PaymentVoucher.j.b missing": true,
	"tuple proposal c.b null": true, "tuple response d string": true,
	"tuple payment c.d bytes": true, "tuple payment c.e null": true, "tuple payment c.k null": true,
	"tuple payment c.b int": true, "tuple payment c.c int": true, "tuple payment c.i int": true,
	// the first peers wrote a tuple without UnsealPrice
	"i missing": true,
	// a query may lack these or leave them null
	"QueryParams.MaxPricePerByte missing": true, "QueryParams.MaxPricePerByte null": true,
	"QueryParams.MinPaymentInterval missing": true, "QueryParams.MinPaymentInterval null": true,
	"QueryParams.MinPaymentIntervalIncrease missing": true, "QueryParams.MinPaymentIntervalIncrease null": true,
	"PayloadCIDFound missing": true, "PayloadCIDFound null": true, "SelectorFound missing": true, "SelectorFound null": true,
	"ExpectedPayloadSize missing": true, "ExpectedPayloadSize null": true, "ExpectedBlocks missing": true,
	"ExpectedBlocks null": true, "CreditLine missing": true, "CreditLine null": true,
}

func paths(n datamodel.Node, at []string) [][]string {
	var all [][]string
	add := func(key string, v datamodel.Node) {
		path := append(append([]string(nil), at...), key)
		all = append(all, path)
		all = append(all, paths(v, path)...)
	}
	switch n.Kind() {
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			i, v, _ := it.Next()
			add(string(rune('a'+i)), v)
		}
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			k, v, _ := it.Next()
			key, _ := k.AsString()
			add(key, v)
		}
	}
	return all
}

func refuse(t *testing.T, v vector, what string, n datamodel.Node) {
	t.Helper()
	b, err := MarshalNode(n)
	if err != nil {
		t.Fatalf("%s, %s: %v", v.name, what, err)
	}
	if got, err := v.decode(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("%s, %s: %+v, %v; want ErrMalformed", v.name, what, got, err)
	}
}

// TestValues: values of the right kind that are out of bounds.
func TestValues(t *testing.T) {
	raw := func(s string) datamodel.Node { return basicnode.NewBytes(unhex(t, s)) }
	long := basicnode.NewString(strings.Repeat("x", MaxMessage+1))
	var many []datamodel.Node
	for range maxMerges + 1 {
		m, err := listNode([]datamodel.Node{uintNode(1), uintNode(1)})
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, m)
	}
	merges, err := listNode(many)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]vector{}
	for _, v := range vectors(t) {
		byName[v.name] = v
	}
	for _, c := range []struct {
		vector, path string
		value        datamodel.Node
	}{
		{"proposal, explore all", "Params.PricePerByte", raw("0101")},
		{"proposal, explore all", "Params.PricePerByte", raw("00010000000000000000")}, // 2^64
		{"proposal, explore all", "Params.UnsealPrice", raw("0001" + strings.Repeat("00", 16))},
		{"proposal, explore all", "Params.UnsealPrice", raw("0000")},
		{"proposal, explore all", "ID", basicnode.NewInt(-1)},
		{"response, accepted", "Message", long},
		{"response, accepted", "PaymentOwed", raw("0105")},
		{"response, accepted", "PaymentOwed", raw(strings.Repeat("00", 200))},
		{"payment", "PaymentChannel", raw("")},
		{"payment", "PaymentChannel", raw("01")},
		{"payment", "PaymentChannel", raw("0901")},
		{"payment", "PaymentChannel", raw("04" + strings.Repeat("00", 64))},
		{"payment", "PaymentVoucher.a", raw("")},
		{"payment", "PaymentVoucher.d", basicnode.NewBytes(make([]byte, maxSecretHash+1))},
		{"payment", "PaymentVoucher.b", uintNode(1 << 63)},
		{"payment", "PaymentVoucher.h", raw("0105")},
		{"payment", "PaymentVoucher.h", raw("0001" + strings.Repeat("00", 16))},
		{"payment", "PaymentVoucher.j", merges},
		{"payment", "PaymentVoucher.k", raw("")},
		{"payment", "PaymentVoucher.k", raw("00" + strings.Repeat("aa", 65))},
		{"payment", "PaymentVoucher.k", raw("04" + strings.Repeat("aa", 65))},
		{"payment", "PaymentVoucher.k", raw("01" + strings.Repeat("aa", 200))},
		{"payment, everything", "PaymentVoucher.e.c", basicnode.NewBytes(make([]byte, maxExtraData+1))},
		{"query response", "Message", long},
		{"query response", "MinPricePerByte", raw("00010000000000000000")},
		{"query response", "PaymentAddress", raw("01")},
		{"query response, everything", "CreditLine", raw("0105")},
		{"query response, everything", "ExpectedBlocks", basicnode.NewInt(-4)},
		{"query, everything", "QueryParams.MaxPricePerByte", raw("01ff")},
		{"query, everything", "QueryParams.MinPaymentInterval", basicnode.NewString("1")},
	} {
		v := byName[c.vector]
		n, err := UnmarshalNode(unhex(t, v.hex))
		if err != nil {
			t.Fatal(err)
		}
		refuse(t, v, c.path, change(t, n, c.value, strings.Split(c.path, ".")...))
	}
}

// TestBytes: what is no message at all, or more than one.
func TestBytes(t *testing.T) {
	link := helloLink
	deep := strings.Repeat("81", maxDepth+1) + "00"
	for _, v := range vectors(t) {
		for name, b := range map[string][]byte{
			"nothing": nil, "cut": unhex(t, v.hex[:len(v.hex)-2]), "twice": unhex(t, v.hex+v.hex), "trailing": unhex(t, v.hex+"00"),
			"huge map": unhex(t, "bbffffffffffffffff"), "huge list": unhex(t, "9bffffffffffffffff"), "deep": unhex(t, deep),
			"huge bytes": unhex(t, "5bffffffffffffffff"), "indefinite": unhex(t, "9fff"), "zero": unhex(t, "00"),
			"same key twice": unhex(t, "a26249440162494401"), "too large": make([]byte, MaxEncoded+1), "link": unhex(t, link),
			"link of nothing": unhex(t, "d82a4100"), "null": unhex(t, "f6"), "empty map": unhex(t, "a0"), "empty list": unhex(t, "80"),
		} {
			if got, err := v.decode(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %s: %+v, %v; want ErrMalformed", v.name, name, got, err)
			}
		}
	}
	for name, n := range map[string]datamodel.Node{"nil": nil, "absent": datamodel.Absent, "null": datamodel.Null} {
		_, err1 := DecodeDealProposal(n)
		_, err2 := DecodeDealResponse(n)
		_, err3 := DecodeDealPayment(n)
		_, err4 := DecodeSignedVoucher(n)
		for _, err := range []error{err1, err2, err3, err4} {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v, want ErrMalformed", name, err)
			}
		}
	}
	if _, err := MarshalNode(nil); err == nil {
		t.Error("nothing is encoded")
	}
}

// TestUnknownKeys: queries are open to fields of later versions, and to null in
// those of ours.
func TestUnknownKeys(t *testing.T) {
	for _, v := range append(queryVectors(t), responseVectors(t)...) {
		n, err := UnmarshalNode(unhex(t, v.hex))
		if err != nil {
			t.Fatal(err)
		}
		if n.Kind() != datamodel.Kind_Map {
			continue
		}
		for _, kind := range kinds(t) {
			b, err := MarshalNode(change(t, n, kind, "Later"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := v.decode(b); err != nil || !same(got, v.value) {
				t.Errorf("%s: %+v, %v", v.name, got, err)
			}
		}
	}
	n, err := UnmarshalNode(unhex(t, responseVectors(t)[2].hex))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"PayloadCIDFound", "SelectorFound", "ExpectedPayloadSize", "ExpectedBlocks", "CreditLine"} {
		n = change(t, n, datamodel.Null, key)
	}
	b, err := MarshalNode(n)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := UnmarshalQueryResponse(b); err != nil || !same(got, responseVectors(t)[0].value) {
		t.Errorf("null extras: %+v, %v", got, err)
	}
}

// TestOldTuple: the first peers wrote eight fields.
func TestOldTuple(t *testing.T) {
	got, err := UnmarshalQueryResponseV0(unhex(t, "8800001903f84300e8074200021a001000001a0010000060"))
	if err != nil || !same(got, responseVectors(t)[0].value) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestKeyOrder: messages are read with their keys in any order.
func TestKeyOrder(t *testing.T) {
	const backwards = "a46b5061796d656e744f7765644400200000674d65737361676560665374617475730a62494401"
	got, err := decoder(DecodeDealResponse)(unhex(t, backwards))
	if want := (DealResponse{Status: DealStatusFundsNeeded, ID: 1, PaymentOwed: Atto(2097152)}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// TestEncodeRefuses: what has no wire form is an error that names the field.
func TestEncodeRefuses(t *testing.T) {
	pay := func(change func(*SignedVoucher)) DealPayment {
		v := payment(t, nil)
		change(v)
		return DealPayment{PaymentChannel: addr(t, channelHex), PaymentVoucher: v}
	}
	noPiece, dear := proposal(t, nil), big.Int{Int: MaxAmount.Big()}
	noPiece.Params.PieceCID = &cid.Undef
	for _, c := range []struct {
		want   string
		encode func() ([]byte, error)
	}{
		{"PayloadCID", encoder(DealProposal{})},
		{"PieceCID", encoder(noPiece)},
		{"Message", encoder(DealResponse{Message: strings.Repeat("x", MaxMessage+1)})},
		{"PaymentVoucher", encoder(DealPayment{PaymentChannel: addr(t, channelHex)})},
		{"PaymentChannel", encoder(DealPayment{PaymentVoucher: payment(t, nil)})},
		{"ChannelAddr", encoder(pay(func(v *SignedVoucher) { v.ChannelAddr = address.Undef }))},
		{"Amount", encoder(pay(func(v *SignedVoucher) { v.Amount = big.NewInt(-1) }))},
		{"Amount", encoder(pay(func(v *SignedVoucher) { v.Amount = big.Add(dear, big.NewInt(1)) }))},
		{"SecretHash", encoder(pay(func(v *SignedVoucher) { v.SecretHash = make([]byte, maxSecretHash+1) }))},
		{"Extra", encoder(pay(func(v *SignedVoucher) { v.Extra = &paych.ModVerifyParams{} }))},
		{"Merges", encoder(pay(func(v *SignedVoucher) { v.Merges = make([]paych.Merge, maxMerges+1) }))},
		{"Signature", encoder(pay(func(v *SignedVoucher) { v.Signature = signature(9) }))},
		{"PayloadCID", Query{}.MarshalCBORMap},
		{"PayloadCID", Query{}.MarshalTuple},
		{"PieceCID", Query{PayloadCID: hello(t), QueryParams: QueryParams{PieceCID: &cid.Undef}}.MarshalCBORMap},
		{"Message", QueryResponse{Message: strings.Repeat("x", MaxMessage+1)}.MarshalCBORMap},
	} {
		if b, err := c.encode(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v", c.want, hex.EncodeToString(b), err)
		}
	}
}

// TestOwnership: a decoded voucher shares no memory with what it was read from.
func TestOwnership(t *testing.T) {
	full := paymentVectors(t)[4]
	wire := unhex(t, full.hex)
	n, err := UnmarshalNode(wire)
	if err != nil {
		t.Fatal(err)
	}
	p, err := DecodeDealPayment(n)
	if err != nil {
		t.Fatal(err)
	}
	v := p.PaymentVoucher
	v.SecretHash[0], v.Signature.Data[0], v.Extra.Data[0] = 0xee, 0xee, 0xee
	again, err := MarshalNode(n)
	if err != nil || !bytes.Equal(again, wire) {
		t.Errorf("changed: %x, %v", again, err)
	}
}
