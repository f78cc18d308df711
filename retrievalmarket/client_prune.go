package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// keepPruned forgets old orders at once and then from time to time, until ctx
// ends: beside buying, which does not wait for it.
func (c *Client) keepPruned(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		n, err := c.book.prune(ctx, time.Now().Add(-c.cfg.KeepFor), c.cfg.KeepDeals, c.onRoot)
		if n > 0 {
			c.log.Info("pruned finished deals", "count", n)
		}
		if err != nil && ctx.Err() == nil {
			c.log.Error("prune", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// onRoot reports whether something is done on a root, whose deals then stay.
func (c *Client) onRoot(root string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.roots {
		if r.String() == root {
			return true
		}
	}
	return false
}

// prune removes orders of which every deal is older than before, or than the
// newest keep deals, and returns how many deals that were. Whole orders: what the
// deals of one have paid counts against its budget until it is fulfilled or given
// up, so one that is neither stays for as long as it paid anything, and open deals
// stay in any case. Roots for which busy holds are passed over. What was received,
// and the vouchers, which are the evidence, are not deals and stay.
//
// It takes as long as there is to remove, in transactions that are short each: a
// history that stays is not read.
func (b clientBook) prune(ctx context.Context, before time.Time, keep int, busy func(root string) bool) (total int64, err error) {
	limit := millis(before)
	if last, err := b.beyond(ctx, keep); err != nil {
		return 0, err
	} else if last > limit {
		limit = last
	}
	for at := (prunePage{}); ; {
		roots, err := at.next(ctx, b.db, limit)
		if err != nil || len(roots) == 0 {
			return total, err
		}
		for _, root := range roots {
			if busy(root) {
				continue
			}
			n, err := b.pruneRoot(ctx, root, limit)
			if total += n; err != nil {
				return total, err
			}
		}
	}
}

// beyond returns the time, in milliseconds since 1970, before which no deal is one
// of the newest keep; 0 if there are no more deals than that.
func (b clientBook) beyond(ctx context.Context, keep int) (last int64, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT updated FROM client_deals ORDER BY updated DESC LIMIT 1 OFFSET ?`, keep).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("prune deals: %w", err)
	}
	return last + 1, nil
}

// prunePage is how far the old deals have been looked through, in the order of
// their age.
type prunePage struct{ updated, id int64 }

// next returns the roots of the next old deals; none at the end.
func (p *prunePage) next(ctx context.Context, db *sql.DB, limit int64) (roots []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT updated, id, root FROM client_deals
		WHERE +final = 1 AND updated < ?1 AND updated >= ?2 AND (updated, id) > (?2, ?3) ORDER BY updated, id LIMIT ?4`,
		limit, p.updated, p.id, pruneBatch)
	if err != nil {
		return nil, fmt.Errorf("prune deals: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var root string
		if err := rows.Scan(&p.updated, &p.id, &root); err != nil {
			return nil, fmt.Errorf("prune deals: %w", err)
		}
		if !slices.Contains(roots, root) {
			roots = append(roots, root)
		}
	}
	return roots, rows.Err()
}

// pruneRoot removes the orders of a root that may be forgotten.
func (b clientBook) pruneRoot(ctx context.Context, root string, limit int64) (total int64, err error) {
	records, err := b.ofRoot(ctx, root)
	if err != nil {
		return 0, err
	}
	orders := make(map[DealID][]record)
	for _, r := range slices.Backward(records) { // the newest last: it says of the order what became of it
		orders[r.order()] = append(orders[r.order()], r)
	}
	for _, deals := range orders {
		if !forgettable(deals, limit) {
			continue
		}
		n, err := b.remove(ctx, deals)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// forgettable reports whether nobody needs the deals of an order any more, the
// newest last.
func forgettable(deals []record, limit int64) bool {
	var paid Amount
	for _, r := range deals {
		if r.open() || millis(r.Updated) >= limit {
			return false
		}
		paid = paid.Add(r.Paid)
	}
	return paid.IsZero() || deals[len(deals)-1].done()
}

// remove removes deals, in their order: a crash leaves the newest, without which
// the older ones would seem to belong to an order that goes on.
func (b clientBook) remove(ctx context.Context, deals []record) (total int64, err error) {
	for batch := range slices.Chunk(deals, pruneBatch) {
		tx, err := b.db.BeginTx(ctx, nil)
		if err != nil {
			return total, fmt.Errorf("prune deals: %w", err)
		}
		for _, r := range batch {
			if _, err = tx.ExecContext(ctx, `DELETE FROM client_deals WHERE id = ? AND final = 1`, int64(r.ID)); err != nil {
				break
			}
		}
		if err == nil {
			err = tx.Commit()
		} else {
			err = errors.Join(err, tx.Rollback())
		}
		if err != nil {
			return total, fmt.Errorf("prune deals: %w", err)
		}
		total += int64(len(batch))
	}
	return total, nil
}
