package main

import (
	"os"
	"strings"
	"testing"
)

// TestBench measures this machine and two providers with the program itself, and
// leaves nothing behind but the payment.
func TestBench(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	p, root := s.sell("tree")
	args := []string{"bench", "--json", "--repo", "client", "--size", "4MiB", "--rounds", "1", "--provider", p.addr, root + "/noise.bin"}
	got := decode[benchmark](t, s.must(append(args, "--budget", "1FIL")...))
	l, r := got.Local, got.Provider
	if l == nil || l.Cores < 1 || l.Bytes < 4<<20 || min(l.Hash, l.HashAll, l.DiskWrite, l.DiskRead, l.Free, l.Paid, l.Ratio) <= 0 || l.Payments < 1 {
		t.Errorf("here: %+v", l)
	}
	if r == nil || r.Bytes < 3<<20 || min(r.Dial, r.RTT, r.Query, r.FirstByte, r.Speed, r.Seconds) <= 0 || r.Payments < 1 {
		t.Fatalf("provider: %+v", r)
	}
	w := decode[walletView](t, s.must("wallet", "show", "--json", "--repo", "client"))
	if len(w.Paid) != 1 || w.Paid[0].Total.String() != r.Paid || r.Paid == "0" {
		t.Errorf("%s attoFIL paid, the wallet says %+v", r.Paid, w.Paid)
	}
	if s.must("deals", "list", "--json", "--repo", "client").out != "[]\n" {
		t.Error("the deals of a measurement are among those of the repo")
	}
	for _, e := range must(os.ReadDir(s.path("client"))) {
		if strings.HasPrefix(e.Name(), "bench-") {
			t.Errorf("%s stayed", e.Name())
		}
	}
	if broke := s.run(args...); broke.code != exitPrice || !strings.Contains(broke.err, "--budget") {
		t.Errorf("without a budget: exit code %d: %s", broke.code, broke.err)
	}
	free := s.serve("charity", "goods.car")
	got = decode[benchmark](t, s.must("bench", "--json", "--repo", "client", "--size", "0", "--provider", free.addr, "--entity-bytes", "0:1048575", root+"/noise.bin"))
	if r := got.Provider; got.Local != nil || r == nil || r.Bytes < 1<<20 || r.Bytes > 2<<20 || r.Paid != "0" {
		t.Errorf("a free provider: %+v", r)
	}
}

func TestBenchUsage(t *testing.T) {
	s := newShell(t)
	for _, args := range [][]string{
		{"--size", "0"}, {"--size", "many"}, {"--rounds", "0"}, {"--budget", "1FIL"}, {"nonsense"},
		{"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}, // nobody is named to have it
	} {
		if r := s.run(append([]string{"bench"}, args...)...); r.code != exitUsage {
			t.Errorf("%q: exit code %d: %s", args, r.code, r.err)
		}
	}
}

// TestBenchForPeople prints a table.
func TestBenchForPeople(t *testing.T) {
	s := newShell(t)
	out := s.must("bench", "--size", "1MiB", "--rounds", "1").out
	for _, line := range []string{"SHA-256, one core", "disk, write and sync", "disk, read", "loopback, disk to disk, free", "of free"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
