package revalidator

import "github.com/tollgraph/tollgraph/voucher"

// Purse is how far a client goes with its money in one deal.
type Purse struct {
	// Budget is the most that the deal may cost, unsealing included.
	Budget voucher.Amount
	// AtRisk is how many bytes the client pays ahead of what it holds verified
	// and on disk. 0 pays strictly after receipt.
	AtRisk voucher.Bytes
	// Window is how many bytes the client wants to be able to receive before
	// the provider stops: rate × round-trip time, and what is queued on the
	// way. More than AtRisk is never used.
	Window voucher.Bytes
	// Trip is how many bytes arrive while a payment is on its way there and back.
	Trip voucher.Bytes
	// Expected is the total that the provider quoted for the selection. The
	// client never pays ahead of it; 0 means unknown and pays nothing ahead,
	// since the end may be the next block.
	Expected voucher.Bytes
}

// Ceiling returns the largest cumulative amount that p lets a client with
// account a sign: the cost of what it holds plus AtRisk, within Budget.
// Unsealing, which buys no bytes, is always part of it.
func (p Purse) Ceiling(a Account) voucher.Amount {
	ahead := min(p.AtRisk, p.Expected.Sub(a.Moved))
	if a.Ended {
		ahead = 0
	}
	return a.Terms.Cost(a.Moved.Add(ahead)).Min(p.Budget)
}

// Next returns the cumulative amount that a client with account a should sign
// now, and false if it should sign nothing. It signs when the transfer has
// ended, when the provider stands still, or when less than the window is left
// before a limit at which the provider will stop and a payment raises it. It
// never signs above Ceiling.
func (p Purse) Next(a Account) (voucher.Amount, bool) {
	ceiling := p.Ceiling(a)
	limit, window := a.Limit(), min(p.Window, p.AtRisk)
	want := a.Terms.Cost(a.Moved)
	switch {
	case a.Ended || a.Moved >= limit:
		if !a.Ended {
			want = a.Terms.Cost(a.Moved.Add(window).Add(window))
		}
	case a.Terms.Price == 0 || limit-a.Moved >= window || p.Expected != 0 && limit > p.Expected:
		return voucher.Amount{}, false
	default:
		want = a.Terms.Cost(a.Moved.Add(window).Add(window))
		if a.Pay(want.Min(ceiling)).Limit() <= limit {
			return voucher.Amount{}, false
		}
	}
	want = want.Min(ceiling)
	return want, a.Paid.Less(want)
}

// Look returns how many bytes must have moved for a client with account a to look
// again whether to sign: it is where less than the window is left before the limit, and
// less than a quarter of what it may pay ahead, or it would sign for each interval, or less
// than arrives in two trips of a payment, if that is more; at the limit if it pays
// nothing ahead. It may look, and sign, earlier.
func (p Purse) Look(a Account) voucher.Bytes {
	if a.Ended || a.Terms.Price == 0 {
		return voucher.MaxBytes
	}
	left := min(p.Window, p.AtRisk, max(p.AtRisk/4, p.Trip.Add(p.Trip)))
	if left > 0 {
		left--
	}
	return a.Limit().Sub(left)
}

// Short returns how much more budget a client with account a needs before the
// deal can go on, and zero if it has enough for what is due now.
func (p Purse) Short(a Account) voucher.Amount {
	return a.Paid.Add(a.Due()).Sub(p.Budget)
}
