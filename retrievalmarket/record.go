package retrievalmarket

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// record is what is stored of a deal on either side, as JSON. Sums are decimal
// attoFIL. The terms are not stored apart: they are in the proposal.
type record struct {
	V        int            `json:"v"`
	Instance int64          `json:"instance,omitempty"` // provider
	Peer     string         `json:"peer"`
	Addrs    []string       `json:"addrs,omitempty"` // client: where the provider was
	ID       uint64         `json:"id"`
	Proposal []byte         `json:"proposal"` // dag-cbor, as it crossed the wire
	Phase    Phase          `json:"phase"`
	Moved    uint64         `json:"moved"`
	Paid     voucher.Amount `json:"paid_atto"`
	Ended    bool           `json:"ended,omitempty"`
	Ready    bool           `json:"ready,omitempty"`
	End      uint64         `json:"end,omitempty"`
	Message  string         `json:"message,omitempty"`
	Channel  string         `json:"payment_channel,omitempty"`
	Lane     uint64         `json:"lane,omitempty"`
	Created  time.Time      `json:"created"`
	Updated  time.Time      `json:"updated"`

	// Provider.
	Base      uint64 `json:"base,omitempty"` // bytes that the first channel skipped
	BaseKnown bool   `json:"base_known,omitempty"`
	Let       uint64 `json:"let,omitempty"`  // how many of its bytes its channels were let send at most
	Lent      uint64 `json:"lent,omitempty"` // bytes that its client had earned and was lent
	PieceID   string `json:"piece,omitempty"`
	First     uint64 `json:"first_channel,omitempty"` // the transfer id of its first channel

	// Client.
	Budget    voucher.Amount `json:"budget_atto,omitzero"` // of the order
	Before    voucher.Amount `json:"before_atto,omitzero"` // what the order's earlier deals came to
	Order     uint64         `json:"order,omitempty"`      // the id of the order's first deal
	Want      []byte         `json:"want,omitempty"`       // the order's selector in dag-cbor, where it is not the deal's own
	More      bool           `json:"more,omitempty"`       // the deal is a part, and the next one is not on record yet
	Done      bool           `json:"done,omitempty"`       // the order ended with this deal: all is here, or the user gave it up
	AtRisk    uint64         `json:"at_risk,omitempty"`
	Expected  uint64         `json:"expected,omitempty"`
	Start     uint64         `json:"start,omitempty"` // the store's Written when the deal began
	PayTo     string         `json:"pay_to,omitempty"`
	Whole     string         `json:"whole,omitempty"`    // the root that this deal fetches a part of
	Plain     bool           `json:"plain,omitempty"`    // its provider sends it from the root on each channel, and charges that
	Streamed  bool           `json:"streamed,omitempty"` // its provider takes payments on a stream of their own
	Payments  int            `json:"payments,omitempty"`
	Stalls    int            `json:"stalls,omitempty"`
	FirstByte time.Duration  `json:"first_byte_ns,omitempty"`
	Output    string         `json:"output,omitempty"`
}

const recordVersion = 1

func encodeProposal(p voucher.DealProposal) ([]byte, error) {
	node, err := p.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode proposal: %w", err)
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(node, &buf); err != nil {
		return nil, fmt.Errorf("encode proposal: %w", err)
	}
	return buf.Bytes(), nil
}

func (r record) proposal() (voucher.DealProposal, error) {
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(nb, bytes.NewReader(r.Proposal)); err != nil {
		return voucher.DealProposal{}, fmt.Errorf("deal %d: stored proposal: %w", r.ID, err)
	}
	return voucher.DecodeDealProposal(nb.Build())
}

// deal rebuilds the pure part of a record.
func (r record) deal(terms voucher.Terms, credit voucher.Bytes) Deal {
	return Deal{
		Phase: r.Phase, Ready: r.Ready, End: voucher.DealStatus(r.End), Message: r.Message,
		Account: revalidator.Account{Terms: terms, Credit: credit, Moved: voucher.Bytes(r.Moved), Paid: r.Paid, Ended: r.Ended},
	}
}

// keep copies the pure part of a deal into r.
func (r *record) keep(d Deal) {
	r.V, r.Phase, r.Ready, r.End, r.Message = recordVersion, d.Phase, d.Ready, uint64(d.End), d.Message
	r.Moved, r.Paid, r.Ended = uint64(d.Account.Moved), d.Account.Paid, d.Account.Ended
}

// open reports whether something is left to do for a client's deal: for itself,
// or for the order that it is a part of.
func (r record) open() bool { return !r.Phase.Final() || r.More }

// money is what the deal may cost: what the order has left for it.
func (r record) money() voucher.Amount { return r.Budget.Sub(r.Before) }

func (r record) peer() (peer.ID, error) {
	id, err := peer.Decode(r.Peer)
	if err != nil {
		return "", fmt.Errorf("deal %d: stored peer: %w", r.ID, err)
	}
	return id, nil
}

func parseAddress(s string) (address.Address, error) {
	if s == "" {
		return address.Undef, nil
	}
	return address.NewFromString(s)
}

func addressText(a address.Address) string {
	if a == address.Undef {
		return ""
	}
	return a.String()
}

// providerBook is the provider's deals on disk.
type providerBook struct {
	db      *sql.DB
	journal *journal
}

func newProviderBook(db *sql.DB) providerBook { return providerBook{db, newJournal(db)} }

// put stores r and, when it is new, gives it its instance. It is durable when
// it returns.
func (b providerBook) put(ctx context.Context, r *record) error { return b.write(ctx, synced, r) }

// write is put for what may be on disk later, see durability.
func (b providerBook) write(ctx context.Context, when durability, r *record) error {
	r.Updated = time.Now().UTC()
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store deal: %w", err)
	}
	instance := r.Instance
	err = b.journal.do(ctx, when, func(ctx context.Context, tx *sql.Tx) error {
		if r.Instance != 0 {
			_, err := tx.ExecContext(ctx, `UPDATE provider_deals SET final = ?, updated = ?, record = ? WHERE instance = ?`,
				r.Phase.Final(), millis(r.Updated), string(text), r.Instance)
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO provider_deals (peer, id, final, updated, record) VALUES (?, ?, ?, ?, ?)`,
			r.Peer, int64(r.ID), r.Phase.Final(), millis(r.Updated), string(text))
		if err == nil {
			instance, err = res.LastInsertId()
		}
		return err
	})
	if err == nil {
		r.Instance = instance
	}
	return wrapStore(r.ID, err)
}

// open returns the deals that are not final.
func (b providerBook) open(ctx context.Context) ([]record, error) {
	return readProvider(ctx, b.db, `SELECT instance, record FROM provider_deals WHERE final = 0`)
}

// all returns deals newest first, at most limit of them.
func (b providerBook) all(ctx context.Context, limit int) ([]record, error) {
	return readProvider(ctx, b.db, `SELECT instance, record FROM provider_deals ORDER BY instance DESC LIMIT ?`, limit)
}

// last returns the latest deal of a client under an id.
func (b providerBook) last(ctx context.Context, key ProviderDealID) (record, error) {
	found, err := readProvider(ctx, b.db, `SELECT instance, record FROM provider_deals WHERE peer = ? AND id = ? ORDER BY instance DESC LIMIT 1`,
		key.From.String(), int64(key.ID))
	if err != nil {
		return record{}, err
	}
	if len(found) == 0 {
		return record{}, fmt.Errorf("deal %d of %s: %w", key.ID, key.From, ErrNoDeal)
	}
	return found[0], nil
}

// numbered returns the deals that clients gave an id, newest first, at most
// limit of them.
func (b providerBook) numbered(ctx context.Context, id DealID, limit int) ([]record, error) {
	return readProvider(ctx, b.db, `SELECT instance, record FROM provider_deals WHERE id = ? ORDER BY instance DESC LIMIT ?`, int64(id), limit)
}

func readProvider(ctx context.Context, db *sql.DB, query string, args ...any) ([]record, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read deals: %w", err)
	}
	defer rows.Close()
	var all []record
	for rows.Next() {
		var text string
		var r record
		var instance int64
		if err := rows.Scan(&instance, &text); err != nil {
			return nil, fmt.Errorf("read deals: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("read deals: record %d: %w", instance, err)
		}
		r.Instance = instance
		all = append(all, r)
	}
	return all, rows.Err()
}

// over reports whether a deal has ended; one that is pruned has.
func (b providerBook) over(ctx context.Context, instance int64) (final bool, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT final FROM provider_deals WHERE instance = ?`, instance).Scan(&final)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read deal %d: %w", instance, err)
	}
	return final, nil
}

// bindLane makes a lane pay for one deal and no other. It returns the deal that
// the lane belongs to, which is instance if all is well: the deal's record says so
// too, and is put before anyone is told, so that the lane is on disk with it.
func (b providerBook) bindLane(ctx context.Context, channel address.Address, lane uint64, instance int64) (owner int64, err error) {
	err = b.journal.do(ctx, soon, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO provider_lanes VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, channel.String(), fmt.Sprint(lane), instance)
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT instance FROM provider_lanes WHERE channel = ? AND lane = ?`, channel.String(), fmt.Sprint(lane)).Scan(&owner)
	})
	if err != nil {
		return 0, fmt.Errorf("bind lane %d of %s: %w", lane, channel, err)
	}
	return owner, nil
}

// clientBook is the client's deals on disk.
type clientBook struct {
	db      *sql.DB
	journal *journal
}

func newClientBook(db *sql.DB) clientBook { return clientBook{db, newJournal(db)} }

// put stores r, which is durable when it returns.
func (b clientBook) put(ctx context.Context, root string, r *record) error {
	return b.write(ctx, synced, root, r)
}

// write is put for what may be on disk later, see durability.
func (b clientBook) write(ctx context.Context, when durability, root string, r *record) error {
	r.Updated = time.Now().UTC()
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store deal: %w", err)
	}
	err = b.journal.do(ctx, when, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO client_deals (id, root, final, updated, record) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET final = excluded.final, updated = excluded.updated, record = excluded.record`,
			int64(r.ID), root, !r.open(), millis(r.Updated), string(text))
		return err
	})
	return wrapStore(r.ID, err)
}

// ofRoot returns all deals on a root, newest first.
func (b clientBook) ofRoot(ctx context.Context, root string) ([]record, error) {
	return scanRecords[record](ctx, b.db, `SELECT record FROM client_deals WHERE final IN (0, 1) AND root = ? ORDER BY id DESC`, root)
}

func (b clientBook) get(ctx context.Context, id DealID) (record, error) {
	found, err := scanRecords[record](ctx, b.db, `SELECT record FROM client_deals WHERE id = ?`, int64(id))
	if err != nil {
		return record{}, err
	}
	if len(found) == 0 {
		return record{}, fmt.Errorf("deal %d: %w", id, ErrNoDeal)
	}
	return found[0], nil
}

// open returns the deals on a root that can go on, and those that are to be
// followed by another, the last changed first; every root if root is empty.
func (b clientBook) open(ctx context.Context, root string) ([]record, error) {
	return scanRecords[record](ctx, b.db, `SELECT record FROM client_deals WHERE final = 0 AND (root = ? OR ? = '') ORDER BY updated DESC`, root, root)
}

func (b clientBook) all(ctx context.Context, limit int) ([]record, error) {
	return scanRecords[record](ctx, b.db, `SELECT record FROM client_deals ORDER BY updated DESC LIMIT ?`, limit)
}

// errNotOurs keeps a record of a later program from being misread.
var errNotOurs = errors.New("written by a later version of this program")

func (r record) check() error {
	if r.V != recordVersion {
		return fmt.Errorf("deal %d: record version %d: %w", r.ID, r.V, errNotOurs)
	}
	return nil
}
