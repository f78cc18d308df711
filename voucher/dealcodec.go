package voucher

import (
	"errors"

	"github.com/ipld/go-ipld-prime/datamodel"
)

// Encode returns p as it is on the wire: a map with every field, null for what
// is nil. The error says which field cannot be written.
func (p DealProposal) Encode() (datamodel.Node, error) {
	inner, err := p.Params.write().asMap()
	return p.write(inner, err).asMap()
}

// write writes the fields of p, of which inner are the Params.
func (p DealProposal) write(inner datamodel.Node, err error) *writer {
	w := &writer{what: "deal proposal"}
	w.link("PayloadCID", p.PayloadCID)
	w.uint("ID", uint64(p.ID))
	w.sub("Params", inner, err)
	return w
}

func (p Params) write() *writer {
	w := &writer{what: "deal proposal.Params"}
	w.any("Selector", p.Selector)
	w.optLink("PieceCID", p.PieceCID)
	w.price("PricePerByte", p.PricePerByte)
	w.uint("PaymentInterval", uint64(p.PaymentInterval))
	w.uint("PaymentIntervalIncrease", uint64(p.PaymentIntervalIncrease))
	w.amount("UnsealPrice", p.UnsealPrice)
	return w
}

// The fields of a proposal and an answer, in the order of their tuples.
var (
	proposalKeys = []string{"PayloadCID", "ID", "Params"}
	paramsKeys   = []string{"Selector", "PieceCID", "PricePerByte", "PaymentInterval", "PaymentIntervalIncrease", "UnsealPrice"}
	answerKeys   = []string{"Status", "ID", "PaymentOwed", "Message"}
	paymentKeys  = []string{"ID", "PaymentChannel", "PaymentVoucher"}
)

// read reads a record with the fields keys: readMap or readTuple.
type read func(what string, n datamodel.Node, keys ...string) *reader

// DecodeDealProposal reads a proposal from n, in any key order. It does not look
// into the selector, whose depth and size are bounded by nothing but the
// decoder of n. The error wraps ErrMalformed.
func DecodeDealProposal(n datamodel.Node) (DealProposal, error) {
	return readProposal(readMap, datamodel.Kind_Map, n)
}

func readProposal(as read, kind datamodel.Kind, n datamodel.Node) (DealProposal, error) {
	r := as("deal proposal", n, proposalKeys...)
	p := DealProposal{PayloadCID: r.link("PayloadCID"), ID: DealID(r.uint("ID"))}
	inner := r.get("Params", kind)
	if err := r.finish(); err != nil {
		return DealProposal{}, err
	}
	in := as("deal proposal.Params", inner, paramsKeys...)
	p.Params = Params{
		Selector: in.any("Selector"), PieceCID: in.optLink("PieceCID"),
		PricePerByte:            in.price("PricePerByte"),
		PaymentInterval:         in.size("PaymentInterval"),
		PaymentIntervalIncrease: in.size("PaymentIntervalIncrease"),
		UnsealPrice:             in.amount("UnsealPrice"),
	}
	if err := in.finish(); err != nil {
		return DealProposal{}, err
	}
	return p, nil
}

// Encode returns d as it is on the wire. A Message above MaxMessage bytes is an
// error.
func (d DealResponse) Encode() (datamodel.Node, error) { return d.write().asMap() }

func (d DealResponse) write() *writer {
	w := &writer{what: "deal response"}
	w.uint("Status", uint64(d.Status))
	w.uint("ID", uint64(d.ID))
	w.amount("PaymentOwed", d.PaymentOwed)
	w.text("Message", d.Message)
	return w
}

// DecodeDealResponse reads an answer from n, in any key order. The error wraps
// ErrMalformed.
func DecodeDealResponse(n datamodel.Node) (DealResponse, error) {
	return readAnswer(readMap("deal response", n, answerKeys...))
}

func readAnswer(r *reader) (DealResponse, error) {
	d := DealResponse{
		Status: DealStatus(r.uint("Status")), ID: DealID(r.uint("ID")),
		PaymentOwed: r.amount("PaymentOwed"), Message: r.text("Message"),
	}
	if err := r.finish(); err != nil {
		return DealResponse{}, err
	}
	return d, nil
}

// Encode returns p as it is on the wire. The channel and the voucher must be
// there, the voucher's amount must be an Amount.
func (p DealPayment) Encode() (datamodel.Node, error) { return p.write().asMap() }

func (p DealPayment) write() *writer {
	w := &writer{what: "deal payment"}
	w.uint("ID", uint64(p.ID))
	w.address("PaymentChannel", p.PaymentChannel)
	if p.PaymentVoucher == nil {
		w.fail("PaymentVoucher", errors.New("missing"))
	} else {
		n, err := EncodeSignedVoucher(p.PaymentVoucher)
		w.sub("PaymentVoucher", n, err)
	}
	return w
}

// DecodeDealPayment reads a payment from n, in any key order. A null voucher is
// an error. No signature is checked. The error wraps ErrMalformed.
func DecodeDealPayment(n datamodel.Node) (DealPayment, error) {
	return readPayment(readMap("deal payment", n, paymentKeys...))
}

func readPayment(r *reader) (DealPayment, error) {
	p := DealPayment{ID: DealID(r.uint("ID")), PaymentChannel: r.address("PaymentChannel")}
	v := r.get("PaymentVoucher", datamodel.Kind_List)
	if err := r.finish(); err != nil {
		return DealPayment{}, err
	}
	var err error
	if p.PaymentVoucher, err = DecodeSignedVoucher(v); err != nil {
		return DealPayment{}, err
	}
	return p, nil
}
