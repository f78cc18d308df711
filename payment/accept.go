package payment

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

var (
	// ErrVoucher is wrapped when a voucher is not one of this rail, or not one
	// for this payee: malformed, forged, for another channel, or with
	// conditions. It never becomes good.
	ErrVoucher = errors.New("voucher refused")
	// ErrVoucherConflict is wrapped when a voucher is good alone, but cannot be
	// from the same honest payer as one that was taken before.
	ErrVoucherConflict = errors.New("voucher contradicts an earlier one")
)

// claim is what a good voucher says.
type claim struct {
	channel address.Address
	payer   address.Address
	lane    uint64
	nonce   uint64
	amount  voucher.Amount
	raw     []byte // the voucher as CBOR
}

// examine returns what v says if it is a voucher that its signer gave to payee.
// It is pure: whether the voucher is news is for credit to say. The error wraps
// ErrVoucher.
func examine(v *voucher.SignedVoucher, payee address.Address) (claim, error) {
	amount, err := plain(v)
	if err != nil {
		return claim{}, fmt.Errorf("%w: %w", ErrVoucher, err)
	}
	payer, err := voucher.Signer(v)
	if err != nil {
		return claim{}, fmt.Errorf("%w: %w", ErrVoucher, err)
	}
	channel, err := ChannelAddress(payer, payee)
	if err != nil {
		return claim{}, fmt.Errorf("%w: %w", ErrVoucher, err)
	}
	if v.ChannelAddr != channel {
		return claim{}, fmt.Errorf("%w: it is for channel %s, but what %s signed for %s is for %s",
			ErrVoucher, v.ChannelAddr, payer, payee, channel)
	}
	var raw bytes.Buffer
	if err := v.MarshalCBOR(&raw); err != nil {
		return claim{}, fmt.Errorf("%w: encode: %w", ErrVoucher, err)
	}
	return claim{channel, payer, v.Lane, v.Nonce, amount, raw.Bytes()}, nil
}

// plain returns the amount of v if it is owed without conditions.
func plain(v *voucher.SignedVoucher) (voucher.Amount, error) {
	switch {
	case v == nil:
		return voucher.Amount{}, errors.New("there is none")
	case v.Extra != nil:
		return voucher.Amount{}, errors.New("it has an extra condition, which this rail does not know")
	case v.TimeLockMin != 0 || v.TimeLockMax != 0:
		return voucher.Amount{}, errors.New("it has a time lock, which this rail does not know")
	case len(v.SecretHash) != 0:
		return voucher.Amount{}, errors.New("it has a secret lock, which this rail does not know")
	case len(v.Merges) != 0:
		return voucher.Amount{}, errors.New("it merges lanes, which this rail does not do")
	case v.MinSettleHeight != 0:
		return voucher.Amount{}, errors.New("it has a settlement height, which this rail does not know")
	case v.Lane > maxLane:
		return voucher.Amount{}, fmt.Errorf("its lane %d is above 2^63-1", v.Lane)
	case v.Nonce == 0:
		return voucher.Amount{}, errors.New("its nonce is zero: the first one is 1")
	}
	amount, err := voucher.AmountFromBig(v.Amount.Int)
	if err == nil && amount.IsZero() {
		err = errors.New("it is for no money")
	}
	return amount, err
}

// news reports whether c is for more than the lane is worth. What is for no
// more changes nothing, whatever its nonce: a payer whose disk lost its last
// vouchers signs for less again, and goes on from there. The error wraps
// ErrVoucherConflict if c is for more without being newer.
func (l Lane) news(c claim) (bool, error) {
	switch {
	case !l.Amount.Less(c.amount):
		return false, nil
	case l.Nonce == 0, c.nonce > l.Nonce:
		return true, nil
	}
	return false, fmt.Errorf("%w: lane %d is worth %s with nonce %d, this one says %s with nonce %d",
		ErrVoucherConflict, l.Lane, l.Amount.FIL(), l.Nonce, c.amount.FIL(), c.nonce)
}
