package retrievalmarket

import (
	"context"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

// The vocabulary of the market, which lives in voucher because it is said on
// the wire.
type (
	DealID              = voucher.DealID
	DealStatus          = voucher.DealStatus
	DealProposal        = voucher.DealProposal
	DealResponse        = voucher.DealResponse
	DealPayment         = voucher.DealPayment
	Params              = voucher.Params
	Query               = voucher.Query
	QueryParams         = voucher.QueryParams
	QueryResponse       = voucher.QueryResponse
	QueryResponseStatus = voucher.QueryResponseStatus
	QueryItemStatus     = voucher.QueryItemStatus
	SignedVoucher       = voucher.SignedVoucher
	Bytes               = voucher.Bytes
	Amount              = voucher.Amount
	Price               = voucher.Price
)

// RetrievalPeer is a provider: where it listens, and where it is paid, which
// the query fills in if it is undefined.
type RetrievalPeer struct {
	peer.AddrInfo
	Address address.Address
}

// PeerResolver looks up providers that may have a payload.
type PeerResolver interface {
	GetPeers(ctx context.Context, payload cid.Cid) ([]RetrievalPeer, error)
}

// RetrievalClientNode pays. CreatePaymentVoucher is the only place of a client
// that signs: it is durable before it returns, refuses what is above the
// lane's budget, and returns the same voucher for the same amount.
type RetrievalClientNode interface {
	// GetOrCreatePaymentChannel returns the channel from client to provider,
	// made if there is none, with at least funds to spend on it.
	GetOrCreatePaymentChannel(ctx context.Context, client, provider address.Address, funds Amount) (address.Address, error)
	// AllocateLane opens a fresh lane that may carry at most budget. It is durable
	// no later than what is written durably next on the client's database.
	AllocateLane(ctx context.Context, channel address.Address, budget Amount) (uint64, error)
	// SetLaneBudget changes what a lane may carry.
	SetLaneBudget(ctx context.Context, channel address.Address, lane uint64, budget Amount) error
	// CreatePaymentVoucher signs for a cumulative amount on a lane.
	CreatePaymentVoucher(ctx context.Context, channel address.Address, amount Amount, lane uint64) (*SignedVoucher, error)
}

// RetrievalProviderNode is paid.
type RetrievalProviderNode interface {
	// SavePaymentVoucher verifies a voucher and keeps it, durably, before it
	// returns the total that its lane is worth now. A voucher that was saved
	// before, or an older one, changes nothing and is no error.
	SavePaymentVoucher(ctx context.Context, channel address.Address, v *SignedVoucher, proof []byte, expected Amount) (Amount, error)
}

// Transfers is what the market asks of go-data-transfer. A
// datatransfer.Manager is one; wrap it with transport.WrapManager.
type Transfers interface {
	RegisterVoucherType(datatransfer.TypeIdentifier, datatransfer.RequestValidator) error
	RegisterTransportConfigurer(datatransfer.TypeIdentifier, datatransfer.TransportConfigurer) error
	SubscribeToEvents(datatransfer.Subscriber) datatransfer.Unsubscribe
	OpenPullDataChannel(ctx context.Context, to peer.ID, v datatransfer.TypedVoucher, root cid.Cid, sel datamodel.Node, opts ...datatransfer.TransferOption) (datatransfer.ChannelID, error)
	RestartDataTransferChannel(context.Context, datatransfer.ChannelID) error
	SendVoucher(context.Context, datatransfer.ChannelID, datatransfer.TypedVoucher) error
	UpdateValidationStatus(context.Context, datatransfer.ChannelID, datatransfer.ValidationResult) error
	CloseDataTransferChannel(context.Context, datatransfer.ChannelID) error
}

// UseStore makes the transport option that gives a channel its own blocks.
// transport.UseStore is one.
type UseStore func(ipld.LinkSystem) datatransfer.TransportOption

// Progress is what crossed the wire for a channel, as metered below
// data-transfer. It is transport.Progress, which says what each field counts.
type Progress struct {
	SkipLinks int64  // leading links the client asked to leave out
	Skipped   uint64 // unique block bytes left out so far because of it
	Sent      uint64 // block bytes put on the wire, re-sent ones included
	Resent    uint64 // the part of Sent that was sent again
	Written   uint64 // the part of Sent that left the node
	Latest    uint64 // the part of Sent that the latest request sent
	Links     int64  // index of the last link traversed
	High      int64  // index of the furthest link whose block was sent
	Begun     bool   // whether any request has put a block on the wire
	Base      uint64 // what the first of them had Skipped
	Reached   uint64 // unique block bytes up to the furthest point reached
	Started   bool   // whether the latest request put a block on the wire
	Requests  int    // requests that the channel had
	Repeats   int64  // links to blocks passed before that the latest request followed
	Endless   bool   // whether it was stopped because of them
	Outside   bool   // whether a request was stopped because it went where Bound lets none go
}

// Meter reads the progress of a channel; false if it is not known.
type Meter func(datatransfer.ChannelID) (Progress, bool)

// Bound says which bytes of its traversal a channel may be sent, whatever data-transfer
// lets it do: none before from, and two blocks when size bytes are reached; no request
// begins more than held bytes behind from, and a negative from is where the channel's
// first block begins. transport.Exchange.Bound is one.
type Bound func(chid datatransfer.ChannelID, from int64, size, held uint64)

// Hold makes the latest request of a channel stand still behind a link, by its
// index, so that nothing new is sent, and lets it go with 0. It must not block:
// it is called while graphsync waits.
type Hold func(chid datatransfer.ChannelID, link int64)

// Store is where a client keeps the blocks of one DAG. piece.Partial is one.
type Store interface {
	// LinkSystem reads what is held and appends what arrives. The market adds what
	// UnixFS needs.
	LinkSystem() ipld.LinkSystem
	// Written counts the block bytes ever appended.
	Written() uint64
	// Once says that from now on a block that was appended when Written was since or
	// more is not appended again. A deal that began then pays for it once, however
	// often the provider sends it.
	Once(since uint64) error
	// Sync makes what was appended durable and returns how much of Written is.
	Sync() (uint64, error)
	Close() error
}

// Stores opens a client's store for a root. A store is open in one place at a
// time.
type Stores interface {
	Open(ctx context.Context, root cid.Cid) (Store, error)
}

// Piece is one of a provider's pieces as the market sees it.
type Piece struct {
	ID     cid.Cid
	Size   Bytes
	Sealed bool // unsealing must come before serving
}

// Pieces is what a provider has to sell.
type Pieces interface {
	// Find returns a piece that holds payload; want narrows it to one piece.
	// It must answer from memory: it runs while graphsync waits.
	Find(payload cid.Cid, want *cid.Cid) (Piece, bool)
	// LinkSystem reads the blocks of a piece. The market adds what UnixFS needs.
	LinkSystem(piece cid.Cid) ipld.LinkSystem
	// BlockSize tells the size of a block without reading it.
	BlockSize(cid.Cid) (uint64, bool)
	// Unseal makes a sealed piece readable. It may take hours.
	Unseal(ctx context.Context, piece cid.Cid) error
}

// Unsubscribe ends a subscription. It may be called more than once.
type Unsubscribe func()

// ClientEvent is what happened to a client's deal.
type ClientEvent uint64

// The events of a client's deal.
const (
	ClientEventOpen          ClientEvent = iota // the deal was begun
	ClientEventFundsExpended                    // it waits for add-funds
	ClientEventProgress                         // bytes or money moved, or it was resumed
	ClientEventError                            // it ended without all that was asked for
	ClientEventComplete                         // everything is here and paid
)

// ProviderEvent is what happened to a provider's deal.
type ProviderEvent uint64

// The events of a provider's deal.
const (
	ProviderEventOpen ProviderEvent = iota
	ProviderEventProgress
	ProviderEventError
	ProviderEventComplete
)

// ClientSubscriber is told of every change of a client's deals. It may be
// slow: changes that it misses are merged, the last state of a deal is not.
type ClientSubscriber func(ClientEvent, ClientDealState)

// ProviderSubscriber is told of every change of a provider's deals.
type ProviderSubscriber func(ProviderEvent, ProviderDealState)

// ProviderDealID is a deal at a provider: the id is unique to the client only.
type ProviderDealID struct {
	From peer.ID
	ID   DealID
}

// ClientDealState is a client's deal for people and programs to look at.
type ClientDealState struct {
	DealProposal
	Status         DealStatus
	Message        string // why it waits or ended
	Sender         peer.ID
	Whole          cid.Cid // the root that was asked for, of which the deal may fetch a part
	TotalReceived  Bytes   // verified and counted in this deal
	Expected       Bytes   // quoted; 0 if it was not
	FundsSpent     Amount
	SpentBefore    Amount // by earlier deals of the same order
	TotalFunds     Amount // the budget of the order: of all its deals together
	Order          DealID // the id of the order's first deal
	More           bool   // it has ended, and another is to follow it in the order
	Payments       int
	Stalls         int // times the transfer stood still for money, the first boundary not counted
	PaymentChannel address.Address
	Lane           uint64
	Created        time.Time
	Updated        time.Time
	FirstByte      time.Duration // after Created; 0 until then
	Err            error         // why the deal failed; nil otherwise, and nil for deals read from disk
}

// ProviderDealState is a provider's deal for people and programs to look at.
type ProviderDealState struct {
	DealProposal
	Status         DealStatus
	Message        string
	Receiver       peer.ID
	TotalSent      Bytes // charged: each block once per deal
	FundsReceived  Amount
	PaymentChannel address.Address
	Lane           uint64
	Created        time.Time
	Updated        time.Time
}
