package main

import (
	"context"
	"sync"
	"time"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/voucher"
)

// creditHint is what queries say of credit: what any payer is lent, and nothing
// if some payers have terms of their own, since then nothing is true of all. To
// know, every account must be compared; so that a query takes as long with a
// million accounts as with one, that is done once, and again only after the
// operator changed one. Payments do not matter: they open accounts on the terms
// of all, and never make special what was not.
type creditHint struct {
	till     *payment.Till
	settings settings

	mu      sync.Mutex
	known   bool  // guarded by mu
	general bool  // guarded by mu; no payer has terms of its own
	version int64 // guarded by mu; of settingCredit, when that was found out
}

// line returns the hint for a query.
func (h *creditHint) line() *voucher.Amount { return h.find(context.Background()) }

// find returns the hint, or nil if ctx ends before it is known.
func (h *creditHint) find(ctx context.Context) *voucher.Amount {
	var version int64
	if _, err := h.settings.get(ctx, settingCredit, &version); err != nil {
		return nil // it is only a hint; whether a payment is good is decided when it comes
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.known || h.version != version {
		general, err := h.till.Alike(ctx)
		if err != nil {
			return nil
		}
		h.known, h.general, h.version = true, general, version
	}
	if !h.general {
		return nil
	}
	line := h.till.DefaultCredit()
	return &line
}

// creditChanged tells the node that runs on the repo, in whatever process, that
// an account has other terms now. It comes after the change.
func (s settings) creditChanged(ctx context.Context) error {
	return s.set(ctx, settingCredit, time.Now().UnixNano()) // two commands at once must not agree on a next number
}
