package retrievalmarket

import (
	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// A Phase is how far a deal has come. Whether a moving deal waits for money is
// not a phase: it is Account.Due, and is never stored.
//
//	Proposed ──accepted──▶ Moving ──ended──▶ Settling ──closed──▶ Completed
//	    │                     │                  │
//	    └──────── failed ─────┴──────────────────┴──────────────▶ Failed
type Phase uint8

// The phases, as they stand on disk: append only.
const (
	Proposed  Phase = iota + 1 // client only: no answer yet
	Moving                     // accepted; bytes move, or wait for money
	Settling                   // every byte has moved; the last payment may be outstanding
	Completed                  // final: moved and paid in full
	Failed                     // final: Deal.Status and Deal.Message say why
)

// Final reports whether no event can change a deal in this phase.
func (p Phase) Final() bool { return p == Completed || p == Failed }

// Deal is one retrieval as one side sees it. It is a value.
type Deal struct {
	Phase   Phase
	Account revalidator.Account
	End     voucher.DealStatus // how a failed deal ended: Rejected, DealNotFound, Cancelled, Errored
	Message string             // why it failed
	Ready   bool               // provider: the piece is unsealed; client: always, unsealing is the provider's part
}

// event is one thing that happened. Events carry totals, never differences, so
// that losing, repeating or merging them does no harm.
type event interface{ isEvent() }

type (
	accepted struct{}
	moved    struct{ total voucher.Bytes }
	paid     struct{ total voucher.Amount } // provider: verified and stored; client: signed and stored
	unsealed struct{}
	ended    struct{ total voucher.Bytes }
	closed   struct{} // the other side agrees that nothing is left to do
	failed   struct {
		status voucher.DealStatus
		reason string
	}
)

func (accepted) isEvent() {}
func (moved) isEvent()    {}
func (paid) isEvent()     {}
func (unsealed) isEvent() {}
func (ended) isEvent()    {}
func (closed) isEvent()   {}
func (failed) isEvent()   {}

// step returns the deal after ev. It is total and pure: every event is legal
// in every phase, and one that says nothing new returns d unchanged.
func (d Deal) step(ev event) Deal {
	if d.Phase.Final() {
		return d
	}
	switch ev := ev.(type) {
	case accepted:
		d.Phase = max(d.Phase, Moving)
	case moved:
		d.Account = d.Account.Move(ev.total)
	case paid:
		d.Account = d.Account.Pay(ev.total)
	case unsealed:
		d.Ready = true
	case ended:
		d.Account = d.Account.End(ev.total)
		d.Phase = max(d.Phase, Settling)
	case closed:
		d.Phase = Completed
		if !d.Account.Ended || !d.Account.Due().IsZero() {
			d.Phase, d.End, d.Message = Failed, voucher.DealStatusErrored, "closed before it was settled"
		}
	case failed:
		d.Phase, d.End, d.Message = Failed, ev.status, ev.reason
	}
	return d
}

// settled reports whether everything has moved and is paid.
func (d Deal) settled() bool { return d.Account.Ended && d.Account.Due().IsZero() }

// verdict is what a provider lets the deal's channel do: nothing until the
// piece is unsealed. A channel is held open at its end also where nothing is
// due: older clients wait for the word Completed, and a channel that ended by
// itself can no longer carry it.
func (d Deal) verdict() revalidator.Verdict {
	v := d.Account.Verdict()
	v.Settle = !d.settled()
	if !d.Ready {
		v.Limit = 0
	}
	return v
}

// further reports whether more may be sent than in an earlier state of d, or nothing is
// left to do. A payment that does neither is too small to be worth its signature.
func (d Deal) further(than Deal) bool {
	return than.verdict().Limit < d.verdict().Limit || d.Phase == Completed && than.Phase != Completed
}

// status derives the word that the wire and people know. The rows are tried in
// order:
//
//	phase      paid<unseal  ready  due   status
//	Failed                               how it ended
//	Completed                            Completed
//	Proposed                             New
//	any        yes                       FundsNeededUnseal
//	any                     no           Unsealing
//	Settling                       yes   FundsNeededLastPayment
//	Settling                             Finalizing
//	Moving                         yes   FundsNeeded
//	Moving                               Ongoing
func (d Deal) status() voucher.DealStatus {
	due := !d.Account.Due().IsZero()
	switch {
	case d.Phase == Failed:
		return d.End
	case d.Phase == Completed:
		return voucher.DealStatusCompleted
	case d.Phase == Proposed:
		return voucher.DealStatusNew
	case d.Account.Paid.Less(d.Account.Terms.Unseal):
		return voucher.DealStatusFundsNeededUnseal
	case !d.Ready:
		return voucher.DealStatusUnsealing
	case d.Phase == Settling && due:
		return voucher.DealStatusFundsNeededLastPayment
	case d.Phase == Settling:
		return voucher.DealStatusFinalizing
	case due:
		return voucher.DealStatusFundsNeeded
	}
	return voucher.DealStatusOngoing
}
