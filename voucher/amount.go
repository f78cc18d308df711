package voucher

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// Amount is an exact, non-negative sum of money in attoFIL. The zero value is
// no money. Amounts are plain values: compare them with ==, copy them, use
// them as map keys. Arithmetic saturates: what does not fit is MaxAmount.
type Amount struct{ hi, lo uint64 }

// MaxAmount is the largest Amount, 2^128-1 attoFIL.
var MaxAmount = Amount{^uint64(0), ^uint64(0)}

// OneFIL is 10^18 attoFIL.
var OneFIL = Atto(1_000_000_000_000_000_000)

// Atto returns n attoFIL.
func Atto(n uint64) Amount { return Amount{lo: n} }

// IsZero reports whether a is no money at all.
func (a Amount) IsZero() bool { return a == Amount{} }

// Less reports whether a < b.
func (a Amount) Less(b Amount) bool {
	return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo
}

// Min returns the smaller of a and b.
func (a Amount) Min(b Amount) Amount {
	if b.Less(a) {
		return b
	}
	return a
}

// Max returns the larger of a and b.
func (a Amount) Max(b Amount) Amount {
	if a.Less(b) {
		return b
	}
	return a
}

// Add returns a+b, or MaxAmount if the sum does not fit.
func (a Amount) Add(b Amount) Amount {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, carry := bits.Add64(a.hi, b.hi, carry)
	if carry != 0 {
		return MaxAmount
	}
	return Amount{hi, lo}
}

// Sub returns a-b, or zero if b > a.
func (a Amount) Sub(b Amount) Amount {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, borrow := bits.Sub64(a.hi, b.hi, borrow)
	if borrow != 0 {
		return Amount{}
	}
	return Amount{hi, lo}
}

// Big returns a as a big integer that the caller owns.
func (a Amount) Big() *big.Int {
	z := new(big.Int).SetUint64(a.hi)
	z.Lsh(z, 64)
	return z.Or(z, new(big.Int).SetUint64(a.lo))
}

// ErrAmount is returned for numbers that are no Amount: negative, above
// 2^128-1, or not a number at all.
var ErrAmount = errors.New("not an amount between 0 and 2^128-1 attoFIL")

// AmountFromBig converts a big integer; nil is zero. The error is ErrAmount.
func AmountFromBig(z *big.Int) (Amount, error) {
	if z == nil {
		return Amount{}, nil
	}
	if z.Sign() < 0 || z.BitLen() > 128 {
		return Amount{}, fmt.Errorf("number of %d bits with sign %d: %w", z.BitLen(), z.Sign(), ErrAmount)
	}
	lo := new(big.Int).And(z, new(big.Int).SetUint64(^uint64(0)))
	return Amount{new(big.Int).Rsh(z, 64).Uint64(), lo.Uint64()}, nil
}

// String returns the decimal count of attoFIL, without a unit: the form for
// machines. ParseAmount reads it back with "atto" behind it.
func (a Amount) String() string {
	if a.hi == 0 {
		return strconv.FormatUint(a.lo, 10)
	}
	return a.Big().String()
}

// MarshalText writes the decimal count of attoFIL.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a decimal count of attoFIL. The error is ErrAmount.
func (a *Amount) UnmarshalText(text []byte) error {
	if len(text) > 39 || !decimal(string(text)) {
		return fmt.Errorf("%.40q: %w", text, ErrAmount)
	}
	z, _ := new(big.Int).SetString(string(text), 10)
	v, err := AmountFromBig(z)
	if err != nil {
		return err
	}
	*a = v
	return nil
}

// FIL returns a for people: exact, in FIL, without trailing zeros.
func (a Amount) FIL() string {
	whole, rest := new(big.Int).QuoRem(a.Big(), OneFIL.Big(), new(big.Int))
	frac := strings.TrimRight(fmt.Sprintf("%018s", rest.String()), "0")
	if frac == "" {
		return whole.String() + " FIL"
	}
	return whole.String() + "." + frac + " FIL"
}

// units are the parts of a FIL by name, with their powers of ten in attoFIL.
var units = []struct {
	name   string
	places int
}{{"atto", 0}, {"femto", 3}, {"pico", 6}, {"nano", 9}, {"micro", 12}, {"milli", 15}}

// ParseAmount reads money as people write it: "0.01FIL", "0.01 fil", "5nanoFIL",
// "2500atto". A bare number other than 0 has no unit and is refused, as is what
// is finer than one attoFIL. The error wraps ErrAmount.
func ParseAmount(s string) (Amount, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	if text == "0" {
		return Amount{}, nil
	}
	text, known := strings.CutSuffix(text, "fil")
	places := 18
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			text, places, known = rest, u.places, true
			break
		}
	}
	if !known {
		return Amount{}, fmt.Errorf("%.60q has no unit (write 0.01FIL or 2500atto): %w", s, ErrAmount)
	}
	a, err := parseDecimal(strings.TrimSpace(text), places)
	if err != nil {
		return Amount{}, fmt.Errorf("%.60q: %w", s, err)
	}
	return a, nil
}

// parseDecimal reads digits with at most places of them behind a point, scaled
// by 10^places.
func parseDecimal(text string, places int) (Amount, error) {
	whole, frac, point := strings.Cut(text, ".")
	if point && frac == "" || !decimal(whole+frac) || len(whole) > 39 {
		return Amount{}, ErrAmount
	}
	if len(frac) > places {
		return Amount{}, fmt.Errorf("finer than one attoFIL: %w", ErrAmount)
	}
	z, ok := new(big.Int).SetString(whole+frac+strings.Repeat("0", places-len(frac)), 10)
	if !ok {
		return Amount{}, ErrAmount
	}
	return AmountFromBig(z)
}

// decimal reports whether s is one digit or more, and nothing else.
func decimal(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return s != ""
}
