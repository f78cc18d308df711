package retrievalmarket

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tollgraph/tollgraph/voucher"
)

// kept is a deal of a client's history as the tests below write it.
type kept struct {
	id, order uint64
	root      string
	phase     Phase
	paid      uint64
	days      int // since it changed
	with      func(*record)
}

func writeHistory(t *testing.T, db *sql.DB, deals []kept) {
	t.Helper()
	for _, k := range deals {
		r := testRecord(t, k.id)
		r.Order, r.Phase, r.Paid = k.order, k.phase, voucher.Atto(k.paid)
		if k.with != nil {
			k.with(&r)
		}
		if err := newClientBook(db).put(t.Context(), k.root, &r); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(k.days) * 24 * time.Hour).UTC()
		_, err := db.ExecContext(t.Context(), `UPDATE client_deals SET updated = ?, record = json_set(record, '$.updated', ?) WHERE id = ?`,
			millis(at), at.Format(time.RFC3339Nano), int64(k.id))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func onRecord(t *testing.T, db *sql.DB) (ids []uint64) {
	t.Helper()
	left, err := newClientBook(db).all(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range left {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

func idle(string) bool { return false }

// TestClientPrune forgets whole orders that are over, and nothing that is young,
// open, counts against a budget, or is being worked on.
func TestClientPrune(t *testing.T) {
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	part := func(r *record) { r.Whole = "x" }
	writeHistory(t, db, []kept{
		{id: 1, root: "a", phase: Completed, paid: 7, days: 40},
		{id: 2, root: "a", phase: Completed, paid: 7, days: 20}, // young
		{id: 3, root: "b", phase: Failed, days: 40},             // cost nothing
		{id: 4, root: "c", phase: Failed, paid: 7, days: 40},    // counts against a budget
		{id: 5, root: "d", phase: Moving, days: 40},             // open
		{id: 6, order: 6, root: "e", phase: Failed, paid: 7, days: 40},
		{id: 7, order: 6, root: "e", phase: Completed, days: 40}, // and with it what failed before
		{id: 8, order: 8, root: "e", phase: Failed, paid: 7, days: 40},
		{id: 9, order: 8, root: "e", phase: Completed, days: 20}, // young, and what failed before it too
		{id: 10, order: 10, root: "f", phase: Completed, paid: 7, days: 40, with: part},
		{id: 11, order: 10, root: "f", phase: Completed, paid: 7, days: 40, with: func(r *record) { part(r); r.More = true }}, // the rest is to come
		{id: 12, order: 12, root: "g", phase: Completed, paid: 7, days: 40, with: part},
		{id: 13, order: 12, root: "g", phase: Completed, paid: 7, days: 40, with: func(r *record) { part(r); r.Done = true }},
		{id: 14, root: "busy", phase: Completed, paid: 7, days: 40},
	})
	busy := func(root string) bool { return root == "busy" }
	n, err := newClientBook(db).prune(t.Context(), time.Now().Add(-30*24*time.Hour), 1000, busy)
	want := []uint64{2, 4, 5, 8, 9, 10, 11, 14}
	if left := onRecord(t, db); err != nil || n != 6 || !slices.Equal(left, want) {
		t.Errorf("%d pruned, %v; left %v, want %v", n, err, left, want)
	}
}

// TestClientPruneCounts keeps the newest deals whatever their age, and what is of
// one order with them.
func TestClientPruneCounts(t *testing.T) {
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	writeHistory(t, db, []kept{{id: 1, order: 1, root: "a", phase: Failed, days: 2000}})
	const deals, first = 2*pruneBatch + 20, pruneBatch + 200 // in the older of two orders
	_, err := db.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
		INSERT INTO client_deals (id, root, final, updated, record)
		SELECT i, root, final, updated + i * 1000, json_set(record, '$.id', i, '$.order', iif(i > ?2, ?2 + 1, 1),
			'$.updated', strftime('%Y-%m-%dT%H:%M:%SZ', updated / 1000 + i, 'unixepoch')) FROM n, client_deals WHERE id = 1`, deals, first)
	if err != nil {
		t.Fatal(err)
	}
	n, err := newClientBook(db).prune(t.Context(), time.Now().Add(-10_000*24*time.Hour), deals-first-1, idle)
	if left := onRecord(t, db); err != nil || n != first || len(left) != deals-first || left[0] != first+1 {
		t.Errorf("%d pruned, %v; %d left from %d on", n, err, len(left), left[0])
	}
}

// TestOrderSurvivesPrune: what an order has paid counts as before, at every step
// of a prune that is cut off.
func TestOrderSurvivesPrune(t *testing.T) {
	db := testDB(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	r := testRecord(t, 1)
	p, err := r.proposal()
	if err != nil {
		t.Fatal(err)
	}
	root := p.PayloadCID.String()
	writeHistory(t, db, []kept{
		{id: 1, order: 1, root: root, phase: Failed, paid: 100, days: 40},
		{id: 2, order: 1, root: root, phase: Completed, paid: 10, days: 40},
		{id: 3, order: 3, root: root, phase: Failed, paid: 5, days: 40},
	})
	c := &Client{book: newClientBook(db)}
	spent := func() string {
		records, err := c.book.ofRoot(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		_, spent, err := c.orderOf(t.Context(), records, p.Params.Selector)
		if err != nil {
			t.Fatal(err)
		}
		return spent.String()
	}
	if got := spent(); got != "5" {
		t.Fatalf("spent %s before", got)
	}
	for step := range 2 { // the context of a prune that was cut off allowed so many removals
		records, err := newClientBook(db).ofRoot(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		oldest := records[len(records)-1]
		if _, err := newClientBook(db).remove(t.Context(), []record{oldest}); err != nil {
			t.Fatal(err)
		}
		if got := spent(); got != "5" {
			t.Errorf("spent %s after %d removals", got, step+1)
		}
	}
	if n, err := newClientBook(db).prune(t.Context(), time.Now(), 0, idle); err != nil || n != 0 || spent() != "5" {
		t.Errorf("%d pruned of an order that goes on, %v; spent %s", n, err, spent())
	}
}
