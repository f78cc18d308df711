package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

const (
	smallSize = 64 << 10
	smallRTT  = 10 * time.Millisecond
)

// smallCase is one setting of the small deals.
type smallCase struct {
	rtt   time.Duration
	known bool // the provider's terms
	trade *trade
	field *field
	secs  []float64 // per round
	cpu   []float64 // seconds of processor per deal, both sides
}

// syncs is how often the disk is synced to see how long that takes.
const syncs = 20

// syncTime is the median of what the disk takes to sync a page, in seconds: the
// records of a deal cannot be had for less than a few times that.
func syncTime(dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return 0, err
	}
	defer f.Close() // what is in it is of no use
	took := make([]float64, syncs)
	for i := range took {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(began).Seconds()
	}
	return median(took), os.Remove(f.Name())
}

// small makes many small paid deals one after another, each setting on one
// connection of its own, in alternating rounds.
func (b *bench) small(ctx context.Context, s sizes, c benchCase) error {
	per := max(s.deals/s.rounds, 1)
	g, err := makeSmall(per, smallSize)
	if err != nil {
		return err
	}
	c.Chunk, c.MiB, c.Rounds = smallSize, 1, s.rounds
	cases := []*smallCase{{}, {known: true}, {rtt: smallRTT}, {rtt: smallRTT, known: true}}
	for _, k := range cases {
		dir, err := os.MkdirTemp(b.dir, "small-*")
		if err != nil {
			return err
		}
		k.field = &field{c: c, goods: g, dir: dir}
		k.field.c.RTT = k.rtt
		k.field.atEnd(func() { removeAll(dir) })
		defer k.field.close()
		if err := k.open(ctx); err != nil {
			return err
		}
	}
	synced, err := b.smallRounds(ctx, c, cases)
	if len(cases[len(cases)-1].secs) > 0 {
		b.reportSmall(c, cases, per, median(synced))
	}
	return err
}

// smallRounds makes all rounds, and returns how long the disk took to sync in each.
func (b *bench) smallRounds(ctx context.Context, c benchCase, cases []*smallCase) (synced []float64, err error) {
	for n := range c.Rounds + 1 {
		if n == 1 && c.profile != "" {
			stop, err := startProfile(c.profile)
			if err != nil {
				return synced, err
			}
			defer stop()
		}
		for _, k := range cases {
			if err := k.round(ctx, n > 0); err != nil {
				return synced, fmt.Errorf("%s, round %d: %w", k.label(), n, err)
			}
		}
		took, err := syncTime(b.dir)
		if err != nil {
			return synced, err
		}
		synced = append(synced, took)
	}
	return synced, nil
}

func (k *smallCase) label() string {
	s := "loopback"
	if k.rtt > 0 {
		s = fmt.Sprintf("round trip %s", k.rtt)
	}
	if k.known {
		return s + ", terms known"
	}
	return s + ", asks first"
}

// open connects a client to a provider.
func (k *smallCase) open(ctx context.Context) error {
	provider, client, err := k.field.hosts(ctx)
	if err != nil {
		return err
	}
	payTo, err := k.field.sell(ctx, provider, paid)
	if err != nil {
		return err
	}
	k.trade = &trade{f: k.field, terms: paid, to: market.RetrievalPeer{AddrInfo: peer.AddrInfo{ID: provider.ID()}, Address: payTo}}
	if k.known {
		ask := k.field.askOf(paid)
		k.trade.ask = &ask
	}
	k.trade.client, err = k.field.buy(ctx, client)
	return err
}

// round makes all deals once.
func (k *smallCase) round(ctx context.Context, counts bool) error {
	ctx, cancel := context.WithTimeout(ctx, k.field.timeout()+time.Duration(len(k.field.goods.roots))*time.Second)
	defer cancel()
	began, cpu := time.Now(), cpuTime()
	for _, root := range k.field.goods.roots {
		if _, err := k.trade.deal(ctx, root); err != nil {
			return err
		}
	}
	if counts {
		k.secs = append(k.secs, time.Since(began).Seconds())
		k.cpu = append(k.cpu, (cpuTime()-cpu).Seconds()/float64(len(k.field.goods.roots)))
	}
	return nil
}

func (b *bench) reportSmall(c benchCase, cases []*smallCase, per int, synced float64) {
	fmt.Fprintf(b.out, "%d paid deals of %s in %d rounds, on a disk that syncs a page in %.2f ms\n", per*c.Rounds, sizeText(smallSize), c.Rounds, synced*1000)
	var figures []figure
	for _, k := range cases {
		f := figure{name: "paid", variant: k.label()}
		each := median(k.secs) / float64(per)
		for _, secs := range k.secs {
			f.speed = append(f.speed, float64(per)*smallSize/(1<<20)/secs)
		}
		f.extra = map[string]float64{
			"deals_per_s": round(1 / each), "ms_per_deal": round(each * 1000), "cpu_ms_per_deal": round(median(k.cpu) * 1000), "disk_sync_ms": round(synced * 1000),
		}
		if k.rtt > 0 {
			f.extra["round_trips_per_deal"] = round(each / k.rtt.Seconds())
		}
		figures = append(figures, f)
	}
	c.MiB = 0
	rows := compare("small", c, figures, []pair{
		{figures[1].label(), figures[0].label(), 0}, {figures[2].label(), figures[0].label(), 0}, {figures[3].label(), figures[1].label(), 0},
		{figures[0].label(), figures[1].label(), 0},
	})
	for i := range rows {
		rows[i].MiB = smallSize / float64(1<<20)
		if i == 1 || i == 2 {
			rows[i].RTT = smallRTT.Milliseconds()
		}
	}
	printTable(b.out, figures, rows)
	b.rows = append(b.rows, rows...)
}
