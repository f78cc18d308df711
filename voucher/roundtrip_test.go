package voucher

import (
	"math"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"
)

func genCID() *rapid.Generator[cid.Cid] {
	return rapid.Custom(func(t *rapid.T) cid.Cid {
		code := rapid.SampledFrom([]uint64{multihash.SHA2_256, multihash.IDENTITY, multihash.BLAKE2B_MIN + 31}).Draw(t, "hash")
		digest := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")
		mh, err := multihash.Encode(digest, code)
		if err != nil {
			t.Fatal(err)
		}
		if code == multihash.SHA2_256 && rapid.Bool().Draw(t, "v0") {
			return cid.NewCidV0(mh)
		}
		return cid.NewCidV1(rapid.SampledFrom([]uint64{cid.Raw, cid.DagProtobuf, cid.DagCBOR}).Draw(t, "codec"), mh)
	})
}

func genAddress() *rapid.Generator[address.Address] {
	return rapid.Custom(func(t *rapid.T) address.Address {
		payload := rapid.SliceOfN(rapid.Byte(), 48, 48).Draw(t, "payload")
		var a address.Address
		var err error
		switch rapid.IntRange(0, 4).Draw(t, "protocol") {
		case 0:
			a, err = address.NewIDAddress(rapid.Uint64Range(0, math.MaxInt64).Draw(t, "id"))
		case 1:
			a, err = address.NewSecp256k1Address(payload)
		case 2:
			a, err = address.NewActorAddress(payload)
		case 3:
			a, err = address.NewBLSAddress(payload)
		default:
			a, err = address.NewDelegatedAddress(rapid.Uint64Range(0, math.MaxInt64).Draw(t, "namespace"), payload[:20])
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}

// genNode makes any data: a selector is only looked into by others.
func genNode(depth int) *rapid.Generator[datamodel.Node] {
	return rapid.Custom(func(t *rapid.T) datamodel.Node {
		kind := rapid.IntRange(0, 7).Draw(t, "kind")
		if depth == 0 && kind > 5 {
			kind = 0
		}
		switch kind {
		case 0:
			return uintNode(genWord().Draw(t, "uint") >> 1)
		case 1:
			return basicnode.NewInt(rapid.Int64().Draw(t, "int"))
		case 2:
			return basicnode.NewBool(rapid.Bool().Draw(t, "bool"))
		case 3:
			return basicnode.NewString(rapid.String().Draw(t, "string"))
		case 4:
			return basicnode.NewBytes(rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "bytes"))
		case 5:
			return basicnode.NewLink(cidlink.Link{Cid: genCID().Draw(t, "link")})
		case 6:
			n, err := listNode(rapid.SliceOfN(genNode(depth-1), 0, 3).Draw(t, "list"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		default:
			var es []entry
			for k, v := range rapid.MapOfN(rapid.String(), genNode(depth-1), 0, 3).Draw(t, "map") {
				es = append(es, entry{k, v})
			}
			n, err := mapNode(es)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	})
}

func genText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.Just(strings.Repeat("x", MaxMessage)), rapid.Just("\xff\x00"))
}

// optionally makes nil half of the time.
func optionally[T any](t *rapid.T, g *rapid.Generator[T], label string) *T {
	if rapid.Bool().Draw(t, label+" is there") {
		return ptr(g.Draw(t, label))
	}
	return nil
}

func genProposal() *rapid.Generator[DealProposal] {
	return rapid.Custom(func(t *rapid.T) DealProposal {
		terms := genTerms().Draw(t, "terms")
		p := DealProposal{PayloadCID: genCID().Draw(t, "root"), ID: DealID(genWord().Draw(t, "id")), Params: Params{
			PieceCID: optionally(t, genCID(), "piece"), PricePerByte: terms.Price, UnsealPrice: terms.Unseal,
			PaymentInterval: terms.Interval, PaymentIntervalIncrease: terms.Increase,
		}}
		if s := optionally(t, genNode(3), "selector"); s != nil {
			p.Params.Selector = *s
		}
		if p.Params.Terms() != terms {
			t.Errorf("terms %+v, want %+v", p.Params.Terms(), terms)
		}
		return p
	})
}

func genVoucher() *rapid.Generator[*SignedVoucher] {
	return rapid.Custom(func(t *rapid.T) *SignedVoucher {
		epoch := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64())
		v := &SignedVoucher{
			ChannelAddr: genAddress().Draw(t, "channel"),
			TimeLockMin: abi.ChainEpoch(epoch.Draw(t, "min")), TimeLockMax: abi.ChainEpoch(epoch.Draw(t, "max")),
			Lane: genWord().Draw(t, "lane"), Nonce: genWord().Draw(t, "nonce"),
			Amount:          big.Int{Int: genAmount().Draw(t, "amount").Big()},
			MinSettleHeight: abi.ChainEpoch(epoch.Draw(t, "settle")),
		}
		for i := rapid.IntRange(0, 3).Draw(t, "merges"); i > 0; i-- {
			v.Merges = append(v.Merges, paych.Merge{Lane: genWord().Draw(t, "lane"), Nonce: genWord().Draw(t, "nonce")})
		}
		if rapid.Bool().Draw(t, "secret") {
			v.SecretHash = rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "hash")
		}
		if rapid.Bool().Draw(t, "extra") {
			v.Extra = &paych.ModVerifyParams{Actor: genAddress().Draw(t, "actor"), Method: 3, Data: []byte("data")}
		}
		if rapid.Bool().Draw(t, "signed") {
			v.Signature = &crypto.Signature{
				Type: crypto.SigType(rapid.IntRange(1, 3).Draw(t, "type")),
				Data: rapid.SliceOfN(rapid.Byte(), 0, 199).Draw(t, "signature"),
			}
		}
		return v
	})
}

func genQuery() *rapid.Generator[Query] {
	return rapid.Custom(func(t *rapid.T) Query {
		q := Query{PayloadCID: genCID().Draw(t, "root"), QueryParams: QueryParams{
			PieceCID: optionally(t, genCID(), "piece"), MinPaymentInterval: Bytes(genWord().Draw(t, "interval")),
			MinPaymentIntervalIncrease: Bytes(genWord().Draw(t, "increase")),
		}}
		if p := optionally(t, genWord(), "price"); p != nil {
			q.QueryParams.MaxPricePerByte = ptr(Price(*p))
		}
		if s := optionally(t, genNode(3), "selector"); s != nil {
			q.QueryParams.Selector = *s
		}
		return q
	})
}

func genResponse() *rapid.Generator[QueryResponse] {
	return rapid.Custom(func(t *rapid.T) QueryResponse {
		item := rapid.Custom(func(t *rapid.T) QueryItemStatus { return QueryItemStatus(genWord().Draw(t, "item")) })
		terms := genTerms().Draw(t, "terms")
		q := QueryResponse{
			Status:        QueryResponseStatus(genWord().Draw(t, "status")),
			PieceCIDFound: item.Draw(t, "piece"), Size: Bytes(genWord().Draw(t, "size")),
			MinPricePerByte: terms.Price, UnsealPrice: terms.Unseal,
			MaxPaymentInterval: terms.Interval, MaxPaymentIntervalIncrease: terms.Increase,
			Message: genText().Draw(t, "message"), PayloadCIDFound: optionally(t, item, "payload"),
			SelectorFound: optionally(t, item, "selector"), ExpectedBlocks: optionally(t, genWord(), "blocks"),
			CreditLine: optionally(t, genAmount(), "credit"),
		}
		if a := optionally(t, genAddress(), "address"); a != nil {
			q.PaymentAddress = *a
		}
		if n := optionally(t, genWord(), "expected"); n != nil {
			q.ExpectedPayloadSize = ptr(Bytes(*n))
		}
		if q.Ask().Terms() != terms {
			t.Errorf("terms %+v, want %+v", q.Ask().Terms(), terms)
		}
		return q
	})
}

// back fails unless decode returns want from what encode returns.
func back[T any](t *rapid.T, want T, encode func() ([]byte, error), decode func([]byte) (any, error)) {
	b, err := encode()
	if err != nil {
		t.Fatalf("encode %+v: %v", want, err)
	}
	got, err := decode(b)
	if err != nil {
		t.Fatalf("decode %x: %v", b, err)
	}
	if !same(got, want) {
		t.Errorf("%x\n got %+v\nwant %+v", b, got, want)
	}
}

// TestRoundTrips: whatever can be said arrives as it was said.
func TestRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genProposal().Draw(t, "proposal")
		back(t, p, encoder(p), decoder(DecodeDealProposal))
		r := DealResponse{
			Status: DealStatus(genWord().Draw(t, "status")), ID: DealID(genWord().Draw(t, "id")),
			PaymentOwed: genAmount().Draw(t, "owed"), Message: genText().Draw(t, "message"),
		}
		back(t, r, encoder(r), decoder(DecodeDealResponse))
	})
	rapid.Check(t, func(t *rapid.T) {
		p := DealPayment{
			ID: DealID(genWord().Draw(t, "id")), PaymentChannel: genAddress().Draw(t, "channel"),
			PaymentVoucher: genVoucher().Draw(t, "voucher"),
		}
		if p.PaymentVoucher.Signature != nil && p.PaymentVoucher.Signature.Data == nil {
			p.PaymentVoucher.Signature.Data = []byte{}
		}
		back(t, p, encoder(p), decoder(DecodeDealPayment))
	})
	rapid.Check(t, func(t *rapid.T) {
		q := genQuery().Draw(t, "query")
		back(t, q, q.MarshalCBORMap, unmarshaler(UnmarshalQuery))
		q.QueryParams = QueryParams{PieceCID: q.QueryParams.PieceCID}
		back(t, q, q.MarshalTuple, unmarshaler(UnmarshalQueryV0))
		r := genResponse().Draw(t, "response")
		back(t, r, r.MarshalCBORMap, unmarshaler(UnmarshalQueryResponse))
		r.PayloadCIDFound, r.SelectorFound, r.ExpectedPayloadSize, r.ExpectedBlocks, r.CreditLine = nil, nil, nil, nil, nil
		back(t, r, r.MarshalTuple, unmarshaler(UnmarshalQueryResponseV0))
	})
}
