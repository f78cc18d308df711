package retrievalmarket

import (
	"testing"
	"time"
)

// TestLeastMissed: the oldest of the largest network goes, at once if that has more
// than the one that the new deal is from, and else when it had its time.
func TestLeastMissed(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(s int) time.Time { return now.Add(time.Duration(-s) * time.Second) }
	crowd := []waiter{{"a", ago(5)}, {"b", ago(50)}, {"a", ago(6)}, {"a", ago(4)}}
	for name, c := range map[string]struct {
		all   []waiter
		place string
		here  int
		want  int
	}{
		"nobody waits":                          {nil, "c", 0, -1},
		"the oldest of the largest":             {crowd, "c", 0, 2},
		"they are from there itself, and young": {crowd, "a", 3, -1},
		"it would have as many":                 {crowd, "c", 2, -1},
		"one each, and young":                   {[]waiter{{"a", ago(5)}, {"b", ago(6)}}, "c", 0, -1},
		"one each, and old":                     {[]waiter{{"a", ago(5)}, {"b", ago(31)}}, "c", 0, 1},
		"from there itself, and old":            {[]waiter{{"c", ago(5)}, {"c", ago(40)}}, "c", 2, 1},
	} {
		if got := leastMissed(c.all, c.place, c.here, ago(30)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
