package retrievalmarket

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/tollgraph/tollgraph/voucher"
)

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
	asks   *throttle // queries
	begun  *throttle // deals that have come to nothing, or may yet
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
	terms := proposal.Params.Terms()
	d.lent = Bytes(r.Lent)
	p.trust.lentBefore(from, d.lent, terms.Price)
	d.deal = r.deal(terms, p.cfg.Credit.Add(d.lent))
	d.view.account = d.deal.Account
	d.view.recalled, d.view.let = true, Bytes(r.Let)
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
