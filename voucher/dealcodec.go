package voucher

import (
	"errors"

	"github.com/ipld/go-ipld-prime/datamodel"
)

// Encode returns p as it is on the wire: a map with every field, null for what
// is nil. The error says which field cannot be written.
func (p DealProposal) Encode() (datamodel.Node, error) {
	params := writer{what: "deal proposal.Params"}
	params.any("Selector", p.Params.Selector)
	params.optLink("PieceCID", p.Params.PieceCID)
	params.price("PricePerByte", p.Params.PricePerByte)
	params.uint("PaymentInterval", uint64(p.Params.PaymentInterval))
	params.uint("PaymentIntervalIncrease", uint64(p.Params.PaymentIntervalIncrease))
	params.amount("UnsealPrice", p.Params.UnsealPrice)
	inner, err := params.asMap()
	if err != nil {
		return nil, err
	}

	w := writer{what: "deal proposal"}
	w.link("PayloadCID", p.PayloadCID)
	w.uint("ID", uint64(p.ID))
	w.node("Params", inner)
	return w.asMap()
}

// DecodeDealProposal reads a proposal from n, in any key order. It does not look
// into the selector, whose depth and size are bounded by nothing but the
// decoder of n. The error wraps ErrMalformed.
func DecodeDealProposal(n datamodel.Node) (DealProposal, error) {
	r := readMap("deal proposal", n, "PayloadCID", "ID", "Params")
	p := DealProposal{PayloadCID: r.link("PayloadCID"), ID: DealID(r.uint("ID"))}
	inner := r.get("Params", datamodel.Kind_Map)
	if err := r.finish(); err != nil {
		return DealProposal{}, err
	}
	in := readMap("deal proposal.Params", inner, "Selector", "PieceCID", "PricePerByte",
		"PaymentInterval", "PaymentIntervalIncrease", "UnsealPrice")
	p.Params = Params{
		Selector: in.any("Selector"), PieceCID: in.optLink("PieceCID"),
		PricePerByte:            in.price("PricePerByte"),
		PaymentInterval:         Bytes(in.uint("PaymentInterval")),
		PaymentIntervalIncrease: Bytes(in.uint("PaymentIntervalIncrease")),
		UnsealPrice:             in.amount("UnsealPrice"),
	}
	if err := in.finish(); err != nil {
		return DealProposal{}, err
	}
	return p, nil
}

// Encode returns d as it is on the wire. A Message above MaxMessage bytes is an
// error.
func (d DealResponse) Encode() (datamodel.Node, error) {
	w := writer{what: "deal response"}
	w.uint("Status", uint64(d.Status))
	w.uint("ID", uint64(d.ID))
	w.amount("PaymentOwed", d.PaymentOwed)
	w.text("Message", d.Message)
	return w.asMap()
}

// DecodeDealResponse reads an answer from n, in any key order. The error wraps
// ErrMalformed.
func DecodeDealResponse(n datamodel.Node) (DealResponse, error) {
	r := readMap("deal response", n, "Status", "ID", "PaymentOwed", "Message")
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
	return readPayment(readMap("deal payment", n, "ID", "PaymentChannel", "PaymentVoucher"))
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
