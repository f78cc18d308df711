package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// ProviderConfig configures a Provider.
type ProviderConfig struct {
	Host      host.Host             // required; not closed by Close
	Transfers Transfers             // nil to sell by voucher.DealProtocolV0 only
	UseStore  UseStore              // required with Transfers
	Pieces    Pieces                // required
	Node      RetrievalProviderNode // required if anything costs money
	DB        *sql.DB               // required; see OpenDatabase
	PayTo     address.Address       // who is paid; required if anything costs money

	// Ask is what is charged until SetPricePerByte and its siblings change it.
	// The unseal price is only asked for sealed pieces. The zero Ask is free.
	Ask voucher.Ask
	// Pricing, if set, overrides Ask for a client and a payload. It must answer
	// from memory.
	Pricing func(PricingInput) voucher.Ask
	// Meter enables resumption of deals across channels. Without it, a channel
	// that breaks ends its deal's account, and the client proposes a new deal.
	Meter Meter
	// Hold belongs to Meter. Without it, a client that owes is not sent again what
	// was lost on the way, and has to make a new deal.
	Hold Hold
	// Bound belongs to Meter. Without it, a client that knows how data-transfer counts
	// can come back for what it left out, and is sent it for nothing.
	Bound Bound
	// Proven, if set, hears of clients that paid for something or took what is free, so
	// that requests of others may wait behind theirs. transport.Exchange.Prove is one.
	Proven func(peer.ID)
	// Pace, if set, is asked before blocks go on a stream, and returns when so many
	// bytes may be sent to a peer. transport.Egress.Wait is one.
	Pace func(ctx context.Context, to peer.ID, bytes int) error
	// Client is a Client on the same Transfers, if there is one.
	Client *Client
	// Credit is how many bytes may run beyond each boundary. Default 0.
	Credit voucher.Bytes
	// EarnedCredit is how many bytes more may run beyond each boundary of a deal whose
	// client has paid for 32 times as many in deals that are over; it is lent less if it
	// has paid for less, and all its deals at a time share what it has earned. So the
	// deals of a client that comes again do not stand still for the first payment,
	// however long its way, and by running away it gains at most a 32nd of what it paid.
	// What was earned is forgotten with the Provider. Default 0.
	EarnedCredit voucher.Bytes
	// CreditLine tells, for queries, what any payer is lent, so that a client
	// knows before it begins; nil, or a nil answer, tells nothing.
	CreditLine func() *voucher.Amount

	MaxDeals        int              // live deals; more are refused as busy. Default 1024
	MaxDealsPerPeer int              // live deals of one client. Default 64
	UnpaidFor       time.Duration    // so long a deal that stands still and has paid too little for its place keeps it when there is no other for a new one. Default 30 s
	ResendAllowance voucher.Bytes    // bytes that can be on the way when a channel breaks, see transport.GuardConfig. Default 48 MiB
	MaxRepeats      int64            // links to blocks it has passed before one stream ends, as transport.GuardConfig says. Default 1<<20
	IdleTimeout     time.Duration    // a deal without progress ends. Default 30 min
	KeepDeals       int              // finished deals kept on record. Default 1,000,000
	KeepFor         time.Duration    // and for how long. Default 90 days
	Limits          selectors.Limits // bounds of selectors; zero values are defaults
	MaxQuoteLinks   uint64           // links walked for an exact quote. Default 1<<20
	Logger          *slog.Logger     // default slog.Default()
}

// PricingInput is what a price may depend on.
type PricingInput struct {
	Client  peer.ID
	Payload voucher.DealProposal // for a query only PayloadCID and PieceCID are set
	Piece   Piece
	Ask     voucher.Ask // what holds without a Pricing function
}

func (c *ProviderConfig) validate() error {
	switch {
	case c.Host == nil, c.Pieces == nil, c.DB == nil, (c.Transfers == nil) != (c.UseStore == nil):
		return errors.New("provider: Host, Pieces and DB are required, and Transfers and UseStore together or not at all")
	case c.Node == nil && (c.Ask.PricePerByte != 0 || c.Pricing != nil):
		return errors.New("provider: a price needs a Node that takes payments")
	}
	if err := c.Ask.Validate(); err != nil {
		return fmt.Errorf("provider: %w", err)
	}
	orInt := func(p *int, d int) {
		if *p == 0 {
			*p = d
		}
	}
	orInt(&c.MaxDeals, 1024)
	orInt(&c.MaxDealsPerPeer, 64)
	orInt(&c.KeepDeals, 1_000_000)
	if c.ResendAllowance == 0 {
		c.ResendAllowance = 48 << 20
	}
	if c.MaxRepeats == 0 {
		c.MaxRepeats = 1 << 20
	}
	if c.UnpaidFor == 0 {
		c.UnpaidFor = 30 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 30 * time.Minute
	}
	if c.KeepFor == 0 {
		c.KeepFor = 90 * 24 * time.Hour
	}
	if c.MaxQuoteLinks == 0 {
		c.MaxQuoteLinks = 1 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}
