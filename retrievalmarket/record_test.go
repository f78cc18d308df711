package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/voucher"
)

func testDB(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := OpenDatabase(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return db
}

func testRecord(t *testing.T, id uint64) record {
	t.Helper()
	root := cid.MustParse("bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
	b, err := encodeProposal(voucher.DealProposal{PayloadCID: root, ID: voucher.DealID(id), Params: voucher.Params{PricePerByte: 3, PaymentInterval: 10}})
	if err != nil {
		t.Fatal(err)
	}
	return record{V: recordVersion, Peer: "12D3KooWGC4oVLWz5Zr8y1dP2q2nyDDrVJfcmoVXfDHhyzVZJ8mE", ID: id, Proposal: b, Phase: Moving, Moved: 7, Paid: voucher.Atto(21), Created: time.Now().UTC()}
}

// TestBookSurvives: what put returned for is there after the file was closed
// and opened again, with all its numbers.
func TestBookSurvives(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "a b?.db")
	db := testDB(t, path)
	r := testRecord(t, ^uint64(0)) // ids use all 64 bits
	r.Paid = voucher.MaxAmount
	if err := newProviderBook(db).put(ctx, &r); err != nil {
		t.Fatal(err)
	}
	c := testRecord(t, 1<<63)
	if err := newClientBook(db).put(ctx, "root", &c); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = testDB(t, path)
	defer db.Close()
	from, err := peer.Decode(r.Peer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := newProviderBook(db).last(ctx, ProviderDealID{from, DealID(r.ID)})
	if err != nil || got.Paid != r.Paid || got.Instance != r.Instance || got.ID != r.ID {
		t.Errorf("%+v, %v", got, err)
	}
	if mine, err := newClientBook(db).get(ctx, 1<<63); err != nil || mine.ID != 1<<63 {
		t.Errorf("%+v, %v", mine, err)
	}
	if _, err := newClientBook(db).get(ctx, 5); !errors.Is(err, ErrNoDeal) {
		t.Errorf("got %v", err)
	}
	if s, err := StoredProviderDeals(ctx, db, 10); err != nil || len(s) != 1 || s[0].FundsReceived != voucher.MaxAmount {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestLaneBelongsToOneDeal: also after that deal is over and pruned.
func TestLaneBelongsToOneDeal(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	book := newProviderBook(db)
	channel, err := address.NewActorAddress([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		lane           uint64
		instance, want int64
	}{{1, 10, 10}, {1, 10, 10}, {1, 11, 10}, {^uint64(0), 11, 11}, {^uint64(0), 12, 11}} {
		if got, err := book.bindLane(ctx, channel, tc.lane, tc.instance); err != nil || got != tc.want {
			t.Errorf("lane %d for %d belongs to %d, %v, want %d", tc.lane, tc.instance, got, err, tc.want)
		}
	}
}

// TestPrune keeps what is open, what is young and what is within the count.
func TestPrune(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	book := newProviderBook(db)
	for i := range uint64(10) {
		r := testRecord(t, i)
		if i != 3 {
			r.Phase = Completed
		}
		if err := book.put(ctx, &r); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := book.prune(ctx, time.Now().Add(-time.Hour), 4); err != nil || n != 5 {
		t.Errorf("%d pruned, %v, want 5 of 9 finished ones", n, err)
	}
	if n, err := book.prune(ctx, time.Now().Add(time.Hour), 100); err != nil || n != 3 {
		t.Errorf("%d pruned by age, %v", n, err)
	}
	left, err := book.all(ctx, 100)
	if err != nil || len(left) != 2 || left[0].ID != 9 || left[1].ID != 3 {
		t.Errorf("%+v, %v", left, err)
	}
}

// TestPrunedInstancesStayTaken: a lane that paid for a deal which is no longer
// on record never pays for another.
func TestPrunedInstancesStayTaken(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	book := newProviderBook(db)
	seen := make(map[int64]bool)
	for i := range uint64(3) {
		r := testRecord(t, i)
		r.Phase = Completed
		if err := book.put(ctx, &r); err != nil {
			t.Fatal(err)
		}
		if seen[r.Instance] {
			t.Errorf("instance %d was given twice", r.Instance)
		}
		seen[r.Instance] = true
		if _, err := book.prune(ctx, time.Now().Add(time.Hour), 100); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPruneInBatches removes more than one transaction does.
func TestPruneInBatches(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	book, r := newProviderBook(db), testRecord(t, 1)
	r.Phase = Completed
	if err := book.put(ctx, &r); err != nil {
		t.Fatal(err)
	}
	const deals, kept = 3*pruneBatch + 10, 100
	_, err := db.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO provider_deals (peer, id, final, updated, record) SELECT peer, i, final, updated, record FROM n, provider_deals WHERE instance = 1`, deals)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := book.prune(ctx, time.Now().Add(-time.Hour), kept); err != nil || n != deals-kept {
		t.Errorf("%d pruned, %v, want %d", n, err, deals-kept)
	}
	if left, err := book.all(ctx, deals); err != nil || len(left) != kept || left[kept-1].Instance != deals-kept+1 {
		t.Errorf("%d left, %v", len(left), err)
	}
}

func TestUnknownSchemaIsRefused(t *testing.T) {
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), `UPDATE market_schema SET version = 99`); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t.Context(), db); err == nil {
		t.Error("a database of another version was taken")
	}
}

// TestDealsOfANumber are those of every client that used it, newest first.
func TestDealsOfANumber(t *testing.T) {
	ctx := t.Context()
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	book := newProviderBook(db)
	for _, id := range []uint64{7, 8, 7, 9, 7} {
		r := testRecord(t, id)
		if err := book.put(ctx, &r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := book.numbered(ctx, 7, 2)
	if err != nil || len(got) != 2 || got[0].Instance != 5 || got[1].Instance != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if all, err := StoredProviderDealsOf(ctx, db, 7); err != nil || len(all) != 3 {
		t.Errorf("%d deals, %v", len(all), err)
	}
	if none, err := StoredProviderDealsOf(ctx, db, 6); err != nil || len(none) != 0 {
		t.Errorf("%d deals, %v", len(none), err)
	}
	if _, err := StoredClientDeal(ctx, db, 7); !errors.Is(err, ErrNoDeal) {
		t.Error(err)
	}
}

// TestHistoryIsNotWalked: what serving and a start ask of the database is found
// by an index, however many deals have ended.
func TestHistoryIsNotWalked(t *testing.T) {
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	for _, query := range []string{
		`SELECT instance, record FROM provider_deals WHERE final = 0`,
		`SELECT instance, record FROM provider_deals WHERE peer = ? AND id = ? ORDER BY instance DESC LIMIT 1`,
		`SELECT instance, record FROM provider_deals WHERE id = ? ORDER BY instance DESC LIMIT ?`,
		`SELECT instance FROM provider_deals WHERE final = 1 AND updated < ? AND instance < 9 LIMIT ?`,
		`SELECT record FROM client_deals WHERE final = 0 AND (root = ? OR ? = '') ORDER BY updated DESC`,
		`SELECT record FROM client_deals WHERE id = ?`,
		`SELECT instance FROM provider_lanes WHERE channel = ? AND lane = ?`,
	} {
		rows, err := db.QueryContext(t.Context(), `EXPLAIN QUERY PLAN `+query, make([]any, strings.Count(query, "?"))...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(detail, "SCAN") {
				t.Errorf("%s: %s", query, detail)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRevivedDealIsShown: a deal of an earlier run is shown as it is on record from
// the start, also in the event that says that it goes on.
func TestRevivedDealIsShown(t *testing.T) {
	r := testRecord(t, 5)
	d, err := (&Provider{}).revive(r)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := d.snapshot()
	if s.ID != 5 || !s.PayloadCID.Defined() || s.Receiver != d.key.From || s.FundsReceived != r.Paid || s.TotalSent != Bytes(r.Moved) {
		t.Errorf("shown as %+v", s)
	}
}

// aheadOfRecord is a wallet whose lanes are worth 21 already.
type aheadOfRecord struct{ RetrievalClientNode }

func (aheadOfRecord) CreatePaymentVoucher(context.Context, address.Address, voucher.Amount, uint64) (*voucher.SignedVoucher, error) {
	return &voucher.SignedVoucher{Amount: big.NewInt(21)}, nil
}

// TestPaidBeforeRecord: a voucher is on disk before the record says that the
// provider accepted. What it came to counts for the order's budget, whatever phase
// the record is in.
func TestPaidBeforeRecord(t *testing.T) {
	channel, err := address.NewActorAddress([]byte("channel"))
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{cfg: ClientConfig{Node: aheadOfRecord{}}}
	for _, phase := range []Phase{Proposed, Moving, Settling} {
		r := record{Phase: phase, Channel: channel.String(), Lane: 1}
		if got := c.paidOn(t.Context(), r); got != voucher.Atto(21) {
			t.Errorf("phase %d: %s are paid, not 21", phase, got)
		}
	}
}

// writtenStore is a store of which only the count is asked.
type writtenStore struct{ Store }

func (writtenStore) Written() uint64 { return 7 }

// TestPlainDealEnds: a deal that would be charged again does not go on, but one of
// which everything is here does: else it would be open for ever.
func TestPlainDealEnds(t *testing.T) {
	for plain, wants := range map[bool]map[bool]bool{false: {false: true, true: true}, true: {false: false, true: true}} {
		for complete, want := range wants {
			rec := testRecord(t, 1)
			rec.Plain = plain
			id, err := rec.peer()
			if err != nil {
				t.Fatal(err)
			}
			found, err := findRecord([]record{rec}, Request{Provider: RetrievalPeer{AddrInfo: peer.AddrInfo{ID: id}}}, writtenStore{}, complete)
			if err != nil || (found != nil) != want {
				t.Errorf("plain %v, complete %v: found %v, %v", plain, complete, found != nil, err)
			}
		}
	}
}
