package retrievalmarket

import (
	"bytes"
	"fmt"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/validation"
	"github.com/tollgraph/tollgraph/voucher"
)

var _ validation.Book = (*Provider)(nil)

// Offer implements validation.Book. A deal that is being resumed keeps the
// terms that it began with.
func (p *Provider) Offer(from peer.ID, proposal voucher.DealProposal) (validation.Offer, error) {
	offer := validation.Offer{Limits: p.cfg.Limits}
	p.mu.Lock()
	d := p.live[ProviderDealID{from, proposal.ID}]
	p.mu.Unlock()
	if d != nil && d.proposes(proposal) {
		offer.Ask = askOf(proposal.Params)
		return offer, nil
	}
	piece, ok := p.cfg.Pieces.Find(proposal.PayloadCID, proposal.Params.PieceCID)
	if !ok {
		return offer, fmt.Errorf("%w: %s", voucher.RefusedContent, proposal.PayloadCID)
	}
	offer.Ask = p.askFor(from, proposal, piece)
	if !proposal.Params.Terms().Free() && p.cfg.Node == nil {
		return offer, fmt.Errorf("%w: this provider takes no payments, propose a free deal", voucher.RefusedPrice)
	}
	return offer, nil
}

func askOf(p voucher.Params) voucher.Ask {
	return voucher.Ask{PricePerByte: p.PricePerByte, UnsealPrice: p.UnsealPrice,
		PaymentInterval: p.PaymentInterval, PaymentIntervalIncrease: p.PaymentIntervalIncrease}
}

// Open implements validation.Book: it begins a deal in memory, or puts a
// channel in the place of one that broke.
func (p *Provider) Open(chid datatransfer.ChannelID, proposal voucher.DealProposal) (validation.Grant, voucher.DealResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byChan[chid] != nil { // data-transfer takes no other deal for it, but asks here first
		return validation.Grant{}, voucher.DealResponse{}, fmt.Errorf("%w: this channel has a deal, use another transfer id", voucher.RefusedTerms)
	}
	key := ProviderDealID{chid.Initiator, proposal.ID}
	d := p.live[key]
	if d != nil {
		grant, old, err := d.reattach(chid, proposal)
		if err != nil {
			return grant, voucher.DealResponse{}, err
		}
		delete(p.byChan, old)
		p.byChan[chid], d.origin = d, origin(p.cfg.Host.Network(), key.From) // not known of one that was on record
		d.inbox.post(attachNote{chid: chid, old: old, grant: grant})
		return grant, d.reply(), nil
	}
	piece, ok := p.cfg.Pieces.Find(proposal.PayloadCID, proposal.Params.PieceCID)
	if !ok {
		return validation.Grant{}, voucher.DealResponse{}, fmt.Errorf("%w: %s", voucher.RefusedContent, proposal.PayloadCID)
	}
	if err := p.room(key.From); err != nil {
		return validation.Grant{}, voucher.DealResponse{}, err
	}
	d = newProviderDeal(p, key.From, proposal, record{Created: time.Now().UTC(), PieceID: piece.ID.String(), First: uint64(chid.ID)})
	d.piece, d.origin = piece, origin(p.cfg.Host.Network(), key.From)
	terms := proposal.Params.Terms()
	if carrier := p.carrierOf(chid); carrier != p.streams && carrier.meter() != nil { // what is lent must be found again
		d.lent = p.trust.lend(key.From, terms.Price)
		d.rec.Lent = uint64(d.lent)
	}
	d.deal = Deal{Phase: Moving, Ready: !piece.Sealed, Account: revalidator.Account{Terms: terms, Credit: p.cfg.Credit.Add(d.lent)}}
	grant := validation.Grant{Verdict: d.deal.verdict()}
	d.told, d.asked, d.view.chid, d.view.attached, d.view.account = grant, d.askedFirst(), chid, true, d.deal.Account
	if meter := p.carrierOf(chid).meter(); meter != nil {
		begins, _ := meter(chid)
		d.view.first, d.view.pinned = begins.SkipLinks, true
	}
	d.publishView()
	p.live[key], p.byChan[chid] = d, d
	d.confine(chid, grant.Verdict.Limit)
	ctx := p.ctx
	p.done.Go(func() { d.run(ctx) })
	return grant, d.reply(), nil
}

// Restart implements validation.Book for clients that restart a channel the
// way data-transfer does. queued is data-transfer's count for the channel,
// which goes on from there.
func (p *Provider) Restart(chid datatransfer.ChannelID, proposal voucher.DealProposal, queued voucher.Bytes) (validation.Grant, voucher.DealResponse, error) {
	p.mu.Lock()
	d := p.live[ProviderDealID{chid.Initiator, proposal.ID}]
	if d == nil && proposal.Params.Terms().Free() {
		p.mu.Unlock()
		return p.again(chid, proposal)
	}
	defer p.mu.Unlock()
	if d == nil || !d.proposes(proposal) {
		return validation.Grant{}, voucher.DealResponse{}, fmt.Errorf("%w: deal %d is not open", voucher.RefusedResume, proposal.ID)
	}
	grant, err := d.restart(chid, queued)
	if err != nil {
		return grant, voucher.DealResponse{}, err
	}
	if other := p.byChan[chid]; other != nil && other != d {
		other.lose(chid)
	}
	p.byChan[chid], d.origin = d, origin(p.cfg.Host.Network(), chid.Initiator)
	d.inbox.post(attachNote{chid: chid, old: chid, grant: grant})
	return grant, d.reply(), nil
}

// again begins a free deal anew after a restart of the provider: free deals are
// not on record. The root and selector are those of the channel.
func (p *Provider) again(chid datatransfer.ChannelID, proposal voucher.DealProposal) (validation.Grant, voucher.DealResponse, error) {
	offer, err := p.Offer(chid.Initiator, proposal)
	if err == nil && !offer.Ask.Terms().Free() {
		err = fmt.Errorf("%w: it is no longer free", voucher.RefusedPrice)
	}
	if err != nil {
		return validation.Grant{}, voucher.DealResponse{}, err
	}
	return p.Open(chid, proposal)
}

// attachNote tells a deal that it has a new channel.
type attachNote struct {
	chid, old datatransfer.ChannelID
	grant     validation.Grant // what validation granted it
}

// proposes reports whether proposal is, byte for byte, the deal's own.
func (d *providerDeal) proposes(proposal voucher.DealProposal) bool {
	b, err := encodeProposal(proposal)
	return err == nil && bytes.Equal(b, d.encoded)
}

// reply is the answer to a proposal.
func (d *providerDeal) reply() voucher.DealResponse {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := voucher.DealResponse{Status: voucher.DealStatusAccepted, ID: d.key.ID}
	if a := d.view.account; a.Paid.Less(a.Terms.Unseal) {
		r.Status, r.PaymentOwed = voucher.DealStatusFundsNeededUnseal, a.Due()
	}
	return r
}

// comesBack takes in that the client of a deal comes back. What lay on the way
// when its channel broke is sent again without charge: at most ResendAllowance at
// a time, and over all its returns no more than that and as much as was sent for
// the first time. One that lost more lost what it had received, and may buy it
// again. It comes back returnRate times a second at most, before anything is done
// for it. d.mu is held.
func (d *providerDeal) comesBack(v *channelView) error {
	if !d.returns.Allow() {
		return fmt.Errorf("%w: this deal has had too many channels in a short time", voucher.RefusedBusy)
	}
	d.measure(v)
	if why := v.overdone(); why != "" {
		return fmt.Errorf("%w: %s", voucher.RefusedResume, why)
	}
	resent := v.sentBefore.Add(v.sent).Sub(v.account.Moved)
	if resent > d.p.cfg.ResendAllowance.Add(v.account.Moved) {
		return fmt.Errorf("%w: %d bytes were sent again already, make a new deal", voucher.RefusedResume, resent)
	}
	v.returnedAt, v.started, v.held = v.account.Moved, false, false
	return nil
}

// reattach puts chid in the place of the deal's channel and says how far it may
// go. Bytes that were sent before are sent again without charge, see comesBack;
// what the new channel skips was charged, and one that skips more ends the deal
// when its first block shows it: a client that goes on behind doubles of what it
// holds skips more links, and no more bytes. None may begin before the first one. Until
// the deal has sent a block, every channel of it begins where the first one did. A channel that may not send
// anything new before it is paid for is held behind what was sent. After a restart
// of the provider it is not known what that was, and a client that owes may have
// one block: it cannot pay for one that was lost on the way.
func (d *providerDeal) reattach(chid datatransfer.ChannelID, proposal voucher.DealProposal) (validation.Grant, datatransfer.ChannelID, error) {
	if !d.proposes(proposal) {
		return validation.Grant{}, chid, fmt.Errorf("%w: deal %d is under way with other terms, use another id", voucher.RefusedTerms, proposal.ID)
	}
	meter := d.p.carrierOf(chid).meter()
	if meter == nil {
		return validation.Grant{}, chid, fmt.Errorf("%w: %s", voucher.RefusedResume, "channels are not metered here")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v := &d.view
	if err := d.comesBack(v); err != nil {
		return validation.Grant{}, chid, err
	}
	next, _ := meter(chid)
	if err := v.mayBeginAt(next.SkipLinks); err != nil {
		return validation.Grant{}, chid, err
	}
	old := v.chid
	v.pin(next.SkipLinks)
	v.sentBefore, v.sent = v.sentBefore.Add(v.sent), 0
	v.restarted, v.placed, v.offset, v.ahead, v.queued = false, false, 0, 0, 0
	grant := validation.Grant{Verdict: Deal{Phase: Moving, Ready: v.ready, Account: v.account}.verdict()}
	began := v.baseKnown || v.account.Moved > 0
	switch stopped := v.account.Moved >= grant.Verdict.Limit; {
	case !began:
	case stopped && !d.holdBack(v, chid, next):
		grant.Offset = v.account.Moved
	default:
		grant.Probe = true
	}
	if old != chid {
		d.p.carrierOf(old).hold(old, 1) // it is closed in a moment; what it sent until then would not be counted
	}
	v.chid, v.attached = chid, true
	d.confine(chid, grant.Verdict.Limit)
	return grant, old, nil
}

// confine has the guard keep the deal's channel within the deal, whatever data-transfer
// lets it do. d.mu is held, or d is new.
func (d *providerDeal) confine(chid datatransfer.ChannelID, limit voucher.Bytes) {
	from := int64(-1) // where its first block begins
	if d.view.baseKnown {
		from = int64(min(d.view.base, 1<<62))
	}
	d.p.carrierOf(chid).bound(chid, from, uint64(limit), uint64(d.view.canHold()))
}

// lose takes the deal's channel away: it was another deal's, which is on disk, and this
// one was proposed on it before that was taken up. p.mu is held.
func (d *providerDeal) lose(chid datatransfer.ChannelID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.view.chid == chid {
		d.view.chid, d.view.attached = datatransfer.ChannelID{}, false
	}
}

// mayBeginAt refuses another channel of the deal that skips so few links that it would
// be sent what lies before the deal's first block. That is in no account: it would have
// it for nothing. Where the first channel of a deal that was taken up from disk began is
// known in bytes only, and such a channel is found out by its first block, see locate.
func (v *channelView) mayBeginAt(skip int64) error {
	switch {
	case !v.pinned:
	case !v.baseKnown && skip != v.first:
		return fmt.Errorf("%w: nothing was sent yet of what begins at link %d, and this channel begins at %d", voucher.RefusedResume, v.first, skip)
	case skip < v.first:
		return fmt.Errorf("%w: the deal begins at link %d, and this channel at %d: make a new deal", voucher.RefusedResume, v.first, skip)
	}
	return nil
}

// pin notes where the deal begins, if that is not known.
func (v *channelView) pin(skip int64) {
	if !v.pinned && !v.baseKnown {
		v.first, v.pinned = skip, true
	}
}

// holdBack lets a channel that owes run behind what was sent before, and no
// further, and reports whether there is anything that it may lack. d.mu is held.
func (d *providerDeal) holdBack(v *channelView, chid datatransfer.ChannelID, next Progress) bool {
	switch {
	case !v.ready || v.account.Paid.Less(v.account.Terms.Unseal):
		return false
	case v.recalled:
		return true
	case next.SkipLinks >= v.links:
		return false
	}
	v.held = d.p.carrierOf(chid).hold(chid, v.links)
	return v.held
}

// restart is reattach for the same channel, where data-transfer's count goes on
// and stops only behind the first new block.
func (d *providerDeal) restart(chid datatransfer.ChannelID, queued voucher.Bytes) (validation.Grant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := &d.view
	if v.chid != chid && !(v.recalled && d.rec.First == uint64(chid.ID)) {
		return validation.Grant{}, fmt.Errorf("%w: the deal went on on another channel", voucher.RefusedResume)
	}
	next := Progress{}
	if d.p.cfg.Meter != nil {
		next, _ = d.p.cfg.Meter(chid)
	}
	if v.recalled { // its first channel, so that the deal's bytes are the channel's
		v.account = v.account.Move(queued)
	}
	if err := d.comesBack(v); err != nil {
		return validation.Grant{}, err
	}
	if d.p.cfg.Meter != nil {
		if err := v.mayBeginAt(next.SkipLinks); err != nil {
			return validation.Grant{}, err
		}
		v.pin(next.SkipLinks)
	}
	grant := validation.Grant{Verdict: Deal{Phase: Moving, Ready: v.ready, Account: v.account}.verdict(), Offset: v.offset, Ahead: v.ahead, Queued: queued}
	if stopped := v.account.Moved >= grant.Verdict.Limit; stopped && !d.holdBack(v, chid, next) {
		grant.Offset = v.account.Moved
	} else if stopped || v.recalled && !v.account.Terms.Free() {
		grant.Probe, grant.Offset, grant.Ahead = true, 0, 0
		v.placed, v.probed = false, queued
	}
	v.chid, v.attached, v.restarted = chid, true, true
	d.confine(chid, grant.Verdict.Limit)
	return grant, nil
}
