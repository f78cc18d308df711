package retrievalmarket

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// maxVouchers is how many payments a deal may need where they travel as
// data-transfer vouchers. data-transfer keeps them all in one record of the
// channel and cannot read it again above 8,192; half of that leaves room for
// those that are sent twice.
const maxVouchers = 4000

// ErrTooManyPayments means that the provider knows no payment stream, and the
// deal would need more payments than data-transfer can carry.
var ErrTooManyPayments = errors.New("too many payments")

// asVouchers reports whether payments to a connected provider have to go as
// data-transfer vouchers. One that has not said what it speaks may take them
// otherwise; the courier will find out.
func (c *Client) asVouchers(p peer.ID) bool {
	lacks, known := c.lacksStream(p)
	return c.cfg.VouchersOnly || known && lacks
}

// lacksStream reports whether a provider takes no payments on a stream of their
// own, and whether that is known: a connection may be in use before the other side
// has said what it speaks.
func (c *Client) lacksStream(p peer.ID) (lacks, known bool) {
	all, err := c.cfg.Host.Peerstore().GetProtocols(p)
	if err != nil || len(all) == 0 {
		return false, false
	}
	return !slices.Contains(all, PaymentProtocol), true
}

// know waits until the provider of r has said what it speaks, if it was asked, which
// takes as long, or if it depends on that whether the deal can be paid. Another deal is
// proposed at once, which saves a round trip where the connection is new: on
// data-transfer, see checkCarrier.
func (c *Client) know(ctx context.Context, r Request, terms voucher.Terms, expected, risk Bytes) {
	if r.Ask == nil || carriable(terms, expected, risk) != nil {
		c.identify(ctx, r.Provider.ID)
	}
}

// carriable refuses a deal that would die of its payments midway. A client pays
// at every interval, or in steps of an eighth of what it risks where that is
// more.
func carriable(terms voucher.Terms, expected, risk Bytes) error {
	if terms.Free() || revalidator.Boundary(terms, maxVouchers) >= expected || risk/8 >= expected/maxVouchers+1 {
		return nil
	}
	return fmt.Errorf("%w: the provider takes them only within data-transfer, at most %d in one deal, and %d bytes at an interval of %d need more; "+
		"allow at least %d bytes at risk, or retrieve a part of it",
		ErrTooManyPayments, maxVouchers, expected, terms.Interval, 8*(expected/maxVouchers+1))
}
