package voucher

import (
	"fmt"
	"math/big"
	"math/bits"
	"strings"
)

// Price is attoFIL per byte. The zero Price is free. It is whole: a price that
// people give per GiB is rounded up (PricePerGiB), and every place that shows
// a price shows the effective one.
type Price uint64

// PricePerGiB returns the smallest Price that makes a GiB cost at least a.
// ErrAmount if no Price is large enough.
func PricePerGiB(a Amount) (Price, error) {
	z := a.Big()
	z.Add(z, big.NewInt(int64(GiB)-1))
	z.Rsh(z, 30)
	if !z.IsUint64() {
		return 0, fmt.Errorf("price of %s per GiB is too large: %w", a.FIL(), ErrAmount)
	}
	return Price(z.Uint64()), nil
}

// ParsePricePerGiB reads a price as people write it, "0.01FIL" or
// "0.01FIL/GiB", and returns it rounded up (see PricePerGiB). The error wraps
// ErrAmount.
func ParsePricePerGiB(s string) (Price, error) {
	text := strings.TrimSpace(s)
	if i := len(text) - len("/gib"); i >= 0 && strings.EqualFold(text[i:], "/gib") {
		text = text[:i]
	}
	a, err := ParseAmount(text)
	if err != nil {
		return 0, err
	}
	return PricePerGiB(a)
}

// PerGiB returns what a GiB costs at price p.
func (p Price) PerGiB() Amount { return p.Of(GiB) }

// Of returns the price of n bytes. It is exact and cannot overflow.
func (p Price) Of(n Bytes) Amount {
	hi, lo := bits.Mul64(uint64(p), uint64(n))
	return Amount{hi, lo}
}

// Buys returns how many whole bytes a pays for, at most MaxBytes; a free price
// buys MaxBytes.
func (p Price) Buys(a Amount) Bytes {
	if a.hi >= uint64(p) { // the quotient needs more than 64 bits, or p is free
		return MaxBytes
	}
	q, _ := bits.Div64(a.hi, a.lo, uint64(p))
	return Bytes(q)
}

// Terms are the price of one deal. They are fixed when the deal is accepted.
type Terms struct {
	Unseal   Amount // due before the first byte
	Price    Price  // per byte; zero is free
	Interval Bytes  // first payment interval; above zero unless the price is
	Increase Bytes  // by how much each interval is longer than the one before
}

// Free reports whether nothing is ever due under t.
func (t Terms) Free() bool { return t.Price == 0 && t.Unseal.IsZero() }

// Cost returns the price of a transfer of n bytes, unsealing included.
func (t Terms) Cost(n Bytes) Amount { return t.Unseal.Add(t.Price.Of(n)) }

// Covered returns how many bytes a covers once unsealing is paid for.
func (t Terms) Covered(a Amount) Bytes {
	if a.Less(t.Unseal) {
		return 0
	}
	return t.Price.Buys(a.Sub(t.Unseal))
}
