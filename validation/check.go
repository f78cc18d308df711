// Package validation decides whether a deal may begin: a proposal against the
// ask, the root, the selector and the goods. It answers once, from the
// outside; how far an accepted deal may run is revalidator's answer.
package validation

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// MinInterval is the smallest payment interval a paid deal may have unless the
// ask itself is smaller. Each boundary costs the provider a signature check
// and a write to disk.
const MinInterval = voucher.Bytes(1 << 10)

// Offer is what a provider has for one client: the ask that holds for it, and
// how its selectors are bounded.
type Offer struct {
	Ask    voucher.Ask
	Limits selectors.Limits
}

// Check reports why a proposal may not begin, as an error that wraps a
// voucher.Refusal, or nil. root and sel are what the transfer itself asks for,
// which must be what the proposal says; a null selector in the proposal means
// the whole DAG. It is pure, and runs in time bounded by the offer's limits.
func Check(o Offer, p voucher.DealProposal, root cid.Cid, sel datamodel.Node) error {
	if !p.PayloadCID.Equals(root) {
		return fmt.Errorf("%w: the proposal is for %s, the transfer for %s", voucher.RefusedRoot, p.PayloadCID, root)
	}
	if err := selectors.Check(sel, o.Limits); err != nil {
		return fmt.Errorf("%w: %w", voucher.RefusedSelector, err)
	}
	if !selectors.Equal(p.Params.Selector, sel) {
		return fmt.Errorf("%w: the proposal and the transfer select different parts", voucher.RefusedSelector)
	}
	return checkTerms(o.Ask, p.Params)
}

// checkTerms compares the offered terms with the ask. Prices are minima,
// intervals maxima. A free deal has no intervals to compare.
func checkTerms(ask voucher.Ask, p voucher.Params) error {
	switch {
	case p.PricePerByte < ask.PricePerByte:
		return fmt.Errorf("%w: %d attoFIL per byte offered, %d asked", voucher.RefusedPrice, p.PricePerByte, ask.PricePerByte)
	case p.UnsealPrice.Less(ask.UnsealPrice):
		return fmt.Errorf("%w: %s attoFIL offered for unsealing, %s asked", voucher.RefusedUnsealPrice, p.UnsealPrice, ask.UnsealPrice)
	case p.PricePerByte == 0:
		return nil
	case p.PaymentInterval < min(MinInterval, max(ask.PaymentInterval, 1)):
		return fmt.Errorf("%w: a payment interval of %d bytes is too small, use %d", voucher.RefusedInterval, p.PaymentInterval, ask.PaymentInterval)
	case ask.PricePerByte != 0 && p.PaymentInterval > ask.PaymentInterval:
		return fmt.Errorf("%w: a payment interval of %d bytes offered, at most %d", voucher.RefusedInterval, p.PaymentInterval, ask.PaymentInterval)
	case ask.PricePerByte != 0 && p.PaymentIntervalIncrease > ask.PaymentIntervalIncrease:
		return fmt.Errorf("%w: an interval increase of %d bytes offered, at most %d", voucher.RefusedInterval, p.PaymentIntervalIncrease, ask.PaymentIntervalIncrease)
	}
	return nil
}
