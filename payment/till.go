package payment

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

var (
	// ErrCreditExceeded is what errors.Is finds in every CreditError.
	ErrCreditExceeded = errors.New("credit line exceeded")
	// ErrNoCredit is what errors.Is finds in a CreditError whose Line is zero.
	ErrNoCredit = errors.New("no credit line")
	// ErrTooLittle is wrapped when a voucher was credited, but its lane is
	// still worth less than the caller expects.
	ErrTooLittle = errors.New("lane is worth less than expected")
	// ErrLaneTaken is wrapped when a voucher is on a lane that pays for
	// another deal.
	ErrLaneTaken = errors.New("lane pays for another deal")
)

// CreditError says that a good voucher was not credited because its payer would
// owe too much. The same voucher is good later, after Settle or SetCredit.
type CreditError struct {
	Payer address.Address
	Line  voucher.Amount // how much Payer may owe
	Owed  voucher.Amount // what Payer owes now
	Would voucher.Amount // what it would owe
}

func (e *CreditError) Error() string {
	if e.Line.IsZero() {
		return fmt.Sprintf("%v: %s would owe %s: the provider must grant a line or be paid first", ErrNoCredit, e.Payer, e.Would.FIL())
	}
	return fmt.Sprintf("%v: %s owes %s and would owe %s of at most %s: settle the bill or raise the line",
		ErrCreditExceeded, e.Payer, e.Owed.FIL(), e.Would.FIL(), e.Line.FIL())
}

// Is makes errors.Is true for ErrCreditExceeded and, without a line, ErrNoCredit.
func (e *CreditError) Is(target error) bool {
	return target == ErrCreditExceeded || target == ErrNoCredit && e.Line.IsZero()
}

// Unwrap returns the refusal that crosses the wire.
func (e *CreditError) Unwrap() error { return voucher.RefusedCredit }

// TillConfig configures a Till. The zero value is fine.
type TillConfig struct {
	// DefaultCredit is how much a payer without a line of its own may owe. Keys
	// cost nothing: anyone may come as many payers. Default none.
	DefaultCredit voucher.Amount
	Now           func() time.Time // stamps settlements; default time.Now
}

// Till is the provider's side of the rail. It takes vouchers, and gives credit
// for them up to each payer's line.
type Till struct {
	ledger *ledger
	payee  address.Address
	now    func() time.Time

	mu          sync.Mutex
	defaultLine voucher.Amount // guarded by mu
}

// NewTill returns the till of payee in db, which must have been given to Migrate
// and stays the caller's. payee is the address that vouchers must be for; a
// database keeps the accounts of every payee that was used with it.
func NewTill(db *sql.DB, payee address.Address, cfg TillConfig) (*Till, error) {
	t := &Till{ledger: newLedger(db), payee: payee, now: cfg.Now, defaultLine: cfg.DefaultCredit}
	if t.now == nil {
		t.now = time.Now
	}
	if payee == address.Undef {
		return nil, errors.New("new till: it needs an address to be paid at")
	}
	if err := checkSchema(context.Background(), t.ledger); err != nil {
		return nil, fmt.Errorf("new till: %w", err)
	}
	return t, nil
}

// Address returns the address that is paid.
func (t *Till) Address() address.Address { return t.payee }

// DefaultCredit returns how much a payer without a line of its own may owe.
func (t *Till) DefaultCredit() voucher.Amount {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.defaultLine
}

// SetDefaultCredit changes DefaultCredit for this Till. It is configuration and
// not stored: a restart begins with TillConfig.DefaultCredit.
func (t *Till) SetDefaultCredit(line voucher.Amount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.defaultLine = line
}

// SavePaymentVoucher credits v, which came with a payment for channel, and
// returns what its lane is now worth in total: an absolute number, right however
// often v comes and in whatever order. Before it returns, the voucher is on
// disk as evidence. A doubled or older voucher changes nothing and is no error.
//
// The total is the lane's, whoever pays on it. That a lane pays for the deal at
// hand and for no other, ever, is for the caller to see to, or a payer could show
// the vouchers of an old deal again. SaveDealVoucher sees to it.
//
// proof must be empty: nothing on this rail needs one. If the lane is worth less
// than expected the error wraps ErrTooLittle; the voucher is credited all the
// same, since money is not turned away. Every other error means that v changed
// nothing: it wraps ErrVoucher or ErrVoucherConflict, or is a *CreditError. With
// the latter two the returned total is still what the lane is worth.
func (t *Till) SavePaymentVoucher(ctx context.Context, channel address.Address, v *voucher.SignedVoucher, proof []byte, expected voucher.Amount) (voucher.Amount, error) {
	if len(proof) != 0 {
		return voucher.Amount{}, fmt.Errorf("%w: it came with a proof, which this rail does not know", ErrVoucher)
	}
	return t.save(ctx, "", channel, v, expected)
}

// SaveDealVoucher is SavePaymentVoucher for a caller that names its deal: the
// first deal that is credited on a lane has it for ever. deal is any text that no
// two deals share, such as peer and number. If the lane is another deal's the
// error wraps ErrLaneTaken, and nothing is credited.
func (t *Till) SaveDealVoucher(ctx context.Context, deal string, channel address.Address, v *voucher.SignedVoucher, expected voucher.Amount) (voucher.Amount, error) {
	if deal == "" {
		return voucher.Amount{}, errors.New("save voucher: the deal has no name")
	}
	return t.save(ctx, deal, channel, v, expected)
}

func (t *Till) save(ctx context.Context, deal string, channel address.Address, v *voucher.SignedVoucher, expected voucher.Amount) (voucher.Amount, error) {
	c, err := examine(v, t.payee)
	if err == nil && c.channel != channel {
		err = fmt.Errorf("%w: it is for channel %s but came for %s", ErrVoucher, c.channel, channel)
	}
	if err != nil {
		return voucher.Amount{}, err
	}
	var worth voucher.Amount
	err = t.ledger.do(ctx, func(x *tx) (err error) {
		worth, err = t.credit(x, c, deal)
		return err
	})
	if err == nil && worth.Less(expected) {
		err = fmt.Errorf("%w: %s instead of %s", ErrTooLittle, worth.FIL(), expected.FIL())
	}
	if err != nil {
		return worth, fmt.Errorf("voucher of %s on lane %d: %w", c.payer, c.lane, err)
	}
	return worth, nil
}

// credit decides whether c is credited to deal, records it, and returns what its
// lane is then worth.
func (t *Till) credit(x *tx, c claim, deal string) (voucher.Amount, error) {
	l, owner := x.credited(c.channel, c.lane)
	if deal != "" && l.Nonce != 0 && owner != deal {
		return voucher.Amount{}, ErrLaneTaken
	}
	news, err := l.news(c)
	if err != nil || !news {
		return l.Amount, err
	}
	a := t.account(x, c.payer, c.channel)
	total, fits := add(a.Total, c.amount.Sub(l.Amount))
	if !fits || a.Settled.Add(a.Line).Less(total) {
		return l.Amount, &CreditError{Payer: c.payer, Line: a.Line, Owed: a.Owed, Would: total.Sub(a.Settled)}
	}
	x.exec(`INSERT INTO payment_credits VALUES (?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT DO UPDATE SET nonce = ?3, amount = ?4, voucher = ?5`,
		addressColumn(c.channel), int64(c.lane), int64(c.nonce), amountColumn(c.amount), c.raw, deal)
	x.openAccount(c.channel, c.payer, t.payee)
	x.exec(`UPDATE payment_accounts SET total = ? WHERE channel = ?`, amountColumn(total), addressColumn(c.channel))
	return c.amount, nil
}

// account returns the account of payer, which may not be on record yet.
func (t *Till) account(x *tx, payer, channel address.Address) Channel {
	a := Channel{Address: channel, Payer: payer, Payee: t.payee}
	var line sql.Null[amountColumn]
	x.row(`SELECT line, total, settled FROM payment_accounts WHERE channel = ?`, []any{addressColumn(channel)},
		&line, (*amountColumn)(&a.Total), (*amountColumn)(&a.Settled))
	return t.complete(a, line)
}

// complete fills in what of an account is not stored.
func (t *Till) complete(a Channel, line sql.Null[amountColumn]) Channel {
	a.Line = voucher.Amount(line.V)
	if a.OwnLine = line.Valid; !a.OwnLine {
		a.Line = t.DefaultCredit()
	}
	a.Owed = a.Total.Sub(a.Settled)
	return a
}

// openAccount puts an account on record that is not yet.
func (t *tx) openAccount(channel, payer, payee address.Address) {
	t.exec(`INSERT INTO payment_accounts VALUES (?, ?, ?, NULL, zeroblob(16), zeroblob(16)) ON CONFLICT DO NOTHING`,
		addressColumn(channel), addressColumn(payer), addressColumn(payee))
}

// credited returns a lane of the payee's side and the deal that has it; Nonce
// is 0 if there is no such lane.
func (t *tx) credited(channel address.Address, lane uint64) (l Lane, deal string) {
	l.Lane = lane
	var nonce int64
	t.row(`SELECT nonce, amount, deal FROM payment_credits WHERE channel = ? AND lane = ?`,
		[]any{addressColumn(channel), int64(lane)}, &nonce, (*amountColumn)(&l.Amount), &deal)
	l.Nonce = uint64(nonce)
	return l, deal
}
