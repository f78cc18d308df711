package voucher

import "errors"

// ErrNoInterval is returned for a price per byte without a payment interval:
// the provider could never tell how far to send.
var ErrNoInterval = errors.New("a price per byte needs a payment interval above zero")

// Ask is what a provider charges. PricePerByte and UnsealPrice are minima, the
// intervals maxima. The zero Ask gives everything away.
type Ask struct {
	PricePerByte            Price
	UnsealPrice             Amount
	PaymentInterval         Bytes
	PaymentIntervalIncrease Bytes
}

// Validate returns ErrNoInterval if a costs money per byte and has no interval.
func (a Ask) Validate() error {
	if a.PricePerByte != 0 && a.PaymentInterval == 0 {
		return ErrNoInterval
	}
	return nil
}

// Terms returns the terms of a deal at exactly a.
func (a Ask) Terms() Terms {
	return Terms{
		Unseal: a.UnsealPrice, Price: a.PricePerByte,
		Interval: a.PaymentInterval, Increase: a.PaymentIntervalIncrease,
	}
}
