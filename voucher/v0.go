package voucher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// DealProtocolV0 carries a whole deal on one libp2p stream: a ProposalV0, then
// ResponseV0s with the blocks in them and DealPayments the other way. Messages
// are CBOR tuples without a length before them; ReaderV0 reads them. Source: the
// first Filecoin retrieval market, until July 2020.
const DealProtocolV0 = "/fil/retrieval/0.0.1"

// What one message of DealProtocolV0 holds at most. Decoders of that time take no
// more of either.
const (
	MaxBlockV0  = 2 << 20 // bytes of one block
	MaxBlocksV0 = 8192    // blocks of one response
)

const (
	maxPrefix    = 64       // bytes; a prefix is four varints
	maxPaymentV0 = 16 << 10 // bytes; a payment that is accepted has about 200
)

// Block is a block in bitswap's form: the prefix of its CID (version, codec,
// hash function, length of the hash) and its data.
type Block struct {
	Prefix []byte
	Data   []byte
}

// BlockOf returns the block c with data, which is not copied.
func BlockOf(c cid.Cid, data []byte) Block { return Block{c.Prefix().Bytes(), data} }

// ErrWrongBlock is wrapped by the error of Block.Verify.
var ErrWrongBlock = errors.New("not the block that comes next")

// Verify reports whether b is the block c: same prefix, and data that hashes to
// it. The hash function is c's, which must not come from the one who sent b.
func (b Block) Verify(c cid.Cid) error {
	prefix := c.Prefix()
	if !bytes.Equal(b.Prefix, prefix.Bytes()) {
		return fmt.Errorf("%w: prefix %x instead of that of %s", ErrWrongBlock, b.Prefix, c)
	}
	got, err := prefix.Sum(b.Data)
	if err != nil {
		return fmt.Errorf("%w: hash %s: %w", ErrWrongBlock, c, err)
	}
	if !got.Equals(c) {
		return fmt.Errorf("%w: %s instead of %s", ErrWrongBlock, got, c)
	}
	return nil
}

// ProposalV0 opens a stream of DealProtocolV0. The seed's form has neither Once
// nor Skip: the block of every link of the walk is sent, from the root on, also
// one that was sent before. Once asks for each block once, and for none of the
// first Skip links, and is said with a fourth field. A provider of the first kind
// refuses a tuple of four: use it only where SkipProtocolV0 is spoken.
//
// UnsealPrice is not carried, and must be zero.
type ProposalV0 struct {
	DealProposal
	Once bool
	Skip uint64 // 0 without Once
}

// SkipProtocolV0 is DealProtocolV0 spoken by those who know ProposalV0.Once.
const SkipProtocolV0 = "/tollgraph/retrieval-skip/0.0.1"

// MarshalCBOR returns p as a tuple of three fields, or four with Once.
func (p ProposalV0) MarshalCBOR() ([]byte, error) {
	w := writer{what: "proposal 0.0.1"}
	if !p.Params.UnsealPrice.IsZero() {
		w.fail("Params", errors.New("an unseal price is not carried"))
	}
	params := writer{what: "proposal 0.0.1.Params"}
	params.any("Selector", p.Params.Selector)
	params.optLink("PieceCID", p.Params.PieceCID)
	params.price("PricePerByte", p.Params.PricePerByte)
	params.uint("PaymentInterval", uint64(p.Params.PaymentInterval))
	params.uint("PaymentIntervalIncrease", uint64(p.Params.PaymentIntervalIncrease))
	w.link("PayloadCID", p.PayloadCID)
	w.uint("ID", uint64(p.ID))
	inner, err := params.asTuple()
	w.sub("Params", inner, err)
	if p.Once {
		w.uint("Skip", p.Skip)
	}
	return marshal(w.asTuple())
}

// UnmarshalProposalV0 reads what MarshalCBOR writes. It does not look into the
// selector. The error wraps ErrMalformed.
func UnmarshalProposalV0(b []byte) (ProposalV0, error) {
	n, err := UnmarshalNode(b)
	if err != nil {
		return ProposalV0{}, err
	}
	p := ProposalV0{Once: n.Kind() == datamodel.Kind_List && n.Length() == 4}
	keys := []string{"PayloadCID", "ID", "Params", "Skip"}
	if !p.Once {
		keys = keys[:3]
	}
	r := readTuple("proposal 0.0.1", n, keys...)
	p.PayloadCID, p.ID = r.link("PayloadCID"), DealID(r.uint("ID"))
	if p.Once {
		p.Skip = r.uint("Skip")
	}
	inner := r.get("Params", datamodel.Kind_List)
	if err := r.finish(); err != nil {
		return ProposalV0{}, err
	}
	in := readTuple("proposal 0.0.1.Params", inner,
		"Selector", "PieceCID", "PricePerByte", "PaymentInterval", "PaymentIntervalIncrease")
	p.Params = Params{
		Selector: in.any("Selector"), PieceCID: in.optLink("PieceCID"), PricePerByte: in.price("PricePerByte"),
		PaymentInterval: in.size("PaymentInterval"), PaymentIntervalIncrease: in.size("PaymentIntervalIncrease"),
	}
	if err := in.finish(); err != nil {
		return ProposalV0{}, err
	}
	return p, nil
}

// MarshalTuple returns p as a stream of DealProtocolV0 carries it.
func (p DealPayment) MarshalTuple() ([]byte, error) { return marshal(Tuples.EncodePayment(p)) }

// UnmarshalDealPaymentV0 reads what MarshalTuple writes. No signature is
// checked. The error wraps ErrMalformed.
func UnmarshalDealPaymentV0(b []byte) (DealPayment, error) {
	n, err := UnmarshalNode(b)
	if err != nil {
		return DealPayment{}, err
	}
	return readPayment(readTuple("payment 0.0.1", n, paymentKeys...))
}

// ResponseV0 tells a client how its deal stands, with the blocks that come next
// in its walk.
type ResponseV0 struct {
	DealResponse
	Blocks []Block
}

// fromV0 are the states that a provider says, by their numbers in
// DealProtocolV0 as its last users had them. 7 is "failed".
var fromV0 = map[uint64]DealStatus{
	6: DealStatusAccepted, 7: DealStatusErrored, 8: DealStatusRejected, 9: DealStatusFundsNeeded,
	10: DealStatusOngoing, 11: DealStatusFundsNeededLastPayment, 12: DealStatusCompleted, 13: DealStatusDealNotFound,
	15: DealStatusErrored, 16: DealStatusBlocksComplete, 17: DealStatusFinalizing,
}

// toV0 are the numbers under which a provider says its states. A deal that was
// cancelled, which nobody could do then, is one that failed.
var toV0 = map[DealStatus]uint64{
	DealStatusAccepted: 6, DealStatusRejected: 8, DealStatusFundsNeeded: 9, DealStatusOngoing: 10,
	DealStatusFundsNeededLastPayment: 11, DealStatusCompleted: 12, DealStatusDealNotFound: 13,
	DealStatusErrored: 15, DealStatusCancelled: 15, DealStatusBlocksComplete: 16, DealStatusFinalizing: 17,
}

// MarshalCBOR returns r as a tuple of five. A status that a provider does not
// say, more than MaxBlocksV0 blocks and a block above MaxBlockV0 are errors.
func (r ResponseV0) MarshalCBOR() ([]byte, error) {
	w := writer{what: "response 0.0.1"}
	status, ok := toV0[r.Status]
	switch {
	case !ok:
		w.fail("Status", fmt.Errorf("%s is not said", r.Status))
	case len(r.Blocks) > MaxBlocksV0:
		w.fail("Blocks", fmt.Errorf("%d of them, %d at most", len(r.Blocks), MaxBlocksV0))
	}
	w.uint("Status", status)
	w.uint("ID", uint64(r.ID))
	w.amount("PaymentOwed", r.PaymentOwed)
	w.text("Message", r.Message)
	head, err := marshal(w.asTuple())
	if err != nil {
		return nil, err
	}
	size := len(head) + 9
	for _, b := range r.Blocks {
		if len(b.Prefix) > maxPrefix || len(b.Data) > MaxBlockV0 {
			return nil, fmt.Errorf("encode response 0.0.1.Blocks: prefix of %d and block of %d bytes, %d and %d at most",
				len(b.Prefix), len(b.Data), maxPrefix, MaxBlockV0)
		}
		size += 19 + len(b.Prefix) + len(b.Data)
	}
	out := append(make([]byte, 0, size), head...)
	out[0]++ // one field more
	out = appendHead(out, 4, len(r.Blocks))
	for _, b := range r.Blocks {
		out = appendHead(out, 4, 2)
		out = append(appendHead(out, 2, len(b.Prefix)), b.Prefix...)
		out = append(appendHead(out, 2, len(b.Data)), b.Data...)
	}
	return out, nil
}

// appendHead appends the head of a CBOR item in its shortest form.
func appendHead(b []byte, major byte, n int) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
}
