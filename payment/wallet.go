package payment

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	fbig "github.com/filecoin-project/go-state-types/big"

	"github.com/tollgraph/tollgraph/voucher"
)

// WalletConfig configures a Wallet. The zero value is fine.
type WalletConfig struct {
	Policy Policy           // holds besides the stored one, see Wallet.Policy; default no limits
	Now    func() time.Time // default time.Now
}

// Wallet is the client's side of the rail. It owns the key, and is the only place
// that signs: whatever limits what a client spends is asked here.
type Wallet struct {
	ledger *ledger
	key    voucher.Key
	limits Policy
	now    func() time.Time
}

// NewWallet returns the wallet of key in db, which must have been given to
// Migrate and stays the caller's. A database keeps the channels of every key that
// was used with it; a wallet signs in those of its own.
func NewWallet(db *sql.DB, key voucher.Key, cfg WalletConfig) (*Wallet, error) {
	w := &Wallet{ledger: newLedger(db), key: key, limits: cfg.Policy, now: cfg.Now}
	if w.now == nil {
		w.now = time.Now
	}
	if key.Address() == address.Undef {
		return nil, fmt.Errorf("new wallet: %w", voucher.ErrKey)
	}
	if err := checkSchema(context.Background(), w.ledger); err != nil {
		return nil, fmt.Errorf("new wallet: %w", err)
	}
	return w, nil
}

// Address returns the f1 address that the wallet pays from.
func (w *Wallet) Address() address.Address { return w.key.Address() }

// GetOrCreatePaymentChannel returns the channel in which client, which must be
// the wallet's Address, pays provider. funds is what a deal wants to be able to
// spend; on account nothing is locked up, and the largest is kept for people
// to see.
func (w *Wallet) GetOrCreatePaymentChannel(ctx context.Context, client, provider address.Address, funds voucher.Amount) (address.Address, error) {
	if client != w.Address() {
		return address.Undef, fmt.Errorf("payment channel from %s: this wallet pays from %s", client, w.Address())
	}
	channel, err := ChannelAddress(client, provider)
	if err != nil {
		return address.Undef, err
	}
	err = w.ledger.soon(ctx, func(t *tx) error {
		t.exec(`INSERT INTO payment_channels VALUES (?1, ?2, ?3, ?4, zeroblob(16))
			ON CONFLICT DO UPDATE SET funds = ?4 WHERE funds < ?4`,
			addressColumn(channel), addressColumn(client), addressColumn(provider), amountColumn(funds))
		return nil
	})
	if err != nil {
		return address.Undef, fmt.Errorf("payment channel to %s: %w", provider, err)
	}
	return channel, nil
}

// AllocateLane returns a fresh lane of channel, on which no more than budget
// will ever be signed: MaxAmount for no limit but the policy's, zero for
// nothing. Lanes are random numbers below 2^52: a wallet that was restored
// from an old copy does not use a lane again that its payee knows already. The
// lane is on disk with whatever is synced next on the wallet's database, such as
// the record of its deal, or its first voucher.
func (w *Wallet) AllocateLane(ctx context.Context, channel address.Address, budget voucher.Amount) (uint64, error) {
	var lane uint64
	err := w.ledger.soon(ctx, func(t *tx) error {
		if _, err := w.payee(t, channel); err != nil {
			return err
		}
		for taken := true; taken; {
			lane = randomLane()
			_, _, taken = t.lane(channel, lane)
		}
		t.exec(`INSERT INTO payment_lanes VALUES (?, ?, ?, 0, zeroblob(16), x'')`,
			addressColumn(channel), int64(lane), amountColumn(budget))
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("allocate lane in %s: %w", channel, err)
	}
	return lane, nil
}

// randomLane returns a number from 1 to 2^52-1, exact in JSON.
func randomLane() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see its documentation
	return max(1, binary.BigEndian.Uint64(b[:])>>12)
}

// SetLaneBudget changes what may be signed on lane, up or down. A budget below
// what has been signed stops the lane; it takes nothing back.
func (w *Wallet) SetLaneBudget(ctx context.Context, channel address.Address, lane uint64, budget voucher.Amount) error {
	err := w.ledger.do(ctx, func(t *tx) error {
		if _, err := w.payee(t, channel); err != nil {
			return err
		}
		if _, _, ok := t.lane(channel, lane); !ok {
			return ErrUnknownLane
		}
		t.exec(`UPDATE payment_lanes SET budget = ? WHERE channel = ? AND lane = ?`,
			amountColumn(budget), addressColumn(channel), int64(lane))
		return nil
	})
	if err != nil {
		return fmt.Errorf("budget of lane %d in %s: %w", lane, channel, err)
	}
	return nil
}

// CreatePaymentVoucher returns a signed voucher that makes lane worth amount in
// total. Before it returns, the voucher is on disk and counted against the policy.
// Asking again for the last amount returns the same voucher again, byte for byte,
// and asking for less returns the last one: the wallet never signs a lower
// amount than before, nor two amounts with one nonce. A nonce is the time of
// signing, see nextNonce. The error is a *BudgetError
// if a limit forbids it, and wraps ErrUnknownLane; then nothing was signed or
// counted.
func (w *Wallet) CreatePaymentVoucher(ctx context.Context, channel address.Address, amount voucher.Amount, lane uint64) (*voucher.SignedVoucher, error) {
	var raw []byte
	err := w.ledger.do(ctx, func(t *tx) (err error) {
		raw, err = w.pay(t, channel, lane, amount)
		return err
	})
	v := new(voucher.SignedVoucher)
	if err == nil {
		err = v.UnmarshalCBOR(bytes.NewReader(raw))
	}
	if err != nil {
		return nil, fmt.Errorf("pay %s in total on lane %d in %s: %w", amount.FIL(), lane, channel, err)
	}
	return v, nil
}

var errNothing = errors.New("nothing was paid on this lane, and there is no voucher for nothing")

// pay returns the voucher (as CBOR) that makes lane worth at least amount: the last
// one, or a new one if the budget and the policy allow it, which it records.
func (w *Wallet) pay(t *tx, channel address.Address, lane uint64, amount voucher.Amount) ([]byte, error) {
	payee, err := w.payee(t, channel)
	if err != nil {
		return nil, err
	}
	last, raw, ok := t.lane(channel, lane)
	switch {
	case !ok:
		return nil, ErrUnknownLane
	case !last.Amount.Less(amount) && last.Nonce == 0:
		return nil, errNothing
	case !last.Amount.Less(amount):
		return raw, nil
	case last.Budget.Less(amount):
		return nil, &BudgetError{Rule: RuleLane, Limit: last.Budget, Would: amount, Amount: amount}
	}
	policy, day := w.policy(t)
	before, more := t.spent(day, payee), amount.Sub(last.Amount)
	if !policy.PerDeal.IsZero() {
		before.order = t.restOfOrder(channel, lane)
	}
	if err := policy.check(before, amount, more); err != nil {
		return nil, err
	}
	total, fits := add(t.channelTotal(channel), more)
	if !fits {
		return nil, fmt.Errorf("channel total: %w", voucher.ErrAmount)
	}
	nonce := w.nextNonce(last.Nonce)
	if raw, err = w.sign(channel, lane, nonce, amount); err != nil {
		return nil, err
	}
	t.exec(`UPDATE payment_lanes SET nonce = ?, amount = ?, voucher = ? WHERE channel = ? AND lane = ?`,
		int64(nonce), amountColumn(amount), raw, addressColumn(channel), int64(lane))
	t.exec(`UPDATE payment_channels SET total = ? WHERE channel = ?`, amountColumn(total), addressColumn(channel))
	t.spend(before, payee, more)
	return raw, nil
}

// nextNonce returns the nonce of the voucher after one with nonce last: the
// milliseconds since 1970, but always more than last. A wallet whose disk lost
// its last vouchers, or that was restored from an old copy, so does not give
// another amount a nonce that its payee has seen, which would be refused for
// ever. Until 2255 it is exact in JSON.
func (w *Wallet) nextNonce(last uint64) uint64 {
	return max(last+1, uint64(max(0, w.now().UnixMilli())))
}

// sign returns a new voucher as CBOR. It must be recorded before it is given to
// anyone, and is then the only one with its nonce: a second signature over
// the same words would have other bytes.
func (w *Wallet) sign(channel address.Address, lane, nonce uint64, amount voucher.Amount) ([]byte, error) {
	v := voucher.SignedVoucher{
		ChannelAddr: channel,
		Lane:        lane,
		Nonce:       nonce,
		Amount:      fbig.NewFromGo(amount.Big()),
	}
	if err := w.key.Sign(&v); err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	err := v.MarshalCBOR(&raw)
	return raw.Bytes(), err
}

// payee returns who is paid in channel. The error is ErrUnknownLane if the
// channel is not one of this wallet.
func (w *Wallet) payee(t *tx, channel address.Address) (address.Address, error) {
	var payer, payee address.Address
	t.row(`SELECT payer, payee FROM payment_channels WHERE channel = ?`, []any{addressColumn(channel)},
		(*addressColumn)(&payer), (*addressColumn)(&payee))
	if payer != w.Address() {
		return address.Undef, ErrUnknownLane
	}
	return payee, nil
}

// lane returns a lane of the payer's side and its last voucher as CBOR, and false
// if there is no such lane.
func (t *tx) lane(channel address.Address, lane uint64) (l Lane, raw []byte, ok bool) {
	if lane > maxLane {
		return Lane{}, nil, false
	}
	l.Lane = lane
	var nonce int64
	ok = t.row(`SELECT budget, nonce, amount, voucher FROM payment_lanes WHERE channel = ? AND lane = ?`,
		[]any{addressColumn(channel), int64(lane)},
		(*amountColumn)(&l.Budget), &nonce, (*amountColumn)(&l.Amount), &raw)
	l.Nonce = uint64(nonce)
	return l, raw, ok
}

func (t *tx) channelTotal(channel address.Address) voucher.Amount {
	var total voucher.Amount
	t.row(`SELECT total FROM payment_channels WHERE channel = ?`, []any{addressColumn(channel)}, (*amountColumn)(&total))
	return total
}
