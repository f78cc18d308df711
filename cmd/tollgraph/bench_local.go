package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// benchLocal is what this machine can do, in MiB per second: medians.
type benchLocal struct {
	Bytes     uint64  `json:"bytes"` // of what was moved
	Rounds    int     `json:"rounds"`
	Cores     int     `json:"cores"`
	Hash      float64 `json:"sha256_mib_per_second"`
	HashAll   float64 `json:"sha256_all_cores_mib_per_second"`
	DiskWrite float64 `json:"disk_write_mib_per_second"`
	DiskRead  float64 `json:"disk_read_mib_per_second"`
	// DiskReadCached says that the file could not be dropped from memory before
	// it was read, so that DiskRead is not the disk's.
	DiskReadCached bool    `json:"disk_read_cached"`
	Free           float64 `json:"free_mib_per_second"`
	Paid           float64 `json:"paid_mib_per_second"`
	Ratio          float64 `json:"paid_to_free"`
	Payments       int     `json:"payments"` // of the last paid fetch
	Stalls         int     `json:"stalls"`
}

const (
	mebi = 1 << 20
	// hashTime is how long hashing is measured.
	hashTime = 300 * time.Millisecond
)

// benchHere measures hashing, the disk that dir is on, and a trade on it.
func (a *app) benchHere(ctx context.Context, cfg benchConfig, dir string) (*benchLocal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	out := &benchLocal{Rounds: cfg.rounds, Cores: runtime.GOMAXPROCS(0)}
	a.sayf("hashing")
	out.Hash, out.HashAll = hashSpeed(1), hashSpeed(out.Cores)
	a.sayf("writing and reading %s", cfg.size.IEC())
	source := filepath.Join(dir, "source")
	if err := makeNoise(source, cfg.size); err != nil {
		return nil, err
	}
	if err := out.disk(ctx, source, filepath.Join(dir, "copy"), cfg.rounds); err != nil {
		return nil, err
	}
	t := &localTrade{app: a, dir: dir}
	car, err := piece.Create(ctx, filepath.Join(dir, "goods.car"), []string{source}, piece.CreateOptions{})
	if err != nil {
		return nil, err
	}
	out.Bytes, t.root = car.Bytes, target{root: car.Root}
	if err := os.Remove(source); err != nil {
		return nil, err
	}
	a.sayf("selling it over loopback, free and paid, %d times", cfg.rounds)
	return out, t.measure(ctx, cfg, out)
}

// hashSpeed returns how fast so many goroutines compute SHA-256 at once.
func hashSpeed(workers int) float64 {
	var done sync.WaitGroup
	counts := make([]int, workers)
	began := time.Now()
	for i := range workers {
		done.Go(func() {
			buf := make([]byte, mebi)
			for time.Since(began) < hashTime {
				sha256.Sum256(buf)
				counts[i]++
			}
		})
	}
	done.Wait()
	took, total := time.Since(began), 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / took.Seconds()
}

// disk measures writing a copy of the file at from, and reading it.
func (l *benchLocal) disk(ctx context.Context, from, to string, rounds int) error {
	var writes, reads []float64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, took, err := timedCopy(from, to)
		if err != nil {
			return err
		}
		writes = append(writes, float64(n)/mebi/took.Seconds())
		if !dropCache(to) {
			l.DiskReadCached = true
		}
		if n, took, err = timedCopy(to, ""); err != nil {
			return err
		}
		reads = append(reads, float64(n)/mebi/took.Seconds())
	}
	l.DiskWrite, l.DiskRead = median(writes), median(reads)
	return os.Remove(to)
}

// timedCopy copies a file, durably, or reads it if it is copied to nowhere.
func timedCopy(from, to string) (n int64, took time.Duration, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close() // it was only read
	began := time.Now()
	buf := make([]byte, mebi)
	if to == "" {
		n, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, buf)
		return n, time.Since(began), err
	}
	out, err := os.Create(to)
	if err != nil {
		return 0, 0, err
	}
	n, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, buf)
	err = errors.Join(err, out.Sync())
	took = time.Since(began)
	return n, took, errors.Join(err, out.Close())
}

// localTrade is a provider and a client in this process.
type localTrade struct {
	*app
	dir    string
	root   target
	seller *seller
	buyer  *buyer
	from   market.RetrievalPeer
	bought int
}

// measure trades free and paid, in turns.
func (t *localTrade) measure(ctx context.Context, cfg benchConfig, out *benchLocal) (err error) {
	provider, err := startNode(ctx, filepath.Join(t.dir, "provider"), []string{"/ip4/127.0.0.1/tcp/0"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provider.Close()) }()
	t.seller, err = newSeller(ctx, provider, shop{paths: []string{filepath.Join(t.dir, "goods.car")}, credit: voucher.OneFIL}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.seller.Close()) }()
	if err := provider.open(); err != nil {
		return err
	}
	client, err := startNode(ctx, filepath.Join(t.dir, "client"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if t.buyer, err = newBuyer(ctx, client, market.ClientConfig{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.buyer.Close()) }()
	t.from = market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: provider.host.ID(), Addrs: provider.host.Addrs()}}
	var free, paid []float64
	for n := range cfg.rounds + 1 {
		for _, ask := range []voucher.Ask{{}, {PricePerByte: demoPrice, PaymentInterval: demoInterval}} {
			got, err := t.sell(ctx, cfg, ask)
			if err != nil {
				return err
			}
			switch {
			case n == 0: // it warms up
			case ask.PricePerByte == 0:
				free = append(free, got.Rate)
			default:
				paid = append(paid, got.Rate)
				out.Payments, out.Stalls = got.Payments, got.Stalls
			}
		}
	}
	out.Free, out.Paid = median(free), median(paid)
	out.Ratio = out.Paid / out.Free
	return nil
}

// sell sells everything on the terms of ask, to a place that is empty.
func (t *localTrade) sell(ctx context.Context, cfg benchConfig, ask voucher.Ask) (receipt, error) {
	if err := t.seller.SetAsk(ask); err != nil {
		return receipt{}, err
	}
	t.bought++
	dir := filepath.Join(t.dir, fmt.Sprintf("bought-%d", t.bought))
	if err := t.buyer.blocks.moveTo(dir); err != nil {
		return receipt{}, err
	}
	got, err := t.buy(ctx, t.buyer, purchase{
		selection: selection{target: t.root, whole: true}, from: t.from, budget: voucher.OneFIL, atRisk: cfg.atRisk,
	})
	return got, errors.Join(err, os.RemoveAll(dir))
}
