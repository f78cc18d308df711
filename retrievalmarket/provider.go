package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

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

// RetrievalProvider is the seed's face of a Provider.
type RetrievalProvider interface {
	Start(ctx context.Context) error
	SetPricePerByte(price Price)
	SetPaymentInterval(interval, increase Bytes)
	SetPricePerUnseal(price Amount)
	SubscribeToEvents(ProviderSubscriber) Unsubscribe
	ListDeals() map[ProviderDealID]ProviderDealState
}

var _ RetrievalProvider = (*Provider)(nil)

// Provider sells what its pieces hold. All methods may be called at once from
// several goroutines.
type Provider struct {
	cfg    ProviderConfig
	log    *slog.Logger
	book   providerBook
	hub    *hub[ProviderDealID, ProviderEvent, ProviderDealState]
	away   func(peer.ID) bool // reports whether a client is not connected
	quotes *quoter
	asks   *throttle                // queries
	begun  *throttle                // deals that have come to nothing, or may yet
	trust  *goodwill
	idle   *throttle                // payment streams, and payments that bring nothing
	stop   context.CancelFunc       // ends the deals' goroutines
	unsub  datatransfer.Unsubscribe // nil without transfers
	done   sync.WaitGroup

	transfers *providerTransfers // nil without Transfers
	streams   *providerStreams
	serving   bool // Start came to its end

	mu     sync.Mutex
	ctx    context.Context                          // guarded by mu; the life of the deals' goroutines, set by Start
	ask    voucher.Ask                              // guarded by mu
	live   map[ProviderDealID]*providerDeal         // guarded by mu
	byChan map[datatransfer.ChannelID]*providerDeal // guarded by mu
	closed bool                                     // guarded by mu
}

// NewProvider makes a Provider. It serves from Start on.
func NewProvider(cfg ProviderConfig) (*Provider, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Provider{
		cfg: cfg, log: cfg.Logger.With("role", "provider"), book: newProviderBook(cfg.DB), ask: cfg.Ask,
		hub:    newHub[ProviderDealID, ProviderEvent, ProviderDealState](ProviderEventProgress),
		live:   make(map[ProviderDealID]*providerDeal),
		byChan: make(map[datatransfer.ChannelID]*providerDeal),
	}
	p.asks, p.idle, p.begun = newThrottle(50, 200), newThrottle(50, 200), newThrottle(beginRate, beginBurst)
	p.trust = newGoodwill(cfg.EarnedCredit)
	p.away = func(client peer.ID) bool { return cfg.Host.Network().Connectedness(client) != network.Connected }
	p.quotes = newQuoter(cfg.Pieces, cfg.MaxQuoteLinks)
	p.streams = newProviderStreams(p)
	if cfg.Transfers != nil {
		p.transfers = newProviderTransfers(p)
	}
	return p, nil
}

// Start takes up the deals that were not finished when the node stopped, and
// serves. ctx bounds the start only; the deals live until Close. A manager knows
// one Provider as long as it lives: there is no taking back a voucher type. It
// fails for another one.
func (p *Provider) Start(ctx context.Context) error {
	if err := migrate(ctx, p.cfg.DB); err != nil {
		return err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.mu.Lock()
	p.ctx, p.stop = life, stop
	p.mu.Unlock()
	if err := p.takeUp(ctx); err != nil {
		return err
	}
	if p.transfers != nil {
		unsub, err := p.transfers.begin()
		if err != nil {
			return err
		}
		p.unsub = unsub
	}
	for proto, handler := range p.handlers() {
		p.cfg.Host.SetStreamHandler(proto, handler)
	}
	p.serving = true
	p.done.Go(func() { p.keepPruned(life) })
	return nil
}

// handlers are the protocols that a provider speaks beside data-transfer's.
func (p *Provider) handlers() map[protocol.ID]network.StreamHandler {
	h := map[protocol.ID]network.StreamHandler{
		voucher.QueryProtocol:   p.serveQuery,
		voucher.QueryProtocolV0: p.serveQueryV0,
		voucher.DealProtocolV0:  p.streams.serve,
		voucher.SkipProtocolV0:  p.streams.serve,
	}
	if p.transfers != nil {
		h[PaymentProtocol], h[TransportsProtocol] = p.servePayments, p.serveTransports
	}
	return h
}

// takeUp starts a goroutine for every deal that was not finished.
func (p *Provider) takeUp(ctx context.Context) error {
	open, err := p.book.open(ctx)
	if err != nil {
		return err
	}
	for _, r := range open {
		d, err := p.revive(r)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.live[d.key] = d
		p.mu.Unlock()
		p.begin(d)
	}
	return nil
}

func (p *Provider) revive(r record) (*providerDeal, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	proposal, err := r.proposal()
	if err != nil {
		return nil, err
	}
	from, err := r.peer()
	if err != nil {
		return nil, err
	}
	d := newProviderDeal(p, from, proposal, r)
	d.deal = r.deal(proposal.Params.Terms(), p.cfg.Credit)
	d.view.account = d.deal.Account
	d.view.recalled = true
	d.publishView()
	return d, nil
}

// begin runs d's goroutine.
func (p *Provider) begin(d *providerDeal) {
	p.mu.Lock()
	ctx := p.ctx
	p.mu.Unlock()
	p.done.Go(func() { d.run(ctx) })
}

// Close stops taking proposals and payments and waits for the deals'
// goroutines. Deals do not end: they go on at the next Start.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	started := p.stop != nil
	p.mu.Unlock()
	if !started {
		return nil
	}
	if p.serving { // it got so far: the handlers are its own
		for proto := range p.handlers() {
			p.cfg.Host.RemoveStreamHandler(proto)
		}
	}
	if p.unsub != nil {
		p.unsub()
	}
	p.stop()
	p.streams.wait()
	p.done.Wait()
	p.hub.close()
	return nil
}

// SetPricePerByte changes the price for deals that begin from now on.
func (p *Provider) SetPricePerByte(price Price) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ask.PricePerByte = price
}

// SetPaymentInterval changes the largest interval and increase that deals may
// have from now on.
func (p *Provider) SetPaymentInterval(interval, increase Bytes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ask.PaymentInterval, p.ask.PaymentIntervalIncrease = interval, increase
}

// SetPricePerUnseal changes the price of unsealing for deals that begin from
// now on.
func (p *Provider) SetPricePerUnseal(price Amount) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ask.UnsealPrice = price
}

// Ask returns what is charged now.
func (p *Provider) Ask() voucher.Ask {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ask
}

// SubscribeToEvents calls fn for what happens to deals from now on.
func (p *Provider) SubscribeToEvents(fn ProviderSubscriber) Unsubscribe {
	return p.hub.subscribe(fn)
}

// askFor returns the ask that holds for a client and a piece: unsealing is
// charged only where it is needed.
func (p *Provider) askFor(from peer.ID, proposal voucher.DealProposal, piece Piece) voucher.Ask {
	ask := p.Ask()
	if p.cfg.Pricing != nil {
		ask = p.cfg.Pricing(PricingInput{Client: from, Payload: proposal, Piece: piece, Ask: ask})
	}
	if !piece.Sealed {
		ask.UnsealPrice = voucher.Amount{}
	}
	return ask
}

// options gives a channel its blocks. It is called for every channel of the
// manager, also for those that a Client on it opened.
func (p *Provider) options(chid datatransfer.ChannelID, v datatransfer.TypedVoucher) []datatransfer.TransportOption {
	if chid.Initiator == p.cfg.Host.ID() {
		if p.cfg.Client != nil {
			return p.cfg.Client.options(v)
		}
		return nil
	}
	p.mu.Lock()
	d := p.byChan[chid]
	p.mu.Unlock()
	if d == nil {
		return nil
	}
	return []datatransfer.TransportOption{p.cfg.UseStore(withUnixFS(p.cfg.Pieces.LinkSystem(d.piece.ID)))}
}

// onEvent passes an event of data-transfer to its deal. It runs on the one
// goroutine that serves all channels, so it only looks up, copies and posts.
func (p *Provider) onEvent(ev datatransfer.Event, st datatransfer.ChannelState) {
	chid := st.ChannelID()
	if chid.Responder != p.cfg.Host.ID() {
		return
	}
	p.mu.Lock()
	d := p.byChan[chid]
	p.mu.Unlock()
	if d == nil {
		return
	}
	if note := providerNote(ev, st); note.kind != noteNone {
		d.inbox.post(note)
	}
}

// CancelDeal ends a live deal of a client. What was paid stays paid.
func (p *Provider) CancelDeal(key ProviderDealID) error {
	p.mu.Lock()
	d := p.live[key]
	p.mu.Unlock()
	if d == nil {
		return fmt.Errorf("deal %d of %s: %w", key.ID, key.From, ErrNoDeal)
	}
	d.inbox.post(cancelNote{"provider cancelled"})
	return nil
}

type cancelNote struct{ reason string }
