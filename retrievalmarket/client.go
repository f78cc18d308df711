package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/tollgraph/tollgraph/voucher"
)

// ClientConfig configures a Client.
type ClientConfig struct {
	Host      host.Host           // required; not closed by Close
	Transfers Transfers           // nil to buy by voucher.DealProtocolV0 only
	UseStore  UseStore            // required with Transfers
	Stores    Stores              // required
	DB        *sql.DB             // required; see OpenDatabase
	Node      RetrievalClientNode // required for what costs money
	Wallet    address.Address     // who pays; required for what costs money
	Resolver  PeerResolver        // finds providers; optional

	// Patience is how long a deal may go without progress, over all its
	// channels, before it is suspended. Default 2 min. This and StallTimeout are
	// longer, by a second for each 64 MiB held, before a channel's first byte.
	Patience time.Duration
	// StallTimeout is how long one channel may go without progress before
	// another is opened in its place. Default 20 s.
	StallTimeout time.Duration
	// UnsealPatience is how long unsealing may take. Default 12 h.
	UnsealPatience time.Duration
	// VouchersOnly pays with data-transfer vouchers even where the provider
	// takes payments on a stream of their own, but for a last payment that no
	// channel is left for.
	VouchersOnly bool
	KeepDeals    int           // deals kept on record after their order ended. Default 100,000
	KeepFor      time.Duration // and for how long. Default a year
	Logger       *slog.Logger  // default slog.Default()
}

func (c *ClientConfig) validate() error {
	if c.Host == nil || c.Stores == nil || c.DB == nil || (c.Transfers == nil) != (c.UseStore == nil) {
		return errors.New("client: Host, Stores and DB are required, and Transfers and UseStore together or not at all")
	}
	orDuration := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	orDuration(&c.Patience, 2*time.Minute)
	orDuration(&c.StallTimeout, 20*time.Second)
	orDuration(&c.UnsealPatience, 12*time.Hour)
	orDuration(&c.KeepFor, 365*24*time.Hour)
	if c.KeepDeals == 0 {
		c.KeepDeals = 100_000
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}

// RetrievalClient is the seed's face of a Client.
type RetrievalClient interface {
	FindProviders(ctx context.Context, payload cid.Cid) ([]RetrievalPeer, error)
	Query(ctx context.Context, p RetrievalPeer, payload cid.Cid, params QueryParams) (QueryResponse, error)
	Retrieve(ctx context.Context, r Request) (DealID, error)
	SubscribeToEvents(ClientSubscriber) Unsubscribe
	AddMoreFunds(ctx context.Context, id DealID, amount Amount) error
	CancelDeal(ctx context.Context, id DealID) error
	RetrievalStatus(ctx context.Context, id DealID) (ClientDealState, error)
	ListDeals(ctx context.Context) (map[DealID]ClientDealState, error)
}

var _ RetrievalClient = (*Client)(nil)

// Client buys. All methods may be called at once from several goroutines.
type Client struct {
	cfg   ClientConfig
	log   *slog.Logger
	book  clientBook
	hub   *hub[DealID, ClientEvent, ClientDealState]
	ctx   context.Context // the life of the deals' goroutines
	stop  context.CancelFunc
	unsub datatransfer.Unsubscribe // nil without transfers
	watch network.Notifiee

	transfers clientCarrier // nil without Transfers
	streams   *clientStreams
	done      sync.WaitGroup
	closing   sync.Once

	mu     sync.Mutex
	lastID DealID                                 // guarded by mu
	live   map[DealID]*clientDeal                 // guarded by mu
	roots  map[cid.Cid]*retrieval                 // guarded by mu; nil while a record on the root is changed or looked at
	runs   map[DealID]*retrieval                  // guarded by mu; by every deal of theirs, also when they are over
	byChan map[datatransfer.ChannelID]*clientDeal // guarded by mu
	ended  map[DealID]ClientDealState             // guarded by mu; suspended or final in this process
	closed bool                                   // guarded by mu
}

// NewClient makes a Client. Deals of an earlier run are not taken up by
// themselves: Retrieve the same again, or Resume.
func NewClient(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := migrate(ctx, cfg.DB); err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger.With("role", "client"), book: newClientBook(cfg.DB),
		hub:    newHub[DealID, ClientEvent, ClientDealState](ClientEventProgress),
		live:   make(map[DealID]*clientDeal),
		roots:  make(map[cid.Cid]*retrieval),
		runs:   make(map[DealID]*retrieval),
		byChan: make(map[datatransfer.ChannelID]*clientDeal),
		ended:  make(map[DealID]ClientDealState),
	}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.streams = newClientStreams(c)
	if cfg.Transfers != nil {
		c.transfers = &clientTransfers{c}
		c.unsub = cfg.Transfers.SubscribeToEvents(c.onEvent)
	}
	c.watch = &network.NotifyBundle{DisconnectedF: c.onDisconnect}
	cfg.Host.Network().Notify(c.watch)
	c.done.Go(func() { c.keepPruned(c.ctx) })
	return c, nil
}

// Close pauses every deal and waits for their goroutines. What arrived is on
// disk; the same Retrieve goes on from there. Deals of which only the last words
// are missing have some seconds for them. It may be called again.
func (c *Client) Close() error {
	c.closing.Do(c.close)
	return nil
}

func (c *Client) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.sayLastWords()
	c.stop()
	c.done.Wait()
	c.streams.done.Wait()
	if c.unsub != nil {
		c.unsub()
	}
	c.cfg.Host.Network().StopNotify(c.watch)
	c.hub.close()
}

// FindProviders asks the Resolver.
func (c *Client) FindProviders(ctx context.Context, payload cid.Cid) ([]RetrievalPeer, error) {
	if c.cfg.Resolver == nil {
		return nil, errors.New("find providers: no resolver is configured, name a provider")
	}
	return c.cfg.Resolver.GetPeers(ctx, payload)
}

// Query asks a provider what it has of a payload and what it charges.
func (c *Client) Query(ctx context.Context, p RetrievalPeer, payload cid.Cid, params QueryParams) (QueryResponse, error) {
	if err := c.dialOnly(ctx, p.AddrInfo); err != nil {
		return QueryResponse{}, err
	}
	return askPeer(ctx, c.cfg.Host, p.ID, Query{PayloadCID: payload, QueryParams: params})
}

// SubscribeToEvents calls fn for what happens to deals from now on.
func (c *Client) SubscribeToEvents(fn ClientSubscriber) Unsubscribe { return c.hub.subscribe(fn) }

// nextID returns a DealID that this client never used: the time, made to rise.
func (c *Client) nextID() DealID {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID = max(c.lastID+1, DealID(time.Now().UnixNano()))
	return c.lastID
}

// onEvent passes an event of data-transfer to its deal; see Provider.onEvent.
func (c *Client) onEvent(ev datatransfer.Event, st datatransfer.ChannelState) {
	chid := st.ChannelID()
	if chid.Initiator != c.cfg.Host.ID() {
		return
	}
	c.mu.Lock()
	d, known := c.byChan[chid]
	c.mu.Unlock()
	if !known {
		// What else comes first is a late word of a channel that the deal had before it
		// was paused or the node was stopped: its end is not the deal's.
		if ev.Code != datatransfer.Open {
			return
		}
		if d = c.dealOf(st.Voucher()); d == nil {
			return // another program's channel, or a deal that is over
		}
		c.mu.Lock() // an event may come before opening returned
		c.byChan[chid] = d
		c.mu.Unlock()
	}
	if note := clientNote(ev, st); note.kind != noteNone {
		d.inbox.post(note)
	}
}

// dealOf finds the live deal that a proposal belongs to.
func (c *Client) dealOf(v datatransfer.TypedVoucher) *clientDeal {
	if v.Type != voucher.ProposalType {
		return nil
	}
	p, err := voucher.DecodeDealProposal(v.Voucher)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live[p.ID]
}

// options gives a channel of this client its store, on a manager where a
// Provider configures channels.
func (c *Client) options(v datatransfer.TypedVoucher) []datatransfer.TransportOption {
	d := c.dealOf(v)
	if d == nil {
		return nil
	}
	return []datatransfer.TransportOption{c.cfg.UseStore(d.linkSystem())}
}

// onDisconnect tells the deals with a peer that the last connection to it is
// gone: data-transfer does not.
func (c *Client) onDisconnect(n network.Network, conn network.Conn) {
	p := conn.RemotePeer()
	if n.Connectedness(p) == network.Connected {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.live {
		if d.provider.ID == p {
			d.inbox.post(disconnectNote{})
		}
	}
}

type disconnectNote struct{}

// haltNote ends a deal, and the retrieval that it is part of, because the user
// wants it: why wraps errCancelled or ErrPaused.
type haltNote struct{ why error }

// CancelDeal ends the retrieval that a deal is part of, running or not. What has
// arrived is paid for, nothing more, and the provider is told: where that fails
// within a few seconds, the deal's message says so. It returns when the deal has
// ended, or with ctx.
func (c *Client) CancelDeal(ctx context.Context, id DealID) error {
	if v, _, _ := c.running(ctx, id); v != nil {
		return v.haltNow(ctx, errCancelled)
	}
	return c.cancelStored(ctx, id)
}

// AddMoreFunds raises the budget of the order that a deal is part of. A deal that
// waited for it goes on.
func (c *Client) AddMoreFunds(ctx context.Context, id DealID, amount Amount) error {
	return c.fund(ctx, id, func(budget voucher.Amount) voucher.Amount { return budget.Add(amount) })
}

// fund changes the budget of a deal, running or not.
func (c *Client) fund(ctx context.Context, id DealID, change func(voucher.Amount) voucher.Amount) error {
	for {
		v, d, turn := c.running(ctx, id)
		if v == nil {
			return c.fundStored(ctx, id, change)
		}
		if d == nil { // between two deals: wait for the next
			select {
			case <-turn:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		note := fundsNote{change, make(chan error, 1)}
		d.inbox.post(note)
		select {
		case err := <-note.reply:
			return err
		case <-d.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type fundsNote struct {
	change func(voucher.Amount) voucher.Amount
	reply  chan error
}
