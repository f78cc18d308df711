package payment

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// maxNote bounds the note of a settlement, in bytes.
const maxNote = 1024

// SetCredit stores how much payer may owe, instead of the default; zero is no
// credit. A line below what is owed already only stops further credit.
func (t *Till) SetCredit(ctx context.Context, payer address.Address, line voucher.Amount) error {
	channel, err := t.channelOf(payer)
	if err == nil {
		err = t.ledger.do(ctx, func(x *tx) error {
			x.openAccount(channel, payer, t.payee)
			x.exec(`UPDATE payment_accounts SET line = ? WHERE channel = ?`, amountColumn(line), addressColumn(channel))
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("set credit of %s: %w", payer, err)
	}
	return nil
}

// Credit returns how much payer may owe and how much it does owe.
func (t *Till) Credit(ctx context.Context, payer address.Address) (line, owed voucher.Amount, err error) {
	channel, err := t.channelOf(payer)
	if err != nil {
		return line, owed, fmt.Errorf("credit of %s: %w", payer, err)
	}
	err = t.ledger.read(ctx, func(x *tx) error {
		a := t.account(x, payer, channel)
		line, owed = a.Line, a.Owed
		return nil
	})
	return line, owed, err
}

// Settle records that payer paid amount by other means; note says which. Every
// call records another payment. What is paid beyond the debt is prepaid: it is
// credit that needs no line.
func (t *Till) Settle(ctx context.Context, payer address.Address, amount voucher.Amount, note string) error {
	channel, err := t.channelOf(payer)
	if err == nil {
		err = t.ledger.do(ctx, func(x *tx) error { return t.settle(x, payer, channel, amount, note) })
	}
	if err != nil {
		return fmt.Errorf("settle %s of %s: %w", amount.FIL(), payer, err)
	}
	return nil
}

func (t *Till) settle(x *tx, payer, channel address.Address, amount voucher.Amount, note string) error {
	settled, fits := add(t.account(x, payer, channel).Settled, amount)
	switch {
	case amount.IsZero():
		return errors.New("there is nothing to record")
	case len(note) > maxNote || !utf8.ValidString(note):
		return fmt.Errorf("the note must be text of at most %d bytes", maxNote)
	case !fits:
		return fmt.Errorf("settled in total: %w", voucher.ErrAmount)
	}
	x.openAccount(channel, payer, t.payee)
	x.exec(`INSERT INTO payment_settlements (channel, at, amount, note) VALUES (?, ?, ?, ?)`,
		addressColumn(channel), t.now().Unix(), amountColumn(amount), note)
	x.exec(`UPDATE payment_accounts SET settled = ? WHERE channel = ?`, amountColumn(settled), addressColumn(channel))
	return nil
}

// channelOf returns the channel of payer, which must be able to sign.
func (t *Till) channelOf(payer address.Address) (address.Address, error) {
	if payer == address.Undef || payer.Protocol() != address.SECP256K1 {
		return address.Undef, errors.New("not an f1 address: only the address of a secp256k1 key pays on account")
	}
	return ChannelAddress(payer, t.payee)
}
