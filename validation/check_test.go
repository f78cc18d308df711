package validation

import (
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

func testCID(t testing.TB, s string) cid.Cid {
	t.Helper()
	mh, err := multihash.Sum([]byte(s), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// TestCheck holds every rule, each with what passes just beside it.
func TestCheck(t *testing.T) {
	root, other := testCID(t, "root"), testCID(t, "other")
	paid := voucher.Ask{PricePerByte: 10, UnsealPrice: voucher.Atto(5), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 100}
	good := voucher.Params{PricePerByte: 10, UnsealPrice: voucher.Atto(5), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 100}
	with := func(change func(*voucher.Params)) voucher.Params { p := good; change(&p); return p }
	for name, tc := range map[string]struct {
		ask    voucher.Ask
		params voucher.Params
		root   cid.Cid
		sel    datamodel.Node
		want   voucher.Refusal // 0: accepted
	}{
		"exactly the ask":           {paid, good, root, nil, 0},
		"more than the ask":         {paid, with(func(p *voucher.Params) { p.PricePerByte, p.UnsealPrice = 11, voucher.Atto(6) }), root, nil, 0},
		"shorter interval":          {paid, with(func(p *voucher.Params) { p.PaymentInterval, p.PaymentIntervalIncrease = MinInterval, 0 }), root, nil, 0},
		"null selector is all":      {paid, good, root, selectors.All(), 0},
		"other root":                {paid, good, other, nil, voucher.RefusedRoot},
		"other selector":            {paid, good, root, selectors.Depth(3), voucher.RefusedSelector},
		"same selector":             {paid, with(func(p *voucher.Params) { p.Selector = selectors.Depth(3) }), root, selectors.Depth(3), 0},
		"unbounded selector":        {paid, with(func(p *voucher.Params) { p.Selector = selectors.Depth(1 << 40) }), root, selectors.Depth(1 << 40), voucher.RefusedSelector},
		"one attoFIL less":          {paid, with(func(p *voucher.Params) { p.PricePerByte = 9 }), root, nil, voucher.RefusedPrice},
		"unsealing one less":        {paid, with(func(p *voucher.Params) { p.UnsealPrice = voucher.Atto(4) }), root, nil, voucher.RefusedUnsealPrice},
		"interval one more":         {paid, with(func(p *voucher.Params) { p.PaymentInterval++ }), root, nil, voucher.RefusedInterval},
		"increase one more":         {paid, with(func(p *voucher.Params) { p.PaymentIntervalIncrease++ }), root, nil, voucher.RefusedInterval},
		"interval zero":             {paid, with(func(p *voucher.Params) { p.PaymentInterval = 0 }), root, nil, voucher.RefusedInterval},
		"interval below the least":  {paid, with(func(p *voucher.Params) { p.PaymentInterval = MinInterval - 1 }), root, nil, voucher.RefusedInterval},
		"the ask is smaller still":  {voucher.Ask{PricePerByte: 10, PaymentInterval: 10}, voucher.Params{PricePerByte: 10, PaymentInterval: 10}, root, nil, 0},
		"free":                      {voucher.Ask{}, voucher.Params{}, root, nil, 0},
		"free with intervals":       {voucher.Ask{}, voucher.Params{PaymentInterval: 5, PaymentIntervalIncrease: 9}, root, nil, 0},
		"pays for what is free":     {voucher.Ask{}, voucher.Params{PricePerByte: 1, PaymentInterval: 1 << 20}, root, nil, 0},
		"pays, interval zero":       {voucher.Ask{}, voucher.Params{PricePerByte: 1}, root, nil, voucher.RefusedInterval},
		"free offered for the paid": {paid, voucher.Params{}, root, nil, voucher.RefusedPrice},
	} {
		err := Check(Offer{Ask: tc.ask}, voucher.DealProposal{PayloadCID: root, Params: tc.params}, tc.root, tc.sel)
		var got voucher.Refusal
		errors.As(err, &got)
		if got != tc.want || (err == nil) != (tc.want == 0) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// TestNothingBelowTheAsk: whatever is proposed, what Check lets through pays
// at least the ask at least as often.
func TestNothingBelowTheAsk(t *testing.T) {
	root := testCID(t, "root")
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, 5000)
		ask := voucher.Ask{PricePerByte: voucher.Price(n.Draw(t, "price")), UnsealPrice: voucher.Atto(n.Draw(t, "unseal")),
			PaymentInterval: voucher.Bytes(1 + n.Draw(t, "interval")), PaymentIntervalIncrease: voucher.Bytes(n.Draw(t, "increase"))}
		p := voucher.Params{PricePerByte: voucher.Price(n.Draw(t, "p price")), UnsealPrice: voucher.Atto(n.Draw(t, "p unseal")),
			PaymentInterval: voucher.Bytes(n.Draw(t, "p interval")), PaymentIntervalIncrease: voucher.Bytes(n.Draw(t, "p increase"))}
		if Check(Offer{Ask: ask}, voucher.DealProposal{PayloadCID: root, Params: p}, root, nil) != nil {
			return
		}
		size := voucher.Bytes(rapid.Uint64Range(0, 1<<30).Draw(t, "size"))
		if p.Terms().Cost(size).Less(ask.Terms().Cost(size)) {
			t.Fatalf("%+v costs less than %+v", p, ask)
		}
		k := rapid.Uint64Range(1, 100).Draw(t, "k")
		if p.PricePerByte != 0 && ask.PricePerByte != 0 && revalidator.Boundary(p.Terms(), k) > revalidator.Boundary(ask.Terms(), k) {
			t.Fatalf("%+v pays later than %+v", p, ask)
		}
		if p.PricePerByte != 0 && p.PaymentInterval == 0 {
			t.Fatalf("a paid deal without an interval passed: %+v", p)
		}
	})
}
