package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// benchRemote is how fast a provider is. Times are in milliseconds.
type benchRemote struct {
	CID       string  `json:"cid"`
	Path      string  `json:"path,omitempty"`
	Provider  string  `json:"provider"`
	Dial      float64 `json:"dial_ms"`
	RTT       float64 `json:"rtt_ms,omitempty"` // the median of some; absent if it does not answer pings
	Query     float64 `json:"query_ms"`         // on a connection that is there
	FirstByte float64 `json:"first_byte_ms"`    // from the deal's beginning
	Speed     float64 `json:"mib_per_second"`
	Bytes     uint64  `json:"bytes"`
	Seconds   float64 `json:"seconds"`
	Price     string  `json:"price_atto_per_byte"`
	Paid      string  `json:"paid_atto"`
	Payments  int     `json:"payments"`
	Stalls    int     `json:"stalls"`

	priceText string
	paid      voucher.Amount
}

// benchProvider measures the provider of cfg. It pays from the wallet of the repo;
// deals and blocks are in dir, so that they do not meet those of the repo.
func (a *app) benchProvider(ctx context.Context, cfg benchConfig, dir string) (_ *benchRemote, err error) {
	n, err := startNode(ctx, cfg.repo, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := underCeiling(ctx, n.repo.db, &cfg.purchase); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := market.OpenDatabase(filepath.Join(dir, "deals.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	b, err := newBuyerIn(ctx, n, market.ClientConfig{DB: db}, filepath.Join(dir, "blocks"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	out := &benchRemote{CID: cfg.root.String(), Path: cfg.path, Provider: cfg.from.ID.String()}
	if err := out.reach(ctx, n.host, b, cfg); err != nil {
		return nil, err
	}
	got, err := a.buy(ctx, b, cfg.purchase)
	if err != nil {
		return nil, benchRefusal(ctx, b, err)
	}
	out.FirstByte, out.Speed, out.Bytes, out.Seconds = got.TTFB*1000, got.Rate, got.Bytes, got.Seconds
	out.Paid, out.paid, out.Payments, out.Stalls = got.Paid, got.state.FundsSpent, got.Payments, got.Stalls
	return out, nil
}

// reach dials the provider, pings it and asks what it charges.
func (r *benchRemote) reach(ctx context.Context, h host.Host, b *buyer, cfg benchConfig) error {
	began := time.Now()
	if err := h.Connect(ctx, cfg.from.AddrInfo); err != nil {
		return adviseUnreachable(fmt.Errorf("%w: %s: %w", market.ErrUnreachable, cfg.from.ID, err))
	}
	r.Dial = millis(time.Since(began))
	r.RTT = roundTrip(ctx, h, cfg.from.ID)
	began = time.Now()
	q, err := b.Query(ctx, cfg.from, cfg.root, market.QueryParams{})
	if err != nil {
		return err
	}
	r.Query, r.Price = millis(time.Since(began)), strconv.FormatUint(uint64(q.MinPricePerByte), 10)
	r.priceText = priceText(q.MinPricePerByte)
	return nil
}

// pings are how many make a round trip, and how long they may take in all.
const (
	pings       = 7
	pingTimeout = 10 * time.Second
)

// roundTrip returns the median of some pings in milliseconds, 0 if the other side
// does not answer them.
func roundTrip(ctx context.Context, h host.Host, to peer.ID) float64 {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var took []float64
	for r := range ping.Ping(ctx, h, to) {
		if r.Error != nil {
			break
		}
		if took = append(took, millis(r.RTT)); len(took) == pings {
			break
		}
	}
	if len(took) == 0 {
		return 0
	}
	return median(took)
}

func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// benchRefusal says why the provider could not be measured. A deal that was
// begun is cancelled: nobody wants what it fetched.
func benchRefusal(ctx context.Context, b *buyer, err error) error {
	if errors.Is(err, market.ErrBudget) {
		err = fmt.Errorf("%w; allow it with a larger --budget, or measure with a part of a file, such as --entity-bytes 0:67108863", err)
	} else {
		err = adviseRefusal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	ids, failed := b.OpenDeals(ctx)
	for _, id := range ids {
		failed = errors.Join(failed, b.CancelDeal(ctx, id))
	}
	return errors.Join(err, failed)
}

// cancelTimeout bounds the end of a deal that failed.
const cancelTimeout = 10 * time.Second
