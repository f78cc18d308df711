// Package revalidator decides whether a deal may go on: bytes against money.
//
// Both sides of a deal hold an Account and compute the same answers from the
// same Account, so nobody needs to ask for money: the provider stops at Limit,
// and the client knows that it will. The package is pure arithmetic on values:
// no clock, no IO, no goroutine, no error.
package revalidator

import "github.com/tollgraph/tollgraph/voucher"

// Account is what one side knows about one deal: bytes moved and money moved.
type Account struct {
	Terms voucher.Terms
	// Credit is what the operator lets run beyond each boundary, in bytes.
	// The client, who is not told, leaves it 0.
	Credit voucher.Bytes
	// Moved is the total of block bytes: queued, at the provider; verified and
	// on disk, at the client. It never falls.
	Moved voucher.Bytes
	// Paid is cumulative: verified and stored at the provider, signed and
	// stored at the client. It never falls.
	Paid voucher.Amount
	// Ended says that no more bytes will move.
	Ended bool
}

// Move returns a with n bytes moved in total. Old news leaves a unchanged.
func (a Account) Move(n voucher.Bytes) Account {
	a.Moved = max(a.Moved, n)
	return a
}

// Pay returns a with m paid in total. Old news leaves a unchanged, so a
// payment may arrive twice, late or out of order.
func (a Account) Pay(m voucher.Amount) Account {
	a.Paid = a.Paid.Max(m)
	return a
}

// End returns a with the transfer over at n bytes.
func (a Account) End(n voucher.Bytes) Account {
	a = a.Move(n)
	a.Ended = true
	return a
}

// Limit returns the total of bytes at which the provider stops: the first
// boundary above what is paid for, plus Credit. It is 0 until unsealing is
// paid and voucher.MaxBytes when bytes are free.
func (a Account) Limit() voucher.Bytes {
	switch {
	case a.Paid.Less(a.Terms.Unseal):
		return 0
	case a.Terms.Price == 0:
		return voucher.MaxBytes
	}
	return NextBoundary(a.Terms, a.Terms.Covered(a.Paid)).Add(a.Credit)
}

// Due returns what must be paid on top of Paid before the transfer may go on
// or, once it has ended, before the deal may close. While bytes move it is
// counted to the last boundary passed, so that paying it always resumes; the
// overshoot of at most one block falls due with the next interval.
func (a Account) Due() voucher.Amount {
	switch {
	case a.Ended:
		return a.Terms.Cost(a.Moved).Sub(a.Paid)
	case a.Moved < a.Limit():
		return voucher.Amount{}
	}
	return a.Terms.Cost(LastBoundary(a.Terms, a.Moved)).Sub(a.Paid)
}

// Verdict is what the provider lets a channel do. It is comparable, so that it
// need only be passed on when it changes.
type Verdict struct {
	Limit  voucher.Bytes // total of bytes: 0 holds the channel, MaxBytes frees it
	Settle bool          // keep the channel open at the end, for a last payment
}

// Verdict returns what a provider that holds a must let the channel do. A free
// deal is never held open at its end; a paid one is until nothing is due.
func (a Account) Verdict() Verdict {
	settled := a.Ended && a.Due().IsZero()
	return Verdict{Limit: a.Limit(), Settle: !a.Terms.Free() && !settled}
}
