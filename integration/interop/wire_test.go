package interop

import (
	"bytes"
	"math"
	"testing"

	"github.com/filecoin-project/go-address"
	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/multiformats/go-multihash"
	cbg "github.com/whyrusleeping/cbor-gen"
	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// word is a number that fits the older generation's signed ones.
func word() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(0, 1<<20), rapid.Uint64Range(0, math.MaxInt64))
}

func anyCID() *rapid.Generator[cid.Cid] {
	return rapid.Custom(func(t *rapid.T) cid.Cid {
		mh, err := multihash.Encode(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"), multihash.SHA2_256)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "v0") {
			return cid.NewCidV0(mh)
		}
		return cid.NewCidV1(rapid.SampledFrom([]uint64{cid.Raw, cid.DagProtobuf, cid.DagCBOR}).Draw(t, "codec"), mh)
	})
}

func anyAddress() *rapid.Generator[address.Address] {
	return rapid.Custom(func(t *rapid.T) address.Address {
		payload := rapid.SliceOfN(rapid.Byte(), 48, 48).Draw(t, "payload")
		make := rapid.SampledFrom([]func([]byte) (address.Address, error){
			address.NewSecp256k1Address, address.NewActorAddress, address.NewBLSAddress,
			func(b []byte) (address.Address, error) { return address.NewIDAddress(uint64(b[0]) << 40) },
			func(b []byte) (address.Address, error) { return address.NewDelegatedAddress(10, b[:20]) },
		}).Draw(t, "protocol")
		a, err := make(payload)
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}

func anyAmount() *rapid.Generator[voucher.Amount] {
	return rapid.Custom(func(t *rapid.T) voucher.Amount {
		return rapid.SampledFrom([]voucher.Amount{{}, voucher.Atto(1), voucher.MaxAmount}).Draw(t, "edge").Sub(
			voucher.Price(rapid.Uint64().Draw(t, "price")).Of(voucher.Bytes(rapid.Uint64().Draw(t, "bytes"))))
	})
}

func anyOf[T any](t *rapid.T, g *rapid.Generator[T], label string) *T {
	if rapid.Bool().Draw(t, label+" is there") {
		v := g.Draw(t, label)
		return &v
	}
	return nil
}

func anySelector() *rapid.Generator[datamodel.Node] {
	return rapid.Custom(func(t *rapid.T) datamodel.Node {
		n, err := selectors.Path(rapid.SampledFrom([]string{"", "a", "a/b", "docs/ä/1"}).Draw(t, "path"), selectors.ScopeAll)
		if err != nil {
			t.Fatal(err)
		}
		return rapid.SampledFrom([]datamodel.Node{nil, voucher.DefaultSelector(), n}).Draw(t, "selector")
	})
}

func anyProposal() *rapid.Generator[voucher.DealProposal] {
	return rapid.Custom(func(t *rapid.T) voucher.DealProposal {
		return voucher.DealProposal{PayloadCID: anyCID().Draw(t, "root"), ID: voucher.DealID(word().Draw(t, "id")), Params: voucher.Params{
			Selector: anySelector().Draw(t, "selector"), PieceCID: anyOf(t, anyCID(), "piece"),
			PricePerByte:            voucher.Price(rapid.Uint64().Draw(t, "price")),
			PaymentInterval:         voucher.Bytes(word().Draw(t, "interval")),
			PaymentIntervalIncrease: voucher.Bytes(word().Draw(t, "increase")),
			UnsealPrice:             anyAmount().Draw(t, "unseal"),
		}}
	})
}

func anyResponse() *rapid.Generator[voucher.DealResponse] {
	return rapid.Custom(func(t *rapid.T) voucher.DealResponse {
		return voucher.DealResponse{
			Status: voucher.DealStatus(rapid.Uint64Range(0, 40).Draw(t, "status")), ID: voucher.DealID(word().Draw(t, "id")),
			PaymentOwed: anyAmount().Draw(t, "owed"), Message: rapid.String().Draw(t, "message"),
		}
	})
}

// anyPayment makes what a payer on the existing network may send, and more than
// ours ever does.
func anyPayment() *rapid.Generator[voucher.DealPayment] {
	return rapid.Custom(func(t *rapid.T) voucher.DealPayment {
		v := &paych.SignedVoucher{
			ChannelAddr: anyAddress().Draw(t, "channel"), Lane: word().Draw(t, "lane"), Nonce: word().Draw(t, "nonce"),
			Amount: big.Int{Int: anyAmount().Draw(t, "amount").Big()},
		}
		if rapid.Bool().Draw(t, "secret") {
			v.SecretHash = rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "hash")
		}
		if rapid.Bool().Draw(t, "extra") {
			v.Extra = &paych.ModVerifyParams{Actor: anyAddress().Draw(t, "actor"), Method: 3, Data: []byte("data")}
		}
		for range rapid.IntRange(0, 2).Draw(t, "merges") {
			v.Merges = append(v.Merges, paych.Merge{Lane: word().Draw(t, "lane"), Nonce: word().Draw(t, "nonce")})
		}
		if rapid.Bool().Draw(t, "signed") { // the older generation knows types 1 and 2 only
			v.Signature = &crypto.Signature{Type: crypto.SigType(rapid.IntRange(1, 2).Draw(t, "type")), Data: rapid.SliceOfN(rapid.Byte(), 65, 96).Draw(t, "signature")}
		}
		return voucher.DealPayment{ID: voucher.DealID(word().Draw(t, "id")), PaymentChannel: v.ChannelAddr, PaymentVoucher: v}
	})
}

// encoder is one of our vouchers.
type encoder interface {
	Encode() (datamodel.Node, error)
}

// kind is a voucher type as both sides have it.
type kind struct {
	ours   func(datamodel.Node) (encoder, error)
	theirs func(datamodel.Node) (any, error)
}

func as[T encoder](decode func(datamodel.Node) (T, error)) func(datamodel.Node) (encoder, error) {
	return func(n datamodel.Node) (encoder, error) { return decode(n) }
}

func asAny[T any](decode func(datamodel.Node) (T, error)) func(datamodel.Node) (any, error) {
	return func(n datamodel.Node) (any, error) { return decode(n) }
}

var kinds = map[string]kind{
	"proposal": {as(voucher.DecodeDealProposal), asAny(rt.DealProposalFromNode)},
	"response": {as(voucher.DecodeDealResponse), asAny(rt.DealResponseFromNode)},
	"payment":  {as(voucher.DecodeDealPayment), asAny(rt.DealPaymentFromNode)},
}

func drawVoucher(t *rapid.T, kind string) encoder {
	switch kind {
	case "proposal":
		return anyProposal().Draw(t, kind)
	case "response":
		return anyResponse().Draw(t, kind)
	}
	return anyPayment().Draw(t, kind)
}

// TestVoucherBytes: what we write they read and write again as the same bytes,
// and what they write, typed or from bytes, we do.
func TestVoucherBytes(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				node, err := drawVoucher(t, name).Encode()
				fatal(t, err)
				ours := marshal(t, node)
				value, err := k.theirs(unmarshal(t, ours))
				fatal(t, err)
				typed := rt.BindnodeRegistry.TypeToNode(value)
				same(t, "they write", marshal(t, typed.Representation()), ours)
				for way, n := range map[string]datamodel.Node{"bytes": unmarshal(t, ours), "typed": typed, "representation": typed.Representation()} {
					back, err := k.ours(n)
					fatal(t, err)
					again, err := back.Encode()
					fatal(t, err)
					same(t, "we write what we read from "+way, marshal(t, again), ours)
				}
			})
		})
	}
}

// TestVoucherRefusals: a voucher that they refuse we refuse. The damage is a
// field gone, a field more, or a value of another kind, at any depth of maps.
func TestVoucherRefusals(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			refused := 0
			rapid.Check(t, func(t *rapid.T) {
				node, err := drawVoucher(t, name).Encode()
				fatal(t, err)
				bad := damage(t, node)
				if _, err := k.theirs(bad); err == nil {
					return // an equal or still a good one
				}
				refused++
				if v, err := k.ours(bad); err == nil {
					t.Fatalf("they refuse %x, we read %+v", marshal(t, bad), v)
				}
			})
			if refused < 20 {
				t.Errorf("only %d of the damaged vouchers were refused", refused)
			}
		})
	}
}

type cborType interface {
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
}

// theirBytes reads from as v and writes it again. Queries they write in the
// order of the fields, others in the order of the keys: what is compared is in
// the order of the keys, raw is as they wrote it.
func theirBytes(t *rapid.T, v cborType, from []byte) (sorted, raw []byte) {
	t.Helper()
	if err := v.UnmarshalCBOR(bytes.NewReader(from)); err != nil {
		t.Fatalf("they do not read %x: %v", from, err)
	}
	var out bytes.Buffer
	fatal(t, v.MarshalCBOR(&out))
	return marshal(t, unmarshal(t, out.Bytes())), out.Bytes()
}

// TestQueryBytes: a query without the fields that only we know is the same
// bytes on both sides; with them they read what they know.
func TestQueryBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := voucher.Query{PayloadCID: anyCID().Draw(t, "root"), QueryParams: voucher.QueryParams{PieceCID: anyOf(t, anyCID(), "piece")}}
		plain, err := q.MarshalCBORMap()
		fatal(t, err)
		sorted, raw := theirBytes(t, new(rt.Query), plain)
		same(t, "query", sorted, plain)
		back, err := voucher.UnmarshalQuery(raw)
		fatal(t, err)
		again, err := back.MarshalCBORMap()
		fatal(t, err)
		same(t, "query read and written", again, plain)

		q.QueryParams.Selector = anySelector().Draw(t, "selector")
		q.QueryParams.MinPaymentInterval = voucher.Bytes(word().Draw(t, "interval"))
		more, err := q.MarshalCBORMap()
		fatal(t, err)
		sorted, _ = theirBytes(t, new(rt.Query), more)
		same(t, "query with more fields", sorted, plain)
	})
}

// anyQueryResponse makes one with the fields that everybody knows.
func anyQueryResponse() *rapid.Generator[voucher.QueryResponse] {
	return rapid.Custom(func(t *rapid.T) voucher.QueryResponse {
		return voucher.QueryResponse{
			Status: voucher.QueryResponseStatus(rapid.Uint64Range(0, 3).Draw(t, "status")), PieceCIDFound: voucher.QueryItemStatus(rapid.Uint64Range(0, 3).Draw(t, "found")),
			Size: voucher.Bytes(word().Draw(t, "size")), PaymentAddress: anyAddress().Draw(t, "address"),
			MinPricePerByte: voucher.Price(rapid.Uint64().Draw(t, "price")), Message: rapid.String().Draw(t, "message"), UnsealPrice: anyAmount().Draw(t, "unseal"),
			MaxPaymentInterval: voucher.Bytes(word().Draw(t, "interval")), MaxPaymentIntervalIncrease: voucher.Bytes(word().Draw(t, "increase")),
		}
	})
}

func TestQueryResponseBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyQueryResponse().Draw(t, "response")
		plain, err := r.MarshalCBORMap()
		fatal(t, err)
		sorted, raw := theirBytes(t, new(rt.QueryResponse), plain)
		same(t, "response", sorted, plain)
		back, err := voucher.UnmarshalQueryResponse(raw)
		fatal(t, err)
		if back != r {
			t.Fatalf("read %+v, want %+v", back, r)
		}
		size, blocks, line := r.Size, uint64(r.MinPricePerByte), r.UnsealPrice
		r.ExpectedPayloadSize, r.ExpectedBlocks, r.CreditLine = &size, &blocks, &line
		r.PayloadCIDFound, r.SelectorFound = &r.PieceCIDFound, &r.PieceCIDFound
		more, err := r.MarshalCBORMap()
		fatal(t, err)
		sorted, _ = theirBytes(t, new(rt.QueryResponse), more)
		same(t, "response with more fields", sorted, plain)
	})
}

// TestQueryRefusals: a query or an answer that they refuse we refuse, cut or
// damaged.
func TestQueryRefusals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := voucher.Query{PayloadCID: anyCID().Draw(t, "root"), QueryParams: voucher.QueryParams{PieceCID: anyOf(t, anyCID(), "piece")}}
		full, err := q.MarshalCBORMap()
		fatal(t, err)
		cut := full[:rapid.IntRange(0, len(full)-1).Draw(t, "cut")]
		if err := new(rt.Query).UnmarshalCBOR(bytes.NewReader(cut)); err == nil {
			t.Fatalf("they read %x", cut)
		}
		if _, err := voucher.UnmarshalQuery(cut); err == nil {
			t.Fatalf("we read %x", cut)
		}
		// They check less than we: a missing field is for them an empty one.
		bad := marshal(t, damage(t, unmarshal(t, full)))
		if new(rt.Query).UnmarshalCBOR(bytes.NewReader(bad)) != nil {
			if _, err := voucher.UnmarshalQuery(bad); err == nil {
				t.Fatalf("they refuse %x, we read it", bad)
			}
		}
	})
}

// TestConstants: the words and numbers that are not in the bytes above.
func TestConstants(t *testing.T) {
	if voucher.ProposalType != rt.DealProposalType || voucher.ResponseType != rt.DealResponseType || voucher.PaymentType != rt.DealPaymentType {
		t.Error("voucher types differ")
	}
	for n, name := range rt.DealStatuses {
		if n == rt.DealStatusClientWaitingForLastBlocks {
			name = "DealStatusClientWaitingForLastBlocks" // they print it shorter
		}
		if got := "DealStatus" + voucher.DealStatus(n).String(); got != name {
			t.Errorf("status %d is %s, want %s", n, got, name)
		}
	}
}

func fatal(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func marshal(t rapid.TB, n datamodel.Node) []byte {
	t.Helper()
	b, err := voucher.MarshalNode(n)
	fatal(t, err)
	return b
}

func unmarshal(t rapid.TB, b []byte) datamodel.Node {
	t.Helper()
	n, err := voucher.UnmarshalNode(b)
	fatal(t, err)
	return n
}

func same(t rapid.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s\n%x, want\n%x", what, got, want)
	}
}
