package main

import (
	"os"
	"strings"
	"testing"
)

// TestStore: what was received is listed and removed, unless a deal needs it, and
// then bought again; with a node on the repo and without.
func TestStore(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	list := func() []holding { return decode[[]holding](t, s.must("store", "list", "--json", "--repo", "client")) }
	if got := list(); len(got) != 0 {
		t.Errorf("a fresh repo has %+v", got)
	}
	if r := s.run("fetch", "--repo", "client", "--provider", p.addr, "-o", "out", nowhere); r.code != exitNotFound || len(list()) != 0 {
		t.Errorf("exit code %d; what nobody has left %+v", r.code, list())
	}
	first := s.fetch("client", p, root, "-o", "out")
	got := list()
	if len(got) != 1 || got[0].CID != root || got[0].Bytes < int64(first.Bytes) || got[0].Received.IsZero() {
		t.Fatalf("kept %+v after %+v", got, first)
	}
	if people := s.must("store", "list", "--repo", "client").out; !strings.Contains(people, root) || !strings.Contains(people, "8 MiB") {
		t.Errorf("for people: %q", people)
	}
	removed := decode[[]holding](t, s.must("store", "rm", "--json", "--repo", "client", root))
	if len(removed) != 1 || !removed[0].Removed || removed[0].Bytes != got[0].Bytes || len(list()) != 0 {
		t.Errorf("removed %+v, left %+v", removed, list())
	}
	if left, err := os.ReadDir(s.path("client/blocks")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if again := s.fetch("client", p, root, "-o", "out again"); again.Bytes != first.Bytes || again.Paid != first.Paid {
		t.Errorf("fetched again: %+v, first %+v", again, first)
	}
	s.same("tree", "out again")

	s.daemon("client")
	s.must("store", "rm", "--repo", "client", root)
	if left := list(); len(left) != 0 {
		t.Errorf("the daemon left %+v", left)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"rm", "--repo", "client", root}, exitNotFound, "store list"},
		{[]string{"rm", "--repo", "client", root + "/read me.txt"}, exitUsage, "name the root"},
		{[]string{"rm", "--repo", "client"}, exitUsage, "--all"},
		{[]string{"rm", "--repo", "client", "--all", root}, exitUsage, "--all"},
		{[]string{"rm", "--repo", "client", "x"}, exitUsage, "not a CID"},
		{[]string{"rm", "--repo", "provider", root}, exitFailed, "only sells"},
		{[]string{"list", "--repo", "client", root}, exitUsage, "store rm"},
	} {
		if r := s.run(append([]string{"store"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.says) {
			t.Errorf("%q: exit code %d, want %d; %q is not in %q", c.args, r.code, c.code, c.says, r.err)
		}
	}
}

// TestStoreOfOpenDeal: what a deal received that has not ended stays until it is
// given up.
func TestStoreOfOpenDeal(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	g := s.gate(p, 3<<20)
	stop := s.signalled("fetch", "--repo", "client", "--provider", g.addr, "--budget", "0.5FIL", "--max-at-risk", "0", "-o", "out", root)
	<-g.reached
	if r := s.run("store", "rm", "--repo", "client", root); r.code != exitFailed || !strings.Contains(r.err, "in use") {
		t.Errorf("while it runs: exit code %d: %s", r.code, r.err)
	}
	stop(os.Interrupt)
	g.open()
	if r := s.run("store", "rm", "--repo", "client", root); r.code != exitFailed || !strings.Contains(r.err, "deals cancel") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	kept := decode[[]holding](t, s.must("store", "rm", "--json", "--all", "--repo", "client"))
	if len(kept) != 1 || kept[0].Removed || !strings.Contains(kept[0].Kept, s.only("client").ID) {
		t.Errorf("kept %+v", kept)
	}
	s.must("deals", "cancel", "--repo", "client", s.only("client").ID)
	if r := s.must("store", "rm", "--all", "--repo", "client"); !strings.Contains(r.err, "removed "+root) {
		t.Errorf("said %q", r.err)
	}
}
