package voucher

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/ipld/go-ipld-prime/datamodel"
)

func inTuples[T any](name, hex string, m T, encode func(T) (datamodel.Node, error), decode func(datamodel.Node) (T, error)) vector {
	return vector{name, hex, m, func() ([]byte, error) { return marshal(encode(m)) }, decoder(decode)}
}

// tupleVectors are the vouchers from before "/1".
func tupleVectors(t testing.TB) []vector {
	c := hello(t)
	terms := "4200021a001000001a0010000040"
	propose := func(name, hex string, p DealProposal) vector {
		return inTuples(name, hex, p, Tuples.EncodeProposal, Tuples.DecodeProposal)
	}
	answer := func(name, hex string, d DealResponse) vector {
		return inTuples(name, hex, d, Tuples.EncodeResponse, Tuples.DecodeResponse)
	}
	dear := DealProposal{PayloadCID: c, ID: math.MaxUint64, Params: Params{
		Selector: DefaultSelector(), PieceCID: &c, PricePerByte: math.MaxUint64, PaymentInterval: MaxBytes,
		PaymentIntervalIncrease: MaxBytes, UnsealPrice: MaxAmount,
	}}
	return []vector{
		propose("tuple proposal, explore all", "83"+helloLink+"0186"+exploreAll+"f6"+terms, proposal(t, DefaultSelector())),
		propose("tuple proposal, null selector", "83"+helloLink+"0186f6f6"+terms, proposal(t, nil)),
		propose("tuple proposal, largest", "83"+helloLink+maxUint+"86"+exploreAll+helloLink+maxPrice+maxUint+maxUint+maxFunds, dear),
		propose("tuple proposal, free", "83"+helloLink+"0086f6f640000040", DealProposal{PayloadCID: c}),
		answer("tuple response, accepted", "8406014060", DealResponse{Status: DealStatusAccepted, ID: 1}),
		answer("tuple response, owed", "840a01440020000060", DealResponse{Status: DealStatusFundsNeeded, ID: 1, PaymentOwed: Atto(2097152)}),
		answer("tuple response, rejected", "8409014062"+"6e6f", DealResponse{Status: DealStatusRejected, ID: 1, Message: "no"}),
		inTuples("tuple payment", "830155"+channelHex+voucherHex+"584201"+strings.Repeat("aa", 65),
			DealPayment{ID: 1, PaymentChannel: addr(t, channelHex), PaymentVoucher: payment(t, signature(1))}, Tuples.EncodePayment, Tuples.DecodePayment),
	}
}

// TestForms: each form has types of its own, and reads nothing of the other.
func TestForms(t *testing.T) {
	types := map[string]Form{}
	for f, want := range map[Form][3]string{
		Maps:   {"RetrievalDealProposal/1", "RetrievalDealResponse/1", "RetrievalDealPayment/1"},
		Tuples: {"RetrievalDealProposal", "RetrievalDealResponse", "RetrievalDealPayment"},
	} {
		if got := [3]string{f.ProposalType(), f.ResponseType(), f.PaymentType()}; got != want {
			t.Errorf("%s are of the types %q, want %q", f, got, want)
		}
		for _, name := range want {
			types[name] = f
		}
	}
	for name, want := range types {
		if f, ok := FormOf(name); !ok || f != want {
			t.Errorf("%q is of %s, %t", name, f, ok)
		}
	}
	for _, name := range []string{"", "RetrievalDeal", "RetrievalDealProposal/2", "retrievaldealproposal"} {
		if f, ok := FormOf(name); ok {
			t.Errorf("%q is of %s", name, f)
		}
	}
	for f, other := range map[Form]Form{Maps: Tuples, Tuples: Maps} {
		p, err := f.EncodeProposal(proposal(t, nil))
		if _, bad := other.DecodeProposal(p); err != nil || !errors.Is(bad, ErrMalformed) {
			t.Errorf("a proposal of %s is read as %s: %v, %v", f, other, err, bad)
		}
		r, err := f.EncodeResponse(DealResponse{ID: 1})
		if _, bad := other.DecodeResponse(r); err != nil || !errors.Is(bad, ErrMalformed) {
			t.Errorf("an answer of %s is read as %s: %v, %v", f, other, err, bad)
		}
		pay, err := f.EncodePayment(DealPayment{ID: 1, PaymentChannel: addr(t, channelHex), PaymentVoucher: payment(t, nil)})
		if _, bad := other.DecodePayment(pay); err != nil || !errors.Is(bad, ErrMalformed) {
			t.Errorf("a payment of %s is read as %s: %v, %v", f, other, err, bad)
		}
	}
}

func FuzzDealProposalTuple(f *testing.F) {
	fuzz(f, nodeDecoder(Tuples.DecodeProposal), func(p DealProposal) ([]byte, error) { return marshal(Tuples.EncodeProposal(p)) }, false)
}

func FuzzDealResponseTuple(f *testing.F) {
	fuzz(f, nodeDecoder(Tuples.DecodeResponse), func(d DealResponse) ([]byte, error) { return marshal(Tuples.EncodeResponse(d)) }, true)
}
