package main

import (
	"context"
	"fmt"
	mrand "math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// round starts the program with nothing of its files in memory, some times over; with
// all of the piece and its index there, it lets it sell and answer.
func (v *veteran) round(ctx context.Context, path string, asks int, counts bool) error {
	var starts, speeds []float64
	for range growthTimes {
		took, err := v.start(ctx, path)
		if err != nil {
			return err
		}
		starts = append(starts, took.Seconds())
	}
	if err := recall(filepath.Join(v.repo, "index"), v.field.goods.car); err != nil {
		return err
	}
	for range growthTimes + 1 {
		began := time.Now()
		if err := v.sellOnce(ctx); err != nil {
			return err
		}
		speeds = append(speeds, float64(v.field.goods.bytes)/(1<<20)/time.Since(began).Seconds())
	}
	queries, err := v.ask(ctx, asks)
	if err != nil {
		return err
	}
	if err := v.stop(); err != nil {
		return err
	}
	if !counts {
		return nil
	}
	v.starts = append(v.starts, starts...)
	v.figure.speed = append(v.figure.speed, speeds[1:]...) // the first connects
	v.queries.add(queries)
	return nil
}

// lookUpAll looks up and reads n blocks of each provider, when none runs, since a lookup
// takes less than what disturbs it; and one provider right after the other, some times
// over, since the machine is half as fast again in one second as in another: pass by pass
// it is as fast for all.
func lookUpAll(all []*veteran, n int, counts bool) error {
	// What touch needs is most of the heap: it would be collected once in half a GiB, and
	// what a read asks for would always be memory that was not used for long. A provider
	// has no such heap.
	defer debug.SetGCPercent(debug.SetGCPercent(growthHeap))
	for range growthPasses {
		for _, v := range all {
			lookups, reads, err := v.lookUp(n)
			if err != nil {
				return err
			}
			touches := v.touch(n)
			if !counts {
				continue
			}
			v.lookups.add(lookups)
			v.reads.add(reads)
			v.touches.add(touches)
		}
	}
	return nil
}

// start ends the program and starts it again, cold, and returns how long that took.
func (v *veteran) start(ctx context.Context, path string) (time.Duration, error) {
	if err := v.stop(); err != nil {
		return 0, err
	}
	if err := forget(v.repo, v.field.goods.car); err != nil {
		return 0, err
	}
	began := time.Now()
	var err error
	v.program, err = startProgram(ctx, path, v.repo, v.field.goods.car, v.field.c.Interval)
	return time.Since(began), err
}

// findAskers makes the peers that put n queries in each round.
func (v *veteran) findAskers(ctx context.Context, n int) error {
	for i := range (n + growthBurst - 1) / growthBurst {
		own := &field{c: v.field.c, goods: v.field.goods, dir: filepath.Join(v.field.dir, fmt.Sprint("asker", i))}
		v.field.atEnd(own.close)
		h, err := own.host("")
		if err != nil {
			return err
		}
		c, err := own.buy(ctx, h)
		if err != nil {
			return err
		}
		v.askers = append(v.askers, c)
	}
	return nil
}

// ask puts n queries for blocks of the piece, one after another. The first of each
// peer connects, and does not count.
func (v *veteran) ask(ctx context.Context, n int) (took []float64, err error) {
	for _, asker := range v.askers {
		own := min(n-len(took), growthBurst)
		for i := range own + 1 {
			c := fillerCID(mrand.IntN(v.blocks))
			began := time.Now()
			resp, err := asker.Query(ctx, v.trade.to, c, market.QueryParams{})
			if err != nil {
				return nil, err
			}
			if i > 0 {
				took = append(took, time.Since(began).Seconds()*1000)
			}
			if resp.ExpectedPayloadSize == nil || *resp.ExpectedPayloadSize != fillerSize {
				return nil, fmt.Errorf("query for %s: %s", c, resp.Message)
			}
		}
	}
	return took, nil
}

// lookUp finds n blocks in the index, and reads as many.
func (v *veteran) lookUp(n int) (lookups, reads []float64, err error) {
	for range n {
		c, other := fillerCID(mrand.IntN(v.blocks)), fillerCID(mrand.IntN(v.blocks))
		began := time.Now()
		size, ok := v.store.Size(c)
		between := time.Now()
		data, err := v.store.Get(other)
		ended := time.Now()
		if err != nil || !ok || size != fillerSize || len(data) != fillerSize {
			return nil, nil, fmt.Errorf("block %s or %s is not there: %w", c, other, err)
		}
		lookups = append(lookups, float64(between.Sub(began).Nanoseconds())/1000)
		reads = append(reads, float64(ended.Sub(between).Nanoseconds())/1000)
	}
	return lookups, reads, nil
}

// touch reads n bytes anywhere in as much memory as the index has. What that takes
// grows with it, as more of it is in no cache of the processor, whatever is looked up
// there: a lookup that grows less cannot do better.
func (v *veteran) touch(n int) (took []float64) {
	var sum byte
	for range n {
		c := fillerCID(mrand.IntN(v.blocks)) // what lookUp does between two
		at := int(c.Hash()[9]) + mrand.IntN(len(v.memory)-255)
		began := time.Now()
		sum += v.memory[at]
		took = append(took, float64(time.Since(began).Nanoseconds())/1000)
	}
	v.memory[0] = sum // so that it is read
	return took
}
