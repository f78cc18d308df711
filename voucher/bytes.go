package voucher

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// Bytes counts raw block bytes of unique blocks put on the wire in one deal:
// what the provider queued and the client verified, without framing.
type Bytes uint64

// MaxBytes is the largest Bytes.
const MaxBytes = ^Bytes(0)

// The units in which people give sizes.
const (
	KiB = Bytes(1) << 10
	MiB = Bytes(1) << 20
	GiB = Bytes(1) << 30
	TiB = Bytes(1) << 40
)

// Add returns b+c, or MaxBytes if the sum does not fit.
func (b Bytes) Add(c Bytes) Bytes {
	sum, carry := bits.Add64(uint64(b), uint64(c), 0)
	if carry != 0 {
		return MaxBytes
	}
	return Bytes(sum)
}

// Sub returns b-c, or zero if c > b.
func (b Bytes) Sub(c Bytes) Bytes { return b - min(b, c) }

// IEC returns b for people: in the largest unit that leaves a whole part, with
// at most two decimals, rounded down, as in "1.5 MiB".
func (b Bytes) IEC() string {
	unit, name := Bytes(1), "B"
	for _, u := range []struct {
		size Bytes
		name string
	}{{KiB, "KiB"}, {MiB, "MiB"}, {GiB, "GiB"}, {TiB, "TiB"}} {
		if b >= u.size {
			unit, name = u.size, u.name
		}
	}
	text := strconv.FormatUint(uint64(b/unit), 10)
	if hundredths := (b % unit) * 100 / unit; hundredths > 0 {
		text += strings.TrimRight(fmt.Sprintf(".%02d", hundredths), "0")
	}
	return text + " " + name
}

// ErrBytes is returned for text that is no whole number of bytes below 2^64.
var ErrBytes = errors.New("not a size (write 1048576, 1MiB or 1.5GiB)")

var byteUnits = []struct {
	name string
	size uint64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1},
}

// ParseBytes reads a size as people write it: "1048576", "1MiB", "1.5 GiB",
// "10MB". A size without a unit is in bytes. The error wraps ErrBytes.
func ParseBytes(s string) (Bytes, error) {
	text, unit := strings.ToLower(strings.TrimSpace(s)), uint64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	whole, frac, point := strings.Cut(text, ".")
	if point && frac == "" || !decimal(whole+frac) || len(whole) > 20 || len(frac) > 20 {
		return 0, fmt.Errorf("%.60q: %w", s, ErrBytes)
	}
	z, _ := new(big.Int).SetString(whole+frac, 10)
	z.Mul(z, new(big.Int).SetUint64(unit))
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(frac))), nil)
	z, rest := z.QuoRem(z, scale, new(big.Int))
	if rest.Sign() != 0 || !z.IsUint64() {
		return 0, fmt.Errorf("%.60q: %w", s, ErrBytes)
	}
	return Bytes(z.Uint64()), nil
}
