package voucher

import (
	"encoding/binary"
	"fmt"
)

// maxMagnitude is the length of MaxAmount in bytes.
const maxMagnitude = 16

// wire returns a in the form of Filecoin: no bytes for zero, else a zero for
// the sign and the magnitude, big endian, without leading zeros.
func (a Amount) wire() []byte {
	if a.IsZero() {
		return nil
	}
	var b [1 + maxMagnitude]byte
	binary.BigEndian.PutUint64(b[1:], a.hi)
	binary.BigEndian.PutUint64(b[9:], a.lo)
	i := 1
	for b[i] == 0 {
		i++
	}
	return b[i-1:] // what is before the magnitude is zero, as the sign is
}

// amountFromWire reads what wire writes and nothing else: a leading zero or a
// sign without a magnitude is refused, so that what is read and written again
// stays what was signed. No implementation is known to write either. The error
// wraps ErrAmount.
func amountFromWire(b []byte) (Amount, error) {
	switch {
	case len(b) == 0:
		return Amount{}, nil
	case b[0] != 0:
		return Amount{}, fmt.Errorf("sign byte %d: %w", b[0], ErrAmount)
	case len(b) == 1 || b[1] == 0:
		return Amount{}, fmt.Errorf("written with leading zeros: %w", ErrAmount)
	case len(b) > 1+maxMagnitude:
		return Amount{}, fmt.Errorf("%d bytes: %w", len(b)-1, ErrAmount)
	}
	var m [maxMagnitude]byte
	copy(m[maxMagnitude-(len(b)-1):], b[1:])
	return Amount{binary.BigEndian.Uint64(m[:8]), binary.BigEndian.Uint64(m[8:])}, nil
}
