package retrievalmarket

import (
	"context"
	"fmt"

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

func (t *clientTransfers) carriable(to peer.ID, terms voucher.Terms, expected, risk Bytes) error {
	if !t.c.asVouchers(to) {
		return nil
	}
	return carriable(terms, expected, risk)
}

// providerTransfers carries a provider's channels on data-transfer.
type providerTransfers struct{ p *Provider }

// begin takes channels and their events from data-transfer.
func (t *providerTransfers) begin() (datatransfer.Unsubscribe, error) {
	if err := t.p.cfg.Transfers.RegisterTransportConfigurer(voucher.ProposalType, t.p.options); err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	if err := t.p.cfg.Transfers.RegisterVoucherType(voucher.ProposalType, validation.Validator{Book: t.p}); err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	return t.p.cfg.Transfers.SubscribeToEvents(t.p.onEvent), nil
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
	result, err := validation.Result(g, reply)
	if err != nil {
		return err
	}
	return t.p.cfg.Transfers.UpdateValidationStatus(ctx, chid, result)
}

func (t *providerTransfers) reject(ctx context.Context, chid datatransfer.ChannelID, reply *voucher.DealResponse) error {
	node, err := reply.Encode()
	if err != nil {
		return err
	}
	return t.p.cfg.Transfers.UpdateValidationStatus(ctx, chid, datatransfer.ValidationResult{
		VoucherResult: &datatransfer.TypedVoucher{Voucher: node, Type: voucher.ResponseType},
	})
}

func (t *providerTransfers) close(ctx context.Context, chid datatransfer.ChannelID) error {
	return t.p.cfg.Transfers.CloseDataTransferChannel(ctx, chid)
}

func (t *providerTransfers) forget(datatransfer.ChannelID) {}
