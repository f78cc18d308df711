package retrievalmarket

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	// pruneBatch bounds the deals that one transaction removes, and so how long a
	// payment waits behind it.
	pruneBatch = 500
	// pruneEvery is how often a provider that runs for long looks for deals that
	// have become too old.
	pruneEvery = time.Hour
)

// prune removes finished deals older than before, and all but the newest keep,
// and returns how many it removed. It takes as long as there is to remove, in
// transactions that are short each; what a million deals have that stay is not
// looked at. The newest deal of all always stays: lanes are bound to instances
// for ever, and SQLite would give the instance of a newest deal that is gone to
// the next one. The vouchers, which are the evidence, stay with the payment room.
func (b providerBook) prune(ctx context.Context, before time.Time, keep int) (int64, error) {
	aged, err := b.pruneWhere(ctx, `final = 1 AND updated < ?`, millis(before))
	if err != nil {
		return aged, err
	}
	last, err := b.beyond(ctx, keep)
	if err != nil || last == 0 {
		return aged, err
	}
	more, err := b.pruneWhere(ctx, `final = 1 AND instance <= ?`, last)
	return aged + more, err
}

// pruneWhere removes the deals for which where holds, batch by batch.
func (b providerBook) pruneWhere(ctx context.Context, where string, arg int64) (total int64, err error) {
	for {
		res, err := b.db.ExecContext(ctx, `DELETE FROM provider_deals WHERE instance IN (
			SELECT instance FROM provider_deals WHERE `+where+` AND instance < (SELECT max(instance) FROM provider_deals) LIMIT ?)`, arg, pruneBatch)
		if err != nil {
			return total, fmt.Errorf("prune deals: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return total, fmt.Errorf("prune deals: %w", err)
		}
		if total += n; n < pruneBatch {
			return total, nil
		}
	}
}

// beyond returns the newest instance that has keep finished deals after it, or 0
// if there is none. Instances rise, so that most of the time their span says
// that there is none, without counting.
func (b providerBook) beyond(ctx context.Context, keep int) (int64, error) {
	var first, last sql.NullInt64
	err := b.db.QueryRowContext(ctx, `SELECT (SELECT min(instance) FROM provider_deals), (SELECT max(instance) FROM provider_deals)`).Scan(&first, &last)
	if err != nil {
		return 0, fmt.Errorf("prune deals: %w", err)
	}
	if last.Int64-first.Int64 < int64(keep) {
		return 0, nil
	}
	var instance int64
	err = b.db.QueryRowContext(ctx, `SELECT instance FROM provider_deals WHERE final = 1 ORDER BY instance DESC LIMIT 1 OFFSET ?`, keep).Scan(&instance)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("prune deals: %w", err)
	}
	return instance, nil
}

// keepPruned prunes at once and then from time to time, until ctx ends: beside
// serving, which must not wait for it.
func (p *Provider) keepPruned(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		n, err := p.book.prune(ctx, time.Now().Add(-p.cfg.KeepFor), p.cfg.KeepDeals)
		if n > 0 {
			p.log.Info("pruned finished deals", "count", n)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Error("prune", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
