package payment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// A Statement is what one side says about a channel, with the proof: the best
// voucher of every lane. It can be written as JSON, sent to the other side or to
// anyone, and checked there with VerifyStatement.
type Statement struct {
	Rail    string
	Channel address.Address
	Payer   address.Address
	Payee   address.Address

	Lanes []StatementLane // by rising number; those with a voucher
	Total voucher.Amount  // the sum of Lanes

	// What the payee records as paid by other means. A payer's statement has none.
	Settlements []Settlement   `json:",omitempty"`
	Settled     voucher.Amount `json:",omitzero"` // the sum of Settlements
	Owed        voucher.Amount // Total - Settled, zero if prepaid
}

// StatementLane is the account of one deal.
type StatementLane struct {
	Lane    uint64
	Nonce   uint64
	Amount  voucher.Amount // cumulative
	Voucher []byte         // the signed voucher as CBOR
}

// Settlement is a payment by other means. It is what the payee says: nothing
// in a Statement proves it.
type Settlement struct {
	At     time.Time // UTC, whole seconds
	Amount voucher.Amount
	Note   string
}

// ErrStatement is wrapped when a statement does not prove what it says.
var ErrStatement = errors.New("statement is wrong")

// maxVoucher is more than any voucher without conditions has as CBOR.
const maxVoucher = 512

// Statement returns the account of provider: what the wallet signed.
func (w *Wallet) Statement(ctx context.Context, provider address.Address) (Statement, error) {
	channel, err := ChannelAddress(w.Address(), provider)
	if err != nil {
		return Statement{}, err
	}
	s := Statement{Rail: Rail, Channel: channel, Payer: w.Address(), Payee: provider}
	err = w.ledger.read(ctx, func(t *tx) error {
		if _, err := w.payee(t, channel); err != nil {
			return err
		}
		s.Total = t.channelTotal(channel)
		s.Lanes = t.evidence("payment_lanes", channel)
		return nil
	})
	if err != nil {
		return Statement{}, fmt.Errorf("statement for %s: %w", provider, err)
	}
	s.Owed = s.Total
	return s, nil
}

// Statement returns the account of payer: what was credited and settled.
func (t *Till) Statement(ctx context.Context, payer address.Address) (Statement, error) {
	channel, err := t.channelOf(payer)
	if err != nil {
		return Statement{}, fmt.Errorf("statement for %s: %w", payer, err)
	}
	s := Statement{Rail: Rail, Channel: channel, Payer: payer, Payee: t.payee}
	err = t.ledger.read(ctx, func(x *tx) error {
		if !x.row(`SELECT 1 FROM payment_accounts WHERE channel = ?`, []any{addressColumn(channel)}, new(int)) {
			return ErrUnknownLane
		}
		a := t.account(x, payer, channel)
		s.Total, s.Settled, s.Owed = a.Total, a.Settled, a.Owed
		s.Lanes, s.Settlements = x.evidence("payment_credits", channel), x.settlements(channel)
		return nil
	})
	if err != nil {
		return Statement{}, fmt.Errorf("statement for %s: %w", payer, err)
	}
	return s, nil
}

// evidence returns the lanes in table that have a voucher.
func (t *tx) evidence(table string, channel address.Address) []StatementLane {
	var lanes []StatementLane
	var l StatementLane
	var lane, nonce int64
	t.rows(`SELECT lane, nonce, amount, voucher FROM `+table+` WHERE channel = ? AND nonce <> 0 ORDER BY lane`,
		[]any{addressColumn(channel)}, []any{&lane, &nonce, (*amountColumn)(&l.Amount), &l.Voucher}, func() {
			lanes = append(lanes, StatementLane{uint64(lane), uint64(nonce), l.Amount, bytes.Clone(l.Voucher)})
		})
	return lanes
}

func (t *tx) settlements(channel address.Address) []Settlement {
	var list []Settlement
	var s Settlement
	var at int64
	t.rows(`SELECT at, amount, note FROM payment_settlements WHERE channel = ? ORDER BY id`,
		[]any{addressColumn(channel)}, []any{&at, (*amountColumn)(&s.Amount), &s.Note}, func() {
			list = append(list, Settlement{time.Unix(at, 0).UTC(), s.Amount, s.Note})
		})
	return list
}

// VerifyStatement returns nil if every lane of s is proven by a voucher that the
// payer signed for the payee, and the sums are right. It needs nothing but s, and
// does not believe it: s may come from anyone. It cannot know of lanes that s
// leaves out, nor whether the settlements were made. The error wraps
// ErrStatement.
func VerifyStatement(s Statement) error {
	if s.Rail != Rail {
		return fmt.Errorf("%w: its rail is %.40q, this program knows %q", ErrStatement, s.Rail, Rail)
	}
	channel, err := ChannelAddress(s.Payer, s.Payee)
	if err != nil || channel != s.Channel {
		return fmt.Errorf("%w: channel %s is not that from %s to %s", ErrStatement, s.Channel, s.Payer, s.Payee)
	}
	var total, settled voucher.Amount
	fits := true
	for i, l := range s.Lanes {
		if i > 0 && l.Lane <= s.Lanes[i-1].Lane {
			return fmt.Errorf("%w: lane %d is out of order or there twice", ErrStatement, l.Lane)
		}
		if err := l.verify(s.Payer, s.Payee); err != nil {
			return fmt.Errorf("%w: lane %d: %w", ErrStatement, l.Lane, err)
		}
		if total, fits = add(total, l.Amount); !fits {
			return fmt.Errorf("%w: the sum of its lanes is too large", ErrStatement)
		}
	}
	for _, p := range s.Settlements {
		if settled, fits = add(settled, p.Amount); !fits {
			return fmt.Errorf("%w: the sum of its settlements is too large", ErrStatement)
		}
	}
	if total != s.Total || settled != s.Settled || total.Sub(settled) != s.Owed {
		return fmt.Errorf("%w: its sums are total %s, settled %s, owed %s but should be %s, %s, %s", ErrStatement,
			s.Total, s.Settled, s.Owed, total, settled, total.Sub(settled))
	}
	return nil
}

// verify returns nil if the voucher says what the lane says.
func (l StatementLane) verify(payer, payee address.Address) error {
	if len(l.Voucher) > maxVoucher {
		return fmt.Errorf("its voucher has %d bytes, at most %d are needed", len(l.Voucher), maxVoucher)
	}
	var v voucher.SignedVoucher
	r := bytes.NewReader(l.Voucher)
	if err := v.UnmarshalCBOR(r); err != nil {
		return fmt.Errorf("decode voucher: %w", err)
	}
	if r.Len() != 0 {
		return errors.New("there is more than a voucher")
	}
	c, err := examine(&v, payee)
	switch {
	case err != nil:
		return err
	case c.payer != payer:
		return fmt.Errorf("its voucher is signed by %s", c.payer)
	case c.lane != l.Lane || c.nonce != l.Nonce || c.amount != l.Amount:
		return fmt.Errorf("its voucher is for %s on lane %d with nonce %d", c.amount.FIL(), c.lane, c.nonce)
	}
	return nil
}
