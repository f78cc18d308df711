package voucher

import (
	"strconv"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	cid "github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

// The types under which the three messages of a deal ride as vouchers and
// voucher results of go-data-transfer.
const (
	ProposalType = "RetrievalDealProposal/1"
	ResponseType = "RetrievalDealResponse/1"
	PaymentType  = "RetrievalDealPayment/1"
)

// MaxMessage is the length in bytes of the longest text that a message carries.
const MaxMessage = 8192

// DealID identifies a deal among those of one client. It is chosen by the
// client, and it is unique only together with the client's peer ID. Peers of
// the older generation read it as a signed number: stay below 2^63.
type DealID uint64

// Params are what a client asks for and offers. A DealProposal carries them.
type Params struct {
	Selector                datamodel.Node // nil is null on the wire and means the whole DAG
	PieceCID                *cid.Cid       // nil if any piece will do
	PricePerByte            Price
	PaymentInterval         Bytes
	PaymentIntervalIncrease Bytes
	UnsealPrice             Amount
}

// Terms returns the price in p.
func (p Params) Terms() Terms {
	return Terms{
		Unseal: p.UnsealPrice, Price: p.PricePerByte,
		Interval: p.PaymentInterval, Increase: p.PaymentIntervalIncrease,
	}
}

// DealProposal opens a deal: the first voucher of a data transfer.
type DealProposal struct {
	PayloadCID cid.Cid
	ID         DealID
	Params     Params
}

// DealResponse tells a client how its deal stands. PaymentOwed is what the
// provider claims; a client computes what it owes itself. Message is text for
// people, at most MaxMessage bytes; a refusal's begins with its code (see
// Refusal). It is not necessarily valid UTF-8.
type DealResponse struct {
	Status      DealStatus
	ID          DealID
	PaymentOwed Amount
	Message     string
}

// SignedVoucher is a payment on a lane of a Filecoin payment channel. Its
// amount is cumulative per lane.
type SignedVoucher = paych.SignedVoucher

// DealPayment pays for a deal. PaymentVoucher is never nil in a decoded one.
type DealPayment struct {
	ID             DealID
	PaymentChannel address.Address
	PaymentVoucher *SignedVoucher
}

// DealStatus is the state of a deal as told to the other side. The numbers are
// on the wire; one that is not listed here is carried as it is.
type DealStatus uint64

// The states of a deal. Of these a provider sends Accepted, FundsNeededUnseal,
// Rejected, FundsNeeded, FundsNeededLastPayment, Completed, DealNotFound,
// Errored and Cancelled; the others are one side's own.
const (
	DealStatusNew DealStatus = iota
	DealStatusUnsealing
	DealStatusUnsealed
	DealStatusWaitForAcceptance
	DealStatusPaymentChannelCreating
	DealStatusPaymentChannelAddingFunds
	DealStatusAccepted
	DealStatusFundsNeededUnseal
	DealStatusFailing
	DealStatusRejected
	DealStatusFundsNeeded
	DealStatusSendFunds
	DealStatusSendFundsLastPayment
	DealStatusOngoing
	DealStatusFundsNeededLastPayment
	DealStatusCompleted
	DealStatusDealNotFound
	DealStatusErrored
	DealStatusBlocksComplete
	DealStatusFinalizing
	DealStatusCompleting
	DealStatusCheckComplete
	DealStatusCheckFunds
	DealStatusInsufficientFunds
	DealStatusPaymentChannelAllocatingLane
	DealStatusCancelling
	DealStatusCancelled
	DealStatusRetryLegacy
	DealStatusWaitForAcceptanceLegacy
	DealStatusClientWaitingForLastBlocks
	DealStatusPaymentChannelAddingInitialFunds
	DealStatusErroring
	DealStatusRejecting
	DealStatusDealNotFoundCleanup
	DealStatusFinalizingBlockstore
)

var dealStatusNames = [...]string{
	"New", "Unsealing", "Unsealed", "WaitForAcceptance", "PaymentChannelCreating",
	"PaymentChannelAddingFunds", "Accepted", "FundsNeededUnseal", "Failing", "Rejected",
	"FundsNeeded", "SendFunds", "SendFundsLastPayment", "Ongoing", "FundsNeededLastPayment",
	"Completed", "DealNotFound", "Errored", "BlocksComplete", "Finalizing",
	"Completing", "CheckComplete", "CheckFunds", "InsufficientFunds", "PaymentChannelAllocatingLane",
	"Cancelling", "Cancelled", "RetryLegacy", "WaitForAcceptanceLegacy", "ClientWaitingForLastBlocks",
	"PaymentChannelAddingInitialFunds", "Erroring", "Rejecting", "DealNotFoundCleanup", "FinalizingBlockstore",
}

// String returns the name of s without its prefix, or its number.
func (s DealStatus) String() string {
	if s < DealStatus(len(dealStatusNames)) {
		return dealStatusNames[s]
	}
	return "DealStatus(" + strconv.FormatUint(uint64(s), 10) + ")"
}
