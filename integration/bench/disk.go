package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
)

const (
	diskMemory = 300 // MiB that either side may take
	diskChunk  = 1 << 20
)

// pairOf is a provider and a client, each a process.
type pairOf struct {
	rival            string
	provider, client *child
	figure           figure
	peaks            [2][]float64 // MiB, of provider and client, per round
}

// onDisk lets a large CAR be sold to a CAR between two processes, against a
// stream that hashes and writes as much.
func (b *bench) onDisk(ctx context.Context, s sizes, c benchCase) (err error) {
	c.MiB, c.Chunk, c.Rounds, c.Disk = s.disk, diskChunk, s.rounds, true
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := makeFiles(ctx, b.dir, 1, c.MiB<<20, c.Chunk)
	if err != nil {
		return err
	}
	defer removeAll(g.car)
	g.car = filepath.Join(g.car, "0.car")
	fmt.Fprintln(b.out, c)
	var ring []*pairOf
	defer func() {
		for _, p := range ring {
			err = errors.Join(err, p.close())
		}
	}()
	for _, rival := range []string{streamHashed, "free", "paid"} {
		p, err := b.startPair(ctx, rival, c, g)
		if err != nil {
			return fmt.Errorf("%s: %w", rival, err)
		}
		ring = append(ring, p)
	}
	for n := range c.Rounds + 1 {
		for i := range ring {
			p := ring[(i+n)%len(ring)]
			if err := p.round(g.root, c.MiB, n > 0); err != nil {
				return fmt.Errorf("%s, round %d: %w", p.rival, n, err)
			}
		}
	}
	var figures []figure
	for _, p := range ring {
		p.figure.extra = map[string]float64{"provider_peak_mib": round(median(p.peaks[0])), "client_peak_mib": round(median(p.peaks[1]))}
		figures = append(figures, p.figure)
	}
	b.report("disk", c, figures, []pair{{"paid", streamHashed, 0}, {"free", streamHashed, 0}, {"paid", "free", 0}, {streamHashed, "paid", 0}})
	b.holdMemory("disk", figures)
	return nil
}

// holdMemory says whether each side of a deal kept within its memory.
func (b *bench) holdMemory(section string, figures []figure) {
	for _, f := range figures {
		for _, side := range []string{"provider", "client"} {
			if peak := f.extra[side+"_peak_mib"]; f.name != streamHashed && peak > diskMemory {
				n := fmt.Sprintf("%s: the %s of %s took %.0f MiB (at most %d: MISSED)", section, side, f.label(), peak, diskMemory)
				fmt.Fprintln(b.out, " ", n)
				b.missed = append(b.missed, n)
			}
		}
	}
}

// startPair starts both sides of a rival.
func (b *bench) startPair(ctx context.Context, rival string, c benchCase, g *goods) (*pairOf, error) {
	dir, err := os.MkdirTemp(b.dir, rival+"-*")
	if err != nil {
		return nil, err
	}
	spec := childSpec{Rival: rival, Dir: filepath.Join(dir, "p"), Case: c, CAR: g.car, Root: g.root.String(), Bytes: g.bytes}
	if err := errors.Join(os.MkdirAll(spec.Dir, 0o700), os.MkdirAll(filepath.Join(dir, "c"), 0o700)); err != nil {
		return nil, err
	}
	provider, ready, err := startChild(ctx, spec)
	if err != nil {
		return nil, err
	}
	spec.Dir, spec.Provider = filepath.Join(dir, "c"), ready.Addr
	client, _, err := startChild(ctx, spec)
	if err != nil {
		return nil, errors.Join(err, provider.close())
	}
	return &pairOf{rival: rival, provider: provider, client: client, figure: figure{name: rival}}, nil
}

// round fetches everything once.
func (p *pairOf) round(root cid.Cid, mib int64, counts bool) error {
	if _, err := p.provider.tell(childOrder{}); err != nil { // its peak begins anew
		return err
	}
	if _, err := p.client.tell(childOrder{}); err != nil {
		return err
	}
	got, err := p.client.tell(childOrder{Roots: []string{root.String()}})
	if err != nil {
		return err
	}
	other, err := p.provider.tell(childOrder{})
	if err != nil || !counts {
		return err
	}
	d := got.Deals[0]
	p.figure.speed = append(p.figure.speed, float64(mib)/d.Seconds)
	p.figure.cpu = append(p.figure.cpu, (got.CPU+other.CPU)/float64(mib)*1024)
	p.peaks[0] = append(p.peaks[0], float64(other.Peak)/(1<<20))
	p.peaks[1] = append(p.peaks[1], float64(got.Peak)/(1<<20))
	if p.rival != streamHashed {
		p.figure.note = fmt.Sprintf("%d payments, %d stalls", d.Payments, d.Stalls)
	}
	return nil
}

func (p *pairOf) close() error { return errors.Join(p.client.close(), p.provider.close()) }
