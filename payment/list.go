package payment

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/filecoin-project/go-address"
)

// Channels returns the channels that the wallet pays in, by address.
func (w *Wallet) Channels(ctx context.Context) ([]Channel, error) {
	var list []Channel
	err := w.ledger.read(ctx, func(t *tx) error {
		var c Channel
		t.rows(`SELECT channel, payer, payee, funds, total FROM payment_channels WHERE payer = ? ORDER BY channel`,
			[]any{addressColumn(w.Address())},
			[]any{(*addressColumn)(&c.Address), (*addressColumn)(&c.Payer), (*addressColumn)(&c.Payee),
				(*amountColumn)(&c.Funds), (*amountColumn)(&c.Total)},
			func() { list = append(list, c) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	return list, nil
}

// Lanes returns the lanes of channel, by number. The error wraps ErrUnknownLane
// if the wallet does not pay in it.
func (w *Wallet) Lanes(ctx context.Context, channel address.Address) ([]Lane, error) {
	var list []Lane
	err := w.ledger.read(ctx, func(t *tx) error {
		if _, err := w.payee(t, channel); err != nil {
			return err
		}
		var l Lane
		var lane, nonce int64
		t.rows(`SELECT lane, nonce, amount, budget FROM payment_lanes WHERE channel = ? ORDER BY lane`,
			[]any{addressColumn(channel)},
			[]any{&lane, &nonce, (*amountColumn)(&l.Amount), (*amountColumn)(&l.Budget)},
			func() {
				l.Lane, l.Nonce = uint64(lane), uint64(nonce)
				list = append(list, l)
			})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list lanes of %s: %w", channel, err)
	}
	return list, nil
}

// Channels returns the accounts of all payers of the till's payee, by address.
func (t *Till) Channels(ctx context.Context) ([]Channel, error) {
	var list []Channel
	err := t.ledger.read(ctx, func(x *tx) error {
		var c Channel
		var line sql.Null[amountColumn]
		x.rows(`SELECT channel, payer, payee, line, total, settled FROM payment_accounts WHERE payee = ? ORDER BY channel`,
			[]any{addressColumn(t.payee)},
			[]any{(*addressColumn)(&c.Address), (*addressColumn)(&c.Payer), (*addressColumn)(&c.Payee),
				&line, (*amountColumn)(&c.Total), (*amountColumn)(&c.Settled)},
			func() { list = append(list, t.complete(c, line)) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return list, nil
}

// Alike reports whether the same holds for all payers of the till's payee: none has a line
// other than that of all, or has settled more than it owed. No account is brought into
// memory for that.
func (t *Till) Alike(ctx context.Context) (bool, error) {
	var other bool
	err := t.ledger.read(ctx, func(x *tx) error {
		x.row(`SELECT EXISTS (SELECT 1 FROM payment_accounts WHERE payee = ? AND (line <> ? OR total < settled))`,
			[]any{addressColumn(t.payee), amountColumn(t.DefaultCredit())}, &other)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("compare accounts: %w", err)
	}
	return !other, nil
}

// Lanes returns the lanes of channel that were paid on, by number: none if
// nothing was.
func (t *Till) Lanes(ctx context.Context, channel address.Address) ([]Lane, error) {
	var list []Lane
	err := t.ledger.read(ctx, func(x *tx) error {
		for _, l := range x.evidence("payment_credits", channel) {
			list = append(list, Lane{Lane: l.Lane, Nonce: l.Nonce, Amount: l.Amount})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list lanes of %s: %w", channel, err)
	}
	return list, nil
}
