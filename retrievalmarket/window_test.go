package retrievalmarket

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindow(t *testing.T) {
	for _, tc := range []struct {
		risk, rate Bytes
		trip       time.Duration
		want       Bytes
	}{
		{32 << 20, 0, 0, 28 << 20}, // nothing is known yet
		{32 << 20, 0, time.Minute, 16 << 20},
		{32 << 20, 256 << 20, 4 * time.Millisecond, 16<<20 + 2<<20 + 50330}, // 2.048 MiB under way
		{32 << 20, 40 << 20, 100 * time.Millisecond, 24 << 20},
		{32 << 20, 300 << 20, 100 * time.Millisecond, 28 << 20},
		{32 << 20, ^Bytes(0), time.Hour, 28 << 20},
		{128 << 20, 40 << 20, 100 * time.Millisecond, 64 << 20},
		{128 << 20, 400 << 20, 100 * time.Millisecond, 96 << 20},
		{16 << 20, 1, time.Millisecond, 14 << 20}, // too little for large steps
		{4 << 20, 1, time.Millisecond, 7 << 19},
		{0, 1 << 20, time.Second, 0},
	} {
		if got := (pace{rate: tc.rate, trip: tc.trip}).window(tc.risk); got != tc.want {
			t.Errorf("%d at risk, %d/s, %s: window %d, want %d", tc.risk, tc.rate, tc.trip, got, tc.want)
		}
	}
}

// TestWindowLaws: never more than the risk, at least half of it, and never smaller
// where more arrives or payments are slower.
func TestWindowLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		risk := Bytes(rapid.Uint64().Draw(t, "risk"))
		p := pace{rate: Bytes(rapid.Uint64().Draw(t, "rate")), trip: time.Duration(rapid.Int64Range(1, 1<<40).Draw(t, "trip"))}
		w := p.window(risk)
		if w > risk || w < risk/2 {
			t.Fatalf("risk %d: %d", risk, w)
		}
		faster, slower := p, p
		faster.rate = max(p.rate, Bytes(rapid.Uint64().Draw(t, "more")))
		slower.trip += time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "longer"))
		if faster.window(risk) < w || slower.window(risk) < w {
			t.Fatalf("risk %d: %+v wants %d, faster %d, slower %d", risk, p, w, faster.window(risk), slower.window(risk))
		}
	})
}

// TestPace: a rate is measured over a tenth of a second at least, rises at once
// and falls slowly; what took one payment long is soon forgotten.
func TestPace(t *testing.T) {
	start := time.Unix(1e9, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	p := pace{}.arrived(at(0), 500)
	for _, tc := range []struct {
		ms   int
		seen Bytes
		want Bytes
	}{{50, 1500, 0}, {100, 2500, 20_000}, {200, 2900, 16_000}, {300, 102_900, 1_000_000}, {400, 5, 1_000_000}, {500, 5, 750_000}} {
		if p = p.arrived(at(tc.ms), tc.seen); p.rate != tc.want {
			t.Errorf("after %d ms: %d/s, want %d", tc.ms, p.rate, tc.want)
		}
	}
	for i, want := range []time.Duration{100, 200, 175, 156} {
		if p = p.answered([]time.Duration{100, 500, 100, 100}[i] * time.Millisecond); p.trip.Milliseconds() != int64(want) {
			t.Errorf("after %d payments: %s, want %d ms", i+1, p.trip, want)
		}
	}
}
