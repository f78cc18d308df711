package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nowhere is a CID that nobody has.
const nowhere = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"

// TestErrors: every error that a user meets has its exit code, and a line that
// says what to do.
func TestErrors(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	p, root := s.sell("tree")
	stingy := s.serve("stingy", "--price", "0.01FIL", "goods.car")
	if err := os.WriteFile(s.path("taken"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	where, name, _ := strings.Cut(p.addr, "/p2p/")
	unreachable, stranger := "/ip4/127.0.0.1/tcp/1/p2p/"+name, where+"/p2p/12D3KooWGC4oVLWz5Zr8y1dP2q2nyDDrVJfcmoVXfDHhyzVZJ8mE"
	buy := func(more ...string) []string {
		return append([]string{"fetch", "--repo", "client", "--provider", p.addr, "--budget", "1FIL", "-o", "out"}, more...)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"unknown CID", buy(nowhere), exitNotFound, []string{nowhere, "not found", "check the CID"}},
		{"price above the maximum", buy("--max-price", "0.001FIL", root), exitPrice, []string{"0.010000000272564224 FIL", "--max-price"}},
		{"budget too small", buy("--budget", "0.00001FIL", root), exitPrice, []string{"needed", "--budget", "nothing was fetched or paid"}},
		{"no budget", []string{"fetch", "--repo", "client", "--provider", p.addr, "-o", "out", root}, exitPrice, []string{"needed", "--budget"}},
		{"no credit line", []string{"fetch", "--repo", "client", "--provider", stingy.addr, "--budget", "1FIL", "-o", "out", root}, exitPrice, []string{"no credit", "--credit"}},
		{"provider unreachable", []string{"fetch", "--repo", "client", "--provider", unreachable, "--budget", "1FIL", "-o", "out", root}, exitFailed, []string{"not reachable", "tollgraph serve"}},
		{"output exists", buy("-o", "taken", root), exitFailed, []string{"taken", "exists", "--overwrite", "nothing was fetched or paid"}},
		{"repo locked", []string{"fetch", "--repo", "provider", "--provider", p.addr, root, "-o", "out"}, exitFailed, []string{"in use", "--repo"}},
		{"bad selector", buy("--selector", `{"a":1}`, root), exitUsage, []string{"--selector", "refused"}},
		{"selector that is no JSON", buy("--selector", `{`, root), exitUsage, []string{"--selector"}},
		{"interval 0", []string{"serve", "--repo", "other", "--price", "1FIL", "--payment-interval", "0", "goods.car"}, exitUsage, []string{"--payment-interval", "1MiB"}},
		{"path that leads nowhere", buy(root + "/no such file"), exitNotFound, []string{"no such entry"}},
		{"no CID", buy("not-a-cid"), exitUsage, []string{"not-a-cid"}},
		{"no provider", []string{"fetch", "--repo", "client", root}, exitUsage, []string{"--provider"}},
		{"bad provider", []string{"query", "--provider", "somewhere", root}, exitUsage, []string{"--provider"}},
		{"amount without unit", buy("--budget", "1", root), exitUsage, []string{"--budget"}},
		{"unknown flag", buy("--nonsense", root), exitUsage, []string{"nonsense", "--help"}},
		{"unknown command", []string{"nonsense"}, exitUsage, []string{"nonsense", "--help"}},
		{"unknown deal", []string{"deals", "show", "--repo", "client", "1"}, exitNotFound, []string{"deals list"}},
		{"nothing to serve", []string{"serve", "--repo", "other"}, exitUsage, []string{"car create"}},
		{"no CAR", []string{"serve", "--repo", "other", "taken"}, exitFailed, []string{"taken", "nothing to serve"}},
		{"two writers of standard output", buy("--json", "-o", "-", root), exitUsage, []string{"--json"}},
		{"no folder for the output", buy("-o", "nowhere/out", root), exitFailed, []string{"there is no folder nowhere", "-o", "nothing was fetched or paid"}},
		{"output below a file", buy("-o", "taken/out", root), exitFailed, []string{"taken", "-o", "nothing was fetched or paid"}},
		{"provider without its name", []string{"query", "--provider", "/ip4/127.0.0.1/tcp/1", root}, exitUsage, []string{"--provider", "/p2p/ID"}},
		{"another node there", []string{"fetch", "--repo", "client", "--provider", stranger, "--budget", "1FIL", "-o", "out", root}, exitFailed, []string{"the node at that address is " + name, "--provider"}},
		{"cut CID", buy(root[:40]), exitUsage, []string{root[:40], "copy it whole"}},
		{"listen address", []string{"serve", "--repo", "other", "--listen", "x", "goods.car"}, exitUsage, []string{"--listen", "/ip4/0.0.0.0/tcp/4100"}},
		{"repo below a file", []string{"fetch", "--repo", "taken/repo", "--provider", p.addr, "-o", "out", root}, exitFailed, []string{"repo", "taken/repo"}},
		{"long chunks", []string{"car", "create", "-o", "new.car", "--chunk-size", "3MiB", "tree"}, exitUsage, []string{"--chunk-size", "2MiB"}},
		{"no folder for a CAR", []string{"car", "create", "-o", "nowhere/new.car", "tree"}, exitFailed, []string{"there is no folder nowhere", "-o"}},
		{"limit of deals", []string{"deals", "list", "--limit", "-1"}, exitUsage, []string{"--limit"}},
		{"CAR exists", []string{"car", "create", "-o", "goods.car", "tree"}, exitFailed, []string{"exists", "-o", "--overwrite"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &shell{t, s.dir}
			got := s.run(c.args...)
			if got.code != c.code {
				t.Errorf("exit code %d, want %d", got.code, c.code)
			}
			for _, word := range c.says {
				if !strings.Contains(got.err, word) {
					t.Errorf("%q is not in %q", word, got.err)
				}
			}
			if got.out != "" {
				t.Errorf("standard output %q", got.out)
			}
			if lines := strings.Count(got.err, "\n"); lines != 1 && c.name != "no CAR" || !strings.Contains(got.err, "tollgraph: ") {
				t.Errorf("%d lines: %s", lines, got.err)
			}
		})
	}
	if _, err := os.Stat(s.path("out")); err == nil {
		t.Error("a fetch that failed left an output")
	}
	for _, d := range decode[[]deal](t, s.must("deals", "list", "--json", "--repo", "client")) {
		if d.Paid != "0" && d.Bytes > 1<<20 {
			t.Errorf("paid for %+v", d)
		}
	}
}

// TestDamaged: a CAR that is damaged is named and left out, the rest is served
// and sold.
func TestDamaged(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 2<<20)
	if err := os.Mkdir(s.path("cars"), 0o755); err != nil {
		t.Fatal(err)
	}
	root := strings.TrimSpace(s.must("car", "create", "-o", "cars/good.car", "tree").out)
	whole, err := os.ReadFile(s.path("cars/good.car"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), whole...)
	flipped[len(flipped)/2] ^= 1
	for name, data := range map[string][]byte{"cut.car": whole[:len(whole)-100], "flipped.car": flipped} {
		if err := os.WriteFile(s.path(filepath.Join("cars", name)), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := s.run("car", "verify", "cars/"+name); got.code != exitUnverified || !strings.Contains(got.err, name) {
			t.Errorf("car verify %s: exit code %d: %s", name, got.code, got.err)
		}
	}
	p := s.serve("provider", "--price", "0.01FIL", "--credit", "1FIL", "cars")
	named := map[string]bool{}
	for _, e := range p.events {
		if e.Event == "problem" && e.Error != "" && !e.Served {
			named[filepath.Base(e.Path)] = true
		}
	}
	if !named["cut.car"] || !named["flipped.car"] || len(named) != 2 {
		t.Errorf("problems with %v", named)
	}
	s.fetch("client", p, root, "-o", "out")
	s.same("tree", "out")
}
