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
}

func newProviderTransfers(p *Provider) *providerTransfers {
	return &providerTransfers{p: p, tuples: make(map[datatransfer.ChannelID]struct{})}
}

// begin takes channels and their events from data-transfer, in either form.
func (t *providerTransfers) begin() (datatransfer.Unsubscribe, error) {
	for form, book := range map[voucher.Form]validation.Book{voucher.Maps: t.p, voucher.Tuples: tupleBook{t.p}} {
		proposal := datatransfer.TypeIdentifier(form.ProposalType())
		if err := t.p.cfg.Transfers.RegisterTransportConfigurer(proposal, t.p.options); err != nil {
			return nil, fmt.Errorf("provider: %w", err)
		}
		if err := t.p.cfg.Transfers.RegisterVoucherType(proposal, validation.Validator{Book: book, Form: form}); err != nil {
			return nil, fmt.Errorf("provider: %w", err)
		}
	}
	return t.p.cfg.Transfers.SubscribeToEvents(t.p.onEvent), nil
}

// tupleBook opens the deals that are proposed in tuples: what is said on their
// channels is said in tuples.
type tupleBook struct{ *Provider }

func (b tupleBook) Open(chid datatransfer.ChannelID, p voucher.DealProposal) (validation.Grant, voucher.DealResponse, error) {
	settled := b.transfers.inTuples(chid) // before the deal has anything to say
	g, r, err := b.Provider.Open(chid, p)
	settled(err)
	return g, r, err
}

func (b tupleBook) Restart(chid datatransfer.ChannelID, p voucher.DealProposal, queued voucher.Bytes) (validation.Grant, voucher.DealResponse, error) {
	settled := b.transfers.inTuples(chid)
	g, r, err := b.Provider.Restart(chid, p, queued)
	settled(err)
	return g, r, err
}

// inTuples notes the form of a channel. What it returns takes that back if the
// channel came to nothing.
func (t *providerTransfers) inTuples(chid datatransfer.ChannelID) (settled func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, before := t.tuples[chid]
	t.tuples[chid] = struct{}{}
	return func(err error) {
		if err != nil && !before {
			t.forget(chid)
		}
	}
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
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tuples, chid)
}
