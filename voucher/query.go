package voucher

import (
	"strconv"

	"github.com/filecoin-project/go-address"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// The libp2p protocols of a query: one Query, one QueryResponse. The first
// carries maps (MarshalCBORMap), the second, older one tuples (MarshalTuple).
const (
	QueryProtocol   = "/fil/retrieval/qry/1.0.0"
	QueryProtocolV0 = "/fil/retrieval/qry/0.0.1"
)

// QueryParams narrow a Query. All fields are optional. Only PieceCID is known
// to peers of the older generation; the other fields are on the wire only when
// set, and not at all in a tuple.
type QueryParams struct {
	PieceCID                   *cid.Cid       // only this piece
	Selector                   datamodel.Node // only this part of the payload; nil is all of it
	MaxPricePerByte            *Price         // not interested if more expensive
	MinPaymentInterval         Bytes          // not interested if shorter
	MinPaymentIntervalIncrease Bytes          // not interested if smaller
}

// Query asks a provider what it has of a payload and what it charges.
type Query struct {
	PayloadCID  cid.Cid
	QueryParams QueryParams
}

// QueryResponseStatus says whether a deal on the payload is possible.
type QueryResponseStatus uint64

// The answers to a Query.
const (
	QueryResponseAvailable   QueryResponseStatus = iota // the provider has it and sells it
	QueryResponseUnavailable                            // it does not have it, or does not sell it
	QueryResponseError                                  // it could not tell; Message says why
)

// String returns s in lower case, or its number.
func (s QueryResponseStatus) String() string {
	return name(uint64(s), "available", "unavailable", "error")
}

// QueryItemStatus says whether the part of a piece asked for is there.
type QueryItemStatus uint64

// The answers about a part of a piece.
const (
	QueryItemAvailable   QueryItemStatus = iota // it is there
	QueryItemUnavailable                        // it is not there, or cannot be served
	QueryItemUnknown                            // the provider cannot tell
)

// String returns s in lower case, or its number.
func (s QueryItemStatus) String() string {
	return name(uint64(s), "available", "unavailable", "unknown")
}

func name(n uint64, names ...string) string {
	if n < uint64(len(names)) {
		return names[n]
	}
	return strconv.FormatUint(n, 10)
}

// QueryResponse answers a Query. It binds nobody: the price may have changed
// when the deal is proposed. The fields behind UnsealPrice are on the wire only
// when set, and not at all in a tuple; peers of the older generation ignore them.
type QueryResponse struct {
	Status                     QueryResponseStatus
	PieceCIDFound              QueryItemStatus
	Size                       Bytes           // of the whole piece
	PaymentAddress             address.Address // who is to be paid; may be Undef
	MinPricePerByte            Price
	MaxPaymentInterval         Bytes
	MaxPaymentIntervalIncrease Bytes
	Message                    string // for people, at most MaxMessage bytes
	UnsealPrice                Amount

	PayloadCIDFound     *QueryItemStatus // is the payload in the piece
	SelectorFound       *QueryItemStatus // are all the blocks of the selection there
	ExpectedPayloadSize *Bytes           // exact unique block bytes of PayloadCID and Selector
	ExpectedBlocks      *uint64          // how many blocks these are
	CreditLine          *Amount          // what the provider lends an unknown payer on account
}

// Ask returns the price in q.
func (q QueryResponse) Ask() Ask {
	return Ask{
		PricePerByte: q.MinPricePerByte, UnsealPrice: q.UnsealPrice,
		PaymentInterval: q.MaxPaymentInterval, PaymentIntervalIncrease: q.MaxPaymentIntervalIncrease,
	}
}

// PieceRetrievalPrice returns what the whole piece costs, unsealing included.
func (q QueryResponse) PieceRetrievalPrice() Amount { return q.Ask().Terms().Cost(q.Size) }

// PayloadRetrievalPrice returns what the payload and selection that were asked
// about cost, unsealing included, and false if the provider did not say how
// large they are.
func (q QueryResponse) PayloadRetrievalPrice() (Amount, bool) {
	if q.ExpectedPayloadSize == nil {
		return Amount{}, false
	}
	return q.Ask().Terms().Cost(*q.ExpectedPayloadSize), true
}
