package payment

import (
	"context"
	"fmt"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// orderSchema says which lanes pay for the same order. A database of a program
// that did not know of it lacks it; a lane that is not in it is an order of its own.
const orderSchema = `
CREATE TABLE IF NOT EXISTS payment_orders (
	channel BLOB NOT NULL, lane INTEGER NOT NULL,
	number  INTEGER NOT NULL, -- of the order, the payer's own
	PRIMARY KEY (channel, lane)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS payment_orders_number ON payment_orders (number);
`

// JoinOrder makes lane count, by Policy.PerDeal, together with all other lanes of
// the same order, in whatever channels they are. A lane is in one order for good:
// the first call decides. It is on disk with the lane's first voucher at the latest.
func (w *Wallet) JoinOrder(ctx context.Context, channel address.Address, lane, order uint64) error {
	err := w.ledger.soon(ctx, func(t *tx) error {
		if _, err := w.payee(t, channel); err != nil {
			return err
		}
		if _, _, ok := t.lane(channel, lane); !ok {
			return ErrUnknownLane
		}
		t.exec(`INSERT INTO payment_orders VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, addressColumn(channel), int64(lane), int64(order))
		return nil
	})
	if err != nil {
		return fmt.Errorf("order %d of lane %d in %s: %w", order, lane, channel, err)
	}
	return nil
}

// restOfOrder returns what the other lanes of the order of lane are worth. It is
// asked for only where a limit depends on it.
func (t *tx) restOfOrder(channel address.Address, lane uint64) (sum voucher.Amount) {
	var amount voucher.Amount
	t.rows(`SELECT l.amount FROM payment_orders o JOIN payment_orders p ON p.number = o.number
		JOIN payment_lanes l ON l.channel = p.channel AND l.lane = p.lane
		WHERE o.channel = ?1 AND o.lane = ?2 AND (l.channel <> ?1 OR l.lane <> ?2)`,
		[]any{addressColumn(channel), int64(lane)}, []any{(*amountColumn)(&amount)}, func() { sum = sum.Add(amount) })
	return sum
}
