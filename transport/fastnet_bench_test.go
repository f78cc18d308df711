package transport

import (
	"crypto/sha256"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sys/unix"
)

// BenchmarkTransfer moves 256 MiB by one graphsync request over loopback TCP,
// from memory to memory. The client's store keeps the blocks, which makes the
// kernel hand out fresh pages for each transfer, or only counts them, as one on
// disk would do as far as memory is concerned.
func BenchmarkTransfer(b *testing.B) {
	const total = 256 << 20
	for _, size := range []struct {
		name  string
		bytes int
	}{{"256KiB", 256 << 10}, {"1MiB", 1 << 20}} {
		from := newFastStore()
		root := fillStar(b, from, total, size.bytes)
		for _, run := range []struct {
			kind   networkKind
			forget bool
			name   string
		}{{stockKind, false, ""}, {fastKind, false, ""}, {stockKind, true, "/count"}, {fastKind, true, "/count"}} {
			b.Run(run.kind.name+"/"+size.name+run.name, func(b *testing.B) {
				b.SetBytes(total)
				b.ReportAllocs()
				var cpu time.Duration // of the whole process: both sides of the transfer
				for range b.N {
					b.StopTimer()
					p := newPair(b, from, run.kind, run.kind)
					p.store.forget = run.forget
					before := cpuTime(b)
					b.StartTimer()
					if err := p.fetch(testContext(b, time.Minute), root); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					cpu += cpuTime(b) - before
					if p.store.bytes < total {
						b.Fatalf("received %d bytes of %d", p.store.bytes, total)
					}
					_ = p.client.Close()
					_ = p.provider.Close()
				}
				b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// cpuTime returns the CPU time that the process has used. Unlike the clock, it
// does not care what else the machine is doing.
func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStream is the floor: the same bytes over a bare libp2p stream,
// hashed at the receiver, one block at a time into one buffer.
func BenchmarkStream(b *testing.B) {
	const total, block = 256 << 20, 256 << 10
	data := make([]byte, block)
	b.SetBytes(total)
	var cpu time.Duration
	for range b.N {
		b.StopTimer()
		from, to := newTestHost(b), newTestHost(b)
		introduce(from, to)
		done := make(chan error, 1)
		to.SetStreamHandler("/bench", func(s network.Stream) {
			buf := make([]byte, block)
			for {
				if _, err := io.ReadFull(s, buf); err != nil {
					done <- err
					return
				}
				sha256.Sum256(buf)
			}
		})
		s, err := from.NewStream(testContext(b, time.Minute), to.ID(), "/bench")
		if err != nil {
			b.Fatal(err)
		}
		before := cpuTime(b)
		b.StartTimer()
		for range total / block {
			if _, err := s.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		_ = s.CloseWrite()
		if err := <-done; err != io.EOF {
			b.Fatal(err)
		}
		b.StopTimer()
		cpu += cpuTime(b) - before
		_ = from.Close()
		_ = to.Close()
	}
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
}
