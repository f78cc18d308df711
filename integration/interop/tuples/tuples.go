// Package tuples has the messages of the retrieval market in the form that they
// had from July 2020 until maps took its place: each struct is the CBOR array of its
// fields, and one that is embedded an array in its place. What reads and writes them
// is generated, as the peers of that time had it generated, so that it knows nothing
// of the codec that it is compared with.
package tuples

//go:generate go run ./gen

import (
	"github.com/filecoin-project/go-address"
	rt "github.com/filecoin-project/go-retrieval-types"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// The types under which the messages of a deal rode as vouchers.
const (
	ProposalType = "RetrievalDealProposal"
	ResponseType = "RetrievalDealResponse"
	PaymentType  = "RetrievalDealPayment"
)

// Piece is what a query asks of beside the payload.
type Piece struct {
	CID *cid.Cid
}

// Query is what /fil/retrieval/qry/0.0.1 asks.
type Query struct {
	Payload cid.Cid
	Piece
}

// Answer is what it answers.
type Answer struct {
	Status           rt.QueryResponseStatus
	Piece            rt.QueryItemStatus
	Size             uint64
	PayTo            address.Address
	PricePerByte     abi.TokenAmount
	Interval         uint64
	IntervalIncrease uint64
	Message          string
	UnsealPrice      abi.TokenAmount
}

// Terms are those of a proposal.
type Terms struct {
	Selector         *cbg.Deferred
	Piece            *cid.Cid
	PricePerByte     abi.TokenAmount
	Interval         uint64
	IntervalIncrease uint64
	UnsealPrice      abi.TokenAmount
}

// Proposal begins a deal.
type Proposal struct {
	Payload cid.Cid
	ID      rt.DealID
	Terms
}

// Response is a provider's word on a deal.
type Response struct {
	Status  rt.DealStatus
	ID      rt.DealID
	Owed    abi.TokenAmount
	Message string
}

// Payment pays for a deal.
type Payment struct {
	ID      rt.DealID
	Channel address.Address
	Voucher *paych.SignedVoucher
}
