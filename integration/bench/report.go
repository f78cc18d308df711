package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// figure is what the rounds of one contender came to.
type figure struct {
	name    string
	variant string    // what sets it apart from others of the name
	speed   []float64 // MiB/s, one per round
	cpu     []float64 // seconds of processor per GiB, both sides
	note    string
	extra   map[string]float64 // further figures, by name and unit
}

// label names a figure in a table and in pairs.
func (f figure) label() string {
	if f.variant == "" {
		return f.name
	}
	return f.name + ", " + f.variant
}

// row is one line of bench.json: a contender, and what it is compared with.
type row struct {
	Section   string             `json:"section,omitempty"`
	Name      string             `json:"name"`
	Variant   string             `json:"variant,omitempty"`
	Chunk     int64              `json:"chunk"`
	MiB       float64            `json:"mib"`
	RTT       int64              `json:"rtt_ms"`
	Disk      bool               `json:"disk,omitempty"`
	Rounds    int                `json:"rounds"`
	MiBps     float64            `json:"mib_per_s"`
	Min       float64            `json:"min_mib_per_s"`
	Max       float64            `json:"max_mib_per_s"`
	RatioTo   string             `json:"ratio_to"`
	VariantTo string             `json:"variant_to,omitempty"`
	Ratio     float64            `json:"ratio"`
	Target    float64            `json:"target,omitempty"` // what the ratio is held to, at least
	Figures   map[string]float64 `json:"figures,omitempty"`
	Note      string             `json:"note,omitempty"`
}

// pair is two figures that are compared, by their labels. The ratio of their
// speeds is held to target, if that is not 0.
type pair struct {
	a, b   string
	target float64
}

// pairsFor are compared in a case in which all rivals run.
func pairsFor(c benchCase) []pair {
	var targets map[[2]string]float64
	switch {
	case c.RTT >= wanRTT:
		targets = map[[2]string]float64{{"paid", "free"}: 0.97, {"free", "stream"}: 0.9}
	case c.RTT == 0 && c.Rate == 0 && !c.Disk && !c.Deep:
		targets = map[[2]string]float64{
			{"paid", "free"}: 0.97, {"paid", bareName}: 0.97, {"paid", "graphsync"}: 2, {"paid", "bitswap"}: 1.3, {"paid", "stream-sha256"}: 0.8,
		}
		if c.Chunk >= 1<<20 {
			targets[[2]string{"paid", "graphsync"}] = 1.7
		}
	}
	var out []pair
	for _, p := range [][2]string{
		{"stream", "stream-sha256"}, {"stream-sha256", "stream"}, {"http", "stream-sha256"}, {"graphsync", "stream-sha256"},
		{"data-transfer", "graphsync"}, {"bitswap", "stream-sha256"},
		{"free", "stream"}, {"free", "graphsync"}, {"free", "bitswap"},
		{"paid", "free"}, {"paid", "graphsync"}, {"paid", "data-transfer"}, {"paid", "bitswap"}, {"paid", "http"}, {"paid", "stream-sha256"},
		{"paid", bareName}, {"paid-strict", "free"},
	} {
		out = append(out, pair{p[0], p[1], targets[p]})
	}
	return out
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile returns the p-th hundredth of v, 0 if there is nothing in it.
func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[max(int(math.Ceil(p/100*float64(len(s))))-1, 0)]
}

// jain is the fairness of shares: 1 if all are the same, 1/n if one has all.
func jain(v []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, x := range v {
		sum, squares = sum+x, squares+x*x
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(v)) * squares)
}

// ratio is how much faster a is than b: the median of what it was in each round.
// What else the machine does is much the same for both in one round, and not from
// round to round: medians that are compared are each of another moment.
func ratio(a, b figure) float64 {
	var rounds []float64
	for i := range min(len(a.speed), len(b.speed)) {
		rounds = append(rounds, a.speed[i]/b.speed[i])
	}
	return median(rounds)
}

func byLabel(figures []figure) map[string]figure {
	out := make(map[string]figure, len(figures))
	for _, f := range figures {
		if len(f.speed) > 0 {
			out[f.label()] = f
		}
	}
	return out
}

// compare makes the rows of a case.
func compare(section string, c benchCase, figures []figure, pairs []pair) []row {
	all := byLabel(figures)
	var rows []row
	for _, p := range pairs {
		a, hasA := all[p.a]
		b, hasB := all[p.b]
		if !hasA || !hasB {
			continue
		}
		rows = append(rows, row{
			Section: section, Name: a.name, Variant: a.variant, Chunk: c.Chunk, MiB: float64(c.MiB), RTT: c.RTT.Milliseconds(), Disk: c.Disk,
			Rounds: len(a.speed), MiBps: round(median(a.speed)), Min: round(slices.Min(a.speed)), Max: round(slices.Max(a.speed)),
			RatioTo: b.name, VariantTo: b.variant, Ratio: round(ratio(a, b)), Target: p.target, Figures: a.extra, Note: a.note,
		})
	}
	return rows
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// printTable writes figures and the ratios of rows.
func printTable(w io.Writer, figures []figure, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tmedian MiB/s\tmin\tmax\tCPU s/GiB\t\n")
	for _, f := range figures {
		if len(f.speed) == 0 {
			fmt.Fprintf(t, "%s\t\t\t\t\t  %s\n", f.label(), f.note)
			continue
		}
		cpu := ""
		if len(f.cpu) > 0 {
			cpu = fmt.Sprintf("%.2f", median(f.cpu))
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%s\t  %s\n", f.label(), median(f.speed), slices.Min(f.speed), slices.Max(f.speed), cpu, f.text())
	}
	_ = t.Flush() // to a terminal
	for _, r := range rows {
		a, b := figure{name: r.Name, variant: r.Variant}, figure{name: r.RatioTo, variant: r.VariantTo}
		fmt.Fprintf(w, "  %s ÷ %s  %.2f%s\n", a.label(), b.label(), r.Ratio, against(r.Ratio, r.Target))
	}
	fmt.Fprintln(w)
}

// text is the rest of a figure, for people.
func (f figure) text() string {
	s := f.note
	for _, k := range slices.Sorted(maps.Keys(f.extra)) {
		if s != "" {
			s += ", "
		}
		s += fmt.Sprintf("%s %s", k, short(f.extra[k]))
	}
	return s
}

// short writes x with three digits or as a whole number.
func short(x float64) string {
	if x == math.Trunc(x) || math.Abs(x) >= 1000 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// against says whether a ratio is what it is held to.
func against(ratio, target float64) string {
	switch {
	case target == 0:
		return ""
	case ratio >= target:
		return fmt.Sprintf("  (at least %.2f: reached)", target)
	}
	return fmt.Sprintf("  (at least %.2f: MISSED)", target)
}
