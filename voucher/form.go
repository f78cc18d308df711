package voucher

import (
	"fmt"

	"github.com/ipld/go-ipld-prime/datamodel"
)

// Form is how the three messages of a deal are written as vouchers and voucher
// results of go-data-transfer. The type of a voucher says which it is.
type Form uint8

const (
	// Maps are the vouchers of ProposalType, ResponseType and PaymentType.
	Maps Form = iota
	// Tuples are those of the types without "/1", from July 2020 on. The fields are
	// the same.
	Tuples
)

// FormOf returns the form of a voucher type, and whether it is one of a deal's.
func FormOf(voucherType string) (Form, bool) {
	for f := Maps; f <= Tuples; f++ {
		if voucherType == f.ProposalType() || voucherType == f.ResponseType() || voucherType == f.PaymentType() {
			return f, true
		}
	}
	return Maps, false
}

// ProposalType is the type of a voucher that proposes a deal.
func (f Form) ProposalType() string { return f.name(ProposalType) }

// ResponseType is the type of a voucher result.
func (f Form) ResponseType() string { return f.name(ResponseType) }

// PaymentType is the type of a voucher that pays.
func (f Form) PaymentType() string { return f.name(PaymentType) }

func (f Form) name(versioned string) string {
	if f == Tuples {
		return versioned[:len(versioned)-len("/1")]
	}
	return versioned
}

// EncodeProposal is DealProposal.Encode in this form.
func (f Form) EncodeProposal(p DealProposal) (datamodel.Node, error) {
	if f == Tuples {
		inner, err := p.Params.write().asTuple()
		return p.write(inner, err).asTuple()
	}
	return p.Encode()
}

// DecodeProposal is DecodeDealProposal for this form.
func (f Form) DecodeProposal(n datamodel.Node) (DealProposal, error) {
	if f == Tuples {
		return readProposal(readTuple, datamodel.Kind_List, n)
	}
	return DecodeDealProposal(n)
}

// EncodeResponse is DealResponse.Encode in this form.
func (f Form) EncodeResponse(d DealResponse) (datamodel.Node, error) {
	if f == Tuples {
		return d.write().asTuple()
	}
	return d.Encode()
}

// DecodeResponse is DecodeDealResponse for this form.
func (f Form) DecodeResponse(n datamodel.Node) (DealResponse, error) {
	if f == Tuples {
		return readAnswer(readTuple("deal response", n, answerKeys...))
	}
	return DecodeDealResponse(n)
}

// EncodePayment is DealPayment.Encode in this form.
func (f Form) EncodePayment(p DealPayment) (datamodel.Node, error) {
	if f == Tuples {
		return p.write().asTuple()
	}
	return p.Encode()
}

// DecodePayment is DecodeDealPayment for this form.
func (f Form) DecodePayment(n datamodel.Node) (DealPayment, error) {
	if f == Tuples {
		return readPayment(readTuple("deal payment", n, paymentKeys...))
	}
	return DecodeDealPayment(n)
}

// String returns what the vouchers are.
func (f Form) String() string {
	switch f {
	case Maps:
		return "maps"
	case Tuples:
		return "tuples"
	}
	return fmt.Sprintf("Form(%d)", uint8(f))
}
