package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	golog "github.com/ipfs/go-log/v2"
)

func TestMain(m *testing.M) {
	golog.SetAllLoggers(golog.LevelFatal) // the libraries log what is normal as errors
	os.Exit(m.Run())
}

// TestRivals: every rival moves all of the goods, in every setting.
func TestRivals(t *testing.T) {
	for name, c := range map[string]benchCase{
		"wide":    {MiB: 4, Chunk: 64 << 10},
		"deep":    {MiB: 4, Chunk: 64 << 10, Deep: true, Only: []string{"stream-sha256", "graphsync", "bitswap", "free", "paid"}},
		"disk":    {MiB: 4, Chunk: 256 << 10, Disk: true},
		"delayed": {MiB: 4, Chunk: 256 << 10, RTT: 20 * time.Millisecond, Only: []string{"stream", "http", "free", "paid"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c.Interval, c.Rounds = 1<<20, 1
			figures, err := measure(ctx, c, t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			want := len(c.Only)
			if c.Only == nil {
				want = len(makers)
			}
			if c.Disk {
				want-- // bitswap
			}
			for _, f := range figures {
				if len(f.speed) != 1 || f.speed[0] <= 0 {
					t.Errorf("%s: %v", f.name, f.speed)
				}
			}
			if len(figures) != want || len(compare(c, figures)) == 0 {
				t.Errorf("%d figures, want %d", len(figures), want)
			}
			if testing.Verbose() {
				printTable(os.Stdout, figures)
			}
		})
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

func TestCompare(t *testing.T) {
	figures := []figure{{name: "free", speed: []float64{100, 300, 200}}, {name: "paid", speed: []float64{190, 90, 210, 200}}, {name: "graphsync"}}
	rows := compare(benchCase{MiB: 3, Chunk: 4, RTT: time.Second}, figures)
	want := row{Name: "paid", Chunk: 4, MiB: 3, RTT: 1000, MiBps: 195, RatioTo: "free", Ratio: 0.975}
	if len(rows) != 1 || rows[0] != want {
		t.Errorf("%+v, want %+v", rows, want)
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
