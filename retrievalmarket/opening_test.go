package retrievalmarket

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// near is a host to which everybody is connected.
type near struct{ host.Host }

func (near) ID() peer.ID              { return "provider" }
func (near) Network() network.Network { return nearNetwork{} }

type nearNetwork struct{ network.Network }

func (nearNetwork) Connectedness(peer.ID) network.Connectedness { return network.Connected }
func (nearNetwork) ConnsToPeer(peer.ID) []network.Conn          { return nil }

// sealedPieces has one piece for every root. It is unsealed when a word comes.
type sealedPieces struct {
	Pieces
	unsealed chan error
}

func (s sealedPieces) Find(c cid.Cid, _ *cid.Cid) (Piece, bool) {
	return Piece{ID: c, Size: 100, Sealed: true}, true
}

func (s sealedPieces) LinkSystem(cid.Cid) ipld.LinkSystem    { return cidlink.DefaultLinkSystem() }
func (s sealedPieces) Unseal(context.Context, cid.Cid) error { return <-s.unsealed }

type paidNode struct{ RetrievalProviderNode }

// puppet is a data-transfer manager whose part in the opening of a channel is the
// test's.
type puppet struct {
	Transfers
	validator datatransfer.RequestValidator
	options   datatransfer.TransportConfigurer

	mu   sync.Mutex
	told []datatransfer.ValidationResult // guarded by mu
}

func (p *puppet) RegisterVoucherType(t datatransfer.TypeIdentifier, v datatransfer.RequestValidator) error {
	if t == datatransfer.TypeIdentifier(voucher.ProposalType) {
		p.validator = v
	}
	return nil
}

func (p *puppet) RegisterTransportConfigurer(t datatransfer.TypeIdentifier, f datatransfer.TransportConfigurer) error {
	if t == datatransfer.TypeIdentifier(voucher.ProposalType) {
		p.options = f
	}
	return nil
}

func (p *puppet) SubscribeToEvents(datatransfer.Subscriber) datatransfer.Unsubscribe {
	return func() {}
}

func (p *puppet) UpdateValidationStatus(_ context.Context, _ datatransfer.ChannelID, r datatransfer.ValidationResult) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, r)
	return nil
}

// heard is what the manager was told.
func (p *puppet) heard() []datatransfer.ValidationResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// channelOf is the state of a channel on which a deal was proposed.
type channelOf struct {
	datatransfer.ChannelState
	proposal datamodel.Node
}

func (c channelOf) Queued() uint64 { return 0 }
func (c channelOf) Voucher() datatransfer.TypedVoucher {
	return datatransfer.TypedVoucher{Voucher: c.proposal, Type: datatransfer.TypeIdentifier(voucher.ProposalType)}
}

// opener is a provider of a sealed piece on a puppet, and what a channel begins with.
type opener struct {
	*puppet
	t        *testing.T
	pieces   sealedPieces
	chid     datatransfer.ChannelID
	root     cid.Cid
	proposal datamodel.Node
}

func newOpener(t *testing.T) *opener {
	t.Helper()
	o := &opener{puppet: &puppet{}, t: t, pieces: sealedPieces{unsealed: make(chan error, 1)},
		chid: datatransfer.ChannelID{Initiator: "client", Responder: "provider", ID: 1}, root: cid.MustParse("bafkqaaa")}
	db := testDB(t, filepath.Join(t.TempDir(), "deals.db"))
	t.Cleanup(func() { _ = db.Close() }) // nothing in it is needed any more
	terms := voucher.Ask{PricePerByte: 1, PaymentInterval: 1000}
	p, err := NewProvider(ProviderConfig{Host: near{}, Transfers: o.puppet, Pieces: o.pieces, DB: db, Node: paidNode{}, Ask: terms,
		UseStore: func(ipld.LinkSystem) datatransfer.TransportOption { return nil }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p.ctx = t.Context()
	t.Cleanup(p.done.Wait)
	if _, err := p.transfers.begin(); err != nil {
		t.Fatal(err)
	}
	o.proposal, err = voucher.DealProposal{PayloadCID: o.root, ID: 7, Params: voucher.Params{PricePerByte: 1, PaymentInterval: 1000}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// validated has the channel begun, or restarted, as far as the validator's answer.
func (o *opener) validated(restart bool) {
	o.t.Helper()
	r, err := o.validator.ValidatePull(o.chid, o.chid.Initiator, o.proposal, o.root, selectors.All())
	if restart {
		r, err = o.validator.ValidateRestart(o.chid, channelOf{proposal: o.proposal})
	}
	if err != nil || !r.Accepted || !r.ForcePause {
		o.t.Fatalf("%+v, %v", r, err)
	}
}

// opened goes on as data-transfer does when the answer is on record.
func (o *opener) opened() {
	o.options(o.chid, datatransfer.TypedVoucher{Voucher: o.proposal, Type: datatransfer.TypeIdentifier(voucher.ProposalType)})
}

// TestToldWhenOpen: what happens to a deal while data-transfer opens its channel, or
// restarts it, is told when that is done, and at once: told before, data-transfer would
// undo it. If it is never done the deal does not wait for ever.
func TestToldWhenOpen(t *testing.T) {
	for name, c := range map[string]struct {
		restart, never bool
		unsealed       error
	}{
		"unsealed":                     {},
		"unsealed, restarted":          {restart: true},
		"not to be unsealed":           {unsealed: errors.New("lost")},
		"unsealed, but never open":     {never: true},
		"not to be unsealed nor open":  {never: true, unsealed: errors.New("lost")},
		"not to be unsealed, and anew": {restart: true, unsealed: errors.New("lost")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOpener(t)
				o.validated(false)
				if c.restart {
					o.opened()
					o.validated(true)
				}
				o.pieces.unsealed <- c.unsealed
				time.Sleep(2 * acceptanceLead) // of the bubble's clock, as below
				synctest.Wait()
				if told := o.heard(); len(told) != 0 {
					t.Fatalf("told %+v while the channel was opened", told)
				}
				if c.never {
					time.Sleep(tellTimeout)
				} else {
					o.opened()
				}
				time.Sleep(2 * acceptanceLead)
				synctest.Wait()
				if told := o.heard(); len(told) == 0 || told[0].Accepted != (c.unsealed == nil) || told[0].ForcePause {
					t.Errorf("told %+v", told)
				}
			})
		})
	}
}
