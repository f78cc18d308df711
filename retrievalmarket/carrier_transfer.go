package retrievalmarket

import (
	"context"
	"fmt"
	"sync"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

// clientTransfers carries a client's channels on data-transfer.
type clientTransfers struct{ c *Client }

func (t *clientTransfers) open(ctx context.Context, d *clientDeal) (datatransfer.ChannelID, bool, error) {
	node, err := d.proposal.Encode()
	if err != nil {
		return datatransfer.ChannelID{}, false, err
	}
	chid, err := t.c.cfg.Transfers.OpenPullDataChannel(ctx, d.provider.ID,
		datatransfer.TypedVoucher{Voucher: node, Type: voucher.ProposalType}, d.proposal.PayloadCID, d.proposal.Params.Selector,
		datatransfer.WithTransportOptions(t.c.cfg.UseStore(d.linkSystem())))
	return chid, false, err // see clientDeal.oneChannel
}

func (t *clientTransfers) restart(ctx context.Context, chid datatransfer.ChannelID) error {
	return t.c.cfg.Transfers.RestartDataTransferChannel(ctx, chid)
}

func (t *clientTransfers) pay(ctx context.Context, chid datatransfer.ChannelID, p voucher.DealPayment) error {
	node, err := p.Encode()
	if err != nil {
		return err
	}
	return t.c.cfg.Transfers.SendVoucher(ctx, chid, datatransfer.TypedVoucher{Voucher: node, Type: voucher.PaymentType})
}

func (t *clientTransfers) close(ctx context.Context, chid datatransfer.ChannelID) error {
	return t.c.cfg.Transfers.CloseDataTransferChannel(ctx, chid)
}

func (t *clientTransfers) inBand() bool { return false }

func (t *clientTransfers) skips(peer.ID) bool { return true }

func (t *clientTransfers) carriable(to peer.ID, terms voucher.Terms, expected, risk Bytes) error {
	if !t.c.asVouchers(to) {
		return nil
	}
	return carriable(terms, expected, risk)
}

// providerTransfers carries a provider's channels on data-transfer.
type providerTransfers struct {
	p *Provider

	mu     sync.Mutex
	tuples map[datatransfer.ChannelID]struct{} // guarded by mu; channels whose vouchers are not maps
	opens  map[datatransfer.ChannelID]opening  // guarded by mu; channels that are being opened or restarted
}

// opening is what data-transfer does behind a validator's answer: it puts limit and
// pause on record one by one, and then asks for the channel's blocks. What the channel
// was told in between it would undo, and a deal that was told its piece is unsealed
// would stand still until its watchdog tells it again.
type opening struct {
	context.Context // ends when that is done, or should have been
	done            context.CancelFunc
}

func newProviderTransfers(p *Provider) *providerTransfers {
	return &providerTransfers{p: p, tuples: make(map[datatransfer.ChannelID]struct{}), opens: make(map[datatransfer.ChannelID]opening)}
}

// begin takes channels and their events from data-transfer, in either form.
func (t *providerTransfers) begin() (datatransfer.Unsubscribe, error) {
	for _, form := range []voucher.Form{voucher.Maps, voucher.Tuples} {
		proposal := datatransfer.TypeIdentifier(form.ProposalType())
		if err := t.p.cfg.Transfers.RegisterTransportConfigurer(proposal, t.options); err != nil {
			return nil, fmt.Errorf("provider: %w", err)
		}
		if err := t.p.cfg.Transfers.RegisterVoucherType(proposal, validation.Validator{Book: transferBook{t.p, form}, Form: form}); err != nil {
			return nil, fmt.Errorf("provider: %w", err)
		}
	}
	return t.p.cfg.Transfers.SubscribeToEvents(t.p.onEvent), nil
}

// transferBook opens the deals that are proposed in a form: what is said on their
// channels is said in that.
type transferBook struct {
	*Provider
	form voucher.Form
}

func (b transferBook) Open(chid datatransfer.ChannelID, p voucher.DealProposal) (validation.Grant, voucher.DealResponse, error) {
	if b.streams.has(chid) {
		return validation.Grant{}, voucher.DealResponse{}, fmt.Errorf("%w: use another transfer id", voucher.RefusedBusy)
	}
	settled := b.transfers.opensIn(chid, b.form) // before the deal has anything to say
	g, r, err := b.Provider.Open(chid, p)
	settled(err)
	return g, r, err
}

func (b transferBook) Restart(chid datatransfer.ChannelID, p voucher.DealProposal, queued voucher.Bytes) (validation.Grant, voucher.DealResponse, error) {
	settled := b.transfers.opensIn(chid, b.form)
	g, r, err := b.Provider.Restart(chid, p, queued)
	settled(err)
	return g, r, err
}

// opensIn notes that a channel is opened or restarted, and its form. What it returns
// takes that back if it came to nothing.
func (t *providerTransfers) opensIn(chid datatransfer.ChannelID, form voucher.Form) (settled func(error)) {
	t.opened(chid) // a request before this one is over
	t.mu.Lock()
	defer t.mu.Unlock()
	_, before := t.tuples[chid]
	if form == voucher.Tuples {
		t.tuples[chid] = struct{}{}
	}
	var o opening
	o.Context, o.done = context.WithTimeout(context.Background(), tellTimeout)
	t.opens[chid] = o
	return func(err error) {
		switch {
		case err != nil && !before:
			t.forget(chid)
		case err != nil:
			t.opened(chid)
		}
	}
}

// opened notes that a channel is open, or will not be.
func (t *providerTransfers) opened(chid datatransfer.ChannelID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o, ok := t.opens[chid]; ok {
		delete(t.opens, chid)
		o.done()
	}
}

// options is called for a channel when what was granted to it is on record.
func (t *providerTransfers) options(chid datatransfer.ChannelID, v datatransfer.TypedVoucher) []datatransfer.TransportOption {
	t.opened(chid)
	return t.p.options(chid, v)
}

func (t *providerTransfers) opening(chid datatransfer.ChannelID) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o, ok := t.opens[chid]; ok && o.Err() == nil {
		return o.Done()
	}
	return nil
}

func (t *providerTransfers) form(chid datatransfer.ChannelID) voucher.Form {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.tuples[chid]; ok {
		return voucher.Tuples
	}
	return voucher.Maps
}

func (t *providerTransfers) meter() Meter { return t.p.cfg.Meter }

func (t *providerTransfers) bound(chid datatransfer.ChannelID, from int64, size, held uint64) {
	if t.p.cfg.Bound != nil {
		t.p.cfg.Bound(chid, from, size, held)
	}
}

func (t *providerTransfers) hold(chid datatransfer.ChannelID, link int64) bool {
	if t.p.cfg.Hold == nil {
		return false
	}
	t.p.cfg.Hold(chid, link)
	return true
}

func (t *providerTransfers) grant(ctx context.Context, chid datatransfer.ChannelID, g validation.Grant, reply *voucher.DealResponse) error {
	result, err := validation.Result(g, reply, t.form(chid))
	if err != nil {
		return err
	}
	return t.p.cfg.Transfers.UpdateValidationStatus(ctx, chid, result)
}

func (t *providerTransfers) reject(ctx context.Context, chid datatransfer.ChannelID, reply *voucher.DealResponse) error {
	said, err := validation.Reply(reply, t.form(chid))
	if err != nil {
		return err
	}
	return t.p.cfg.Transfers.UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{VoucherResult: said})
}

func (t *providerTransfers) close(ctx context.Context, chid datatransfer.ChannelID) error {
	t.forget(chid) // nothing more is said on it
	return t.p.cfg.Transfers.CloseDataTransferChannel(ctx, chid)
}

func (t *providerTransfers) forget(chid datatransfer.ChannelID) {
	t.opened(chid)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tuples, chid)
}
