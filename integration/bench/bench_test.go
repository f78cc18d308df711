package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	golog "github.com/ipfs/go-log/v2"
)

func TestMain(m *testing.M) {
	golog.SetAllLoggers(golog.LevelFatal) // the libraries log what is normal as errors
	if os.Getenv(asChild) != "" {
		runChild(context.Background())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestRivals: every rival moves all of the goods, in every setting.
func TestRivals(t *testing.T) {
	for name, c := range map[string]benchCase{
		"wide":    {MiB: 4, Chunk: 64 << 10},
		"deep":    {MiB: 4, Chunk: 64 << 10, Deep: true, Only: []string{"stream-sha256", "graphsync", "bitswap", "free", "paid"}},
		"disk":    {MiB: 4, Chunk: 256 << 10, Disk: true},
		"delayed": {MiB: 4, Chunk: 256 << 10, RTT: 20 * time.Millisecond, Only: []string{"stream", "http", "free", "paid"}},
		"quic":    {MiB: 4, Chunk: 256 << 10, QUIC: true, Only: []string{"stream", "free", "paid"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c.Interval, c.Rounds = 1<<20, 1
			figures, err := measure(ctx, c, entriesFor(c), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			want := len(c.Only)
			if c.Only == nil {
				want = len(makers) - 1 // the one without the guard must be named
			}
			if c.Disk {
				want-- // bitswap
			}
			if c.QUIC {
				want *= 2 // and over TCP
			}
			for _, f := range figures {
				if len(f.speed) != 1 || f.speed[0] <= 0 {
					t.Errorf("%s: %v", f.name, f.speed)
				}
			}
			rows := compare("", c, figures, pairsFor(c))
			if len(figures) != want || len(rows) == 0 {
				t.Errorf("%d figures, want %d", len(figures), want)
			}
			if testing.Verbose() {
				printTable(os.Stdout, figures, rows)
			}
		})
	}
}

// TestRelay: what each client sends comes back to it, late, and neither a datagram that is
// too long nor a client that is gone stops the others.
func TestRelay(t *testing.T) {
	echo, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			data, from, ok := receive(echo)
			if !ok {
				return
			}
			_, _ = echo.WriteToUDPAddrPort(data, from) // what is missing shows below
		}
	}()
	const rtt = 60 * time.Millisecond
	r, err := newRelay(echo.LocalAddr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for client := range 3 {
		c, err := net.DialUDP("udp", nil, r.addr())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, sent := range [][]byte{make([]byte, 2*datagramSize), {byte(client)}} {
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, datagramSize)
		_ = c.SetReadDeadline(start.Add(time.Minute))
		n, err := c.Read(got)
		if took := time.Since(start); err != nil || n != 1 || got[0] != byte(client) || took < rtt {
			t.Errorf("%v after %s: %v", got[:n], took, err)
		}
		_ = c.Close()
	}
}

// TestProxy: what goes in comes out, late.
func TestProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	const rtt = 60 * time.Millisecond
	p, err := newProxy(l.Addr().String(), rtt, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c, err := net.Dial("tcp", p.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("toll"), 1<<20)
	start := time.Now()
	go func() {
		_, _ = c.Write(sent) // what is missing shows below
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < rtt {
		t.Errorf("the first byte took %s, less than %s", took, rtt)
	}
	rest, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(append(first, rest...), sent) {
		t.Errorf("%d bytes came back of %d: %v", 1+len(rest), len(sent), err)
	}
	if took := time.Since(start); took < rtt+time.Second/16 {
		t.Errorf("4 MiB at 64 MiB/s took %s", took)
	}
}

// TestCompare: rates are medians of all rounds, and a ratio is the median of those of the
// rounds in which both ran: 1.9, 0.3 and 1.05.
func TestCompare(t *testing.T) {
	figures := []figure{{name: "free", speed: []float64{100, 300, 200}}, {name: "paid", speed: []float64{190, 90, 210, 200}}, {name: "graphsync"}}
	c := benchCase{MiB: 3, Chunk: 4, RTT: time.Second}
	got := compare("wan", c, figures, pairsFor(c))
	want := []row{{Section: "wan", Name: "paid", Chunk: 4, MiB: 3, RTT: 1000, Rounds: 4, MiBps: 195, Min: 90, Max: 210, RatioTo: "free", Ratio: 1.05, Target: 0.97}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestTargets: what the project is held to is in the suite, and nowhere else.
func TestTargets(t *testing.T) {
	for name, tc := range map[string]struct {
		c    benchCase
		want map[string]float64
	}{
		"1 MiB":   {benchCase{Chunk: 1 << 20}, map[string]float64{"paid free": 0.97, "paid graphsync": 1.7, "paid bitswap": 1.3, "paid paid-unguarded": 0.97, "paid stream-sha256": 0.8}},
		"256 KiB": {benchCase{Chunk: 256 << 10}, map[string]float64{"paid free": 0.97, "paid graphsync": 2, "paid bitswap": 1.3, "paid paid-unguarded": 0.97, "paid stream-sha256": 0.8}},
		"far":     {benchCase{Chunk: 256 << 10, RTT: 100 * time.Millisecond}, map[string]float64{"paid free": 0.97, "free stream": 0.9}},
		"disk":    {benchCase{Chunk: 1 << 20, Disk: true}, map[string]float64{}},
		"slow":    {benchCase{Chunk: 1 << 20, Rate: 1 << 20}, map[string]float64{}},
	} {
		got := map[string]float64{}
		for _, p := range pairsFor(tc.c) {
			if p.target != 0 {
				got[p.a+" "+p.b] = p.target
			}
		}
		if !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestStatistics(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for what, got := range map[string][2]float64{
		"median of 100":       {median(hundred), 50.5},
		"median of none":      {median(nil), 0},
		"99th of 100":         {percentile(hundred, 99), 99},
		"99th of one":         {percentile([]float64{7}, 99), 7},
		"99th of none":        {percentile(nil, 99), 0},
		"all the same":        {jain([]float64{3, 3, 3, 3}), 1},
		"one has all":         {jain([]float64{8, 0, 0, 0}), 0.25},
		"one has twice":       {round(jain([]float64{2, 1})), 0.9},
		"fairness of nothing": {jain(nil), 0},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %v, want %v", what, got[0], got[1])
		}
	}
	for n, want := range map[int]string{1e4: "10^4", 1e7: "10^7", 100: "100", 20000: "20000"} {
		if got := power(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

// TestFairness: shares are counted while all run, and from the order if there is
// no such time.
func TestFairness(t *testing.T) {
	deals := []childDeal{{Marks: []int64{110, 120, 130}}, {Marks: []int64{120, 140, 160}}, {Marks: []int64{115, 145, 150}}}
	from, to := running(deals, 100)
	if from != 120 || to != 130 {
		t.Errorf("all run from %d to %d", from, to)
	}
	for i, want := range []float64{1, 0.5, 1.0 / 3} {
		if got := shares(deals, 100, from, to)[i]; round(got) != round(want) {
			t.Errorf("deal %d got %v, want %v", i, got, want)
		}
	}
	if from, to = running([]childDeal{{Marks: []int64{110}}, {Marks: []int64{130}}}, 100); from != 100 || to != 110 {
		t.Errorf("one after the other they run from %d to %d", from, to)
	}
	if from, to = running([]childDeal{{Marks: []int64{110}}, {}}, 100); from != to {
		t.Errorf("they run from %d to %d although one never began", from, to)
	}
}

// TestHungRivals: one that does not even end when it is told to is given up and
// named, and the others go on.
func TestHungRivals(t *testing.T) {
	if _, err := bounded(time.Millisecond, func() (int, error) { select {} }); !errors.Is(err, errHung) {
		t.Error(err)
	}
	k := &contender{rival: failing{}, field: &field{}, figure: figure{name: "bitswap"}}
	if err := k.turn(t.Context(), 3); err != nil || !k.failed || !strings.Contains(k.figure.note, "out in round 3: it hung") {
		t.Errorf("%v, %+v", err, k.figure)
	}
	k = &contender{rival: failing{}, field: &field{}, figure: figure{name: "paid"}}
	if err := k.turn(t.Context(), 3); err == nil {
		t.Error("one of ours failed, and the run goes on")
	}
}

// failing is a rival that fails.
type failing struct{}

func (failing) fetch(context.Context) error { return errors.New("it hung") }
func (failing) close()                      {}

// TestSections runs every section of the suite on next to nothing.
func TestSections(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	s := sizes{
		rounds: 1, loopback: 1, wan: 1, disk: 4, payments: 2, deals: 3, load: 1, clients: 3,
		growth: []size{{10, 100}, {200, 1000}}, growthMiB: 1, growthAsks: 5,
	}
	want := map[string]int{"payments": 2, "disk": 4, "small": 4, "load": 3, "growth": 2}
	for _, sec := range suite {
		n, ok := want[sec.name]
		if !ok {
			continue // TestRivals
		}
		t.Run(sec.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			b := &bench{dir: t.TempDir(), out: t.Output()}
			if err := sec.run(b, ctx, s, benchCase{Interval: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			if len(b.rows) != n {
				t.Errorf("%d rows, want %d: %+v", len(b.rows), n, b.rows)
			}
			for _, r := range b.rows {
				if r.Section != sec.name || r.MiBps <= 0 || r.Ratio <= 0 || r.MiB == 0 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// TestFirstByte: it is measured in every way of beginning.
func TestFirstByte(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b := &bench{dir: t.TempDir(), out: t.Output()}
	if err := b.firstByte(ctx, benchCase{Chunk: 64 << 10, RTT: 20 * time.Millisecond, Interval: 1 << 20, Rounds: 1}); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.rows {
		if trips := r.Figures["first_byte_round_trips"]; trips < 1 || trips > 100 {
			t.Errorf("%s: %v round trips", r.Variant, trips)
		}
	}
	if len(b.rows) != 9 {
		t.Errorf("%d rows", len(b.rows))
	}
}

func TestParseGrowth(t *testing.T) {
	got, err := parseGrowth("1e4/100000,10/2")
	if want := []size{{1e4, 1e5}, {10, 2}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"1e4", "0/1", "1/-1", "x/1", "1/1e99", ","} {
		if _, err := parseGrowth(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"256KiB": 256 << 10, "1MiB": 1 << 20, "2GiB": 2 << 30, "77": 77} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "MiB", "-1", "0", "1TiB"} {
		if _, err := parseSize(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}
