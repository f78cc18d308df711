package payment

import (
	"database/sql/driver"
	"fmt"
	"math/big"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// amountColumn is an Amount in the database: 16 big-endian bytes.
type amountColumn voucher.Amount

func (a amountColumn) Value() (driver.Value, error) {
	return voucher.Amount(a).Big().FillBytes(make([]byte, 16)), nil
}

func (a *amountColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != 16 {
		return fmt.Errorf("amount of %d bytes instead of 16: the database is damaged, restore it from a copy", len(b))
	}
	amount, err := voucher.AmountFromBig(new(big.Int).SetBytes(b))
	*a = amountColumn(amount)
	return err
}

// addressColumn is an Address in the database: its bytes.
type addressColumn address.Address

func (a addressColumn) Value() (driver.Value, error) {
	return address.Address(a).Bytes(), nil
}

func (a *addressColumn) Scan(v any) error {
	b, _ := v.([]byte)
	addr, err := address.NewFromBytes(b)
	if err != nil {
		return fmt.Errorf("%w: the database is damaged, restore it from a copy", err)
	}
	*a = addressColumn(addr)
	return nil
}

// add returns a+b, and false if the sum does not fit an Amount.
func add(a, b voucher.Amount) (voucher.Amount, bool) {
	sum := a.Add(b)
	return sum, sum.Sub(a) == b
}
