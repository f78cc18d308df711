package main

import (
	"os"
	"strings"
	"testing"
)

// TestControlAlone: without a node on the repo, deals are changed where they
// are on record, and resumed in the foreground.
func TestControlAlone(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	g := s.gate(p, 3<<20)
	fetch := []string{"fetch", "--repo", "client", "--provider", g.addr, "--budget", "0.5FIL", "--max-at-risk", "0", "-o", "out", root}
	stop := s.signalled(fetch...)
	<-g.reached
	if r := s.run("deals", "pause", "--repo", "client", s.only("client").ID); r.code != exitFailed || !strings.Contains(r.err, "in use") {
		t.Errorf("a deal of another process: exit code %d: %s", r.code, r.err)
	}
	if r := stop(os.Interrupt); r.code != exitInterrupted {
		t.Errorf("interrupted: exit code %d: %s", r.code, r.err)
	}
	g.open()
	d := s.only("client")
	control := func(verb string, more ...string) deal {
		t.Helper()
		return decode[deal](t, s.must(append([]string{"deals", verb, "--json", "--repo", "client", d.ID}, more...)...))
	}
	if got := control("pause"); !strings.Contains(got.Message, "deals resume") {
		t.Errorf("paused: %+v", got)
	}
	e := decode[estimate](t, s.must(append(fetch, "--dry-run", "--json")...))
	if e.Deal != d.ID || e.Held == 0 {
		t.Errorf("estimate %+v", e)
	}
	control("set-budget", d.Paid+"atto")
	if r := s.run("deals", "resume", "--repo", "client", d.ID); r.code != exitPrice || !strings.Contains(r.err, "deals set-budget "+d.ID) {
		t.Errorf("resumed without money: exit code %d: %s", r.code, r.err)
	}
	control("add-funds", "0.1FIL")
	if got := control("resume"); got.Status != "Completed" || got.ID != d.ID || got.Bytes < 8<<20 {
		t.Errorf("resumed: %+v", got)
	}
	s.must(fetch...)
	s.same("tree", "out")
	if sold := s.only("provider"); sold.Paid == "0" || sold.Status != "Completed" {
		t.Errorf("sold %+v", sold)
	}
}

// TestCancelAlone: a deal that stands still is cancelled, what had arrived is paid
// for, and nothing goes on with it.
func TestCancelAlone(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	g := s.gate(p, 3<<20)
	stop := s.signalled("fetch", "--repo", "client", "--provider", g.addr, "--budget", "0.5FIL", "--max-at-risk", "0", "-o", "out", root)
	<-g.reached
	if r := stop(os.Kill); r.code != -1 {
		t.Errorf("killed: exit code %d: %s", r.code, r.err)
	}
	d := s.only("client")
	if got := decode[deal](t, s.must("deals", "cancel", "--json", "--repo", "client", d.ID)); got.Status != "Cancelled" || got.Paid != cost(t, receipt{Bytes: got.Bytes, Price: d.Price}) {
		t.Errorf("cancelled: %+v", got)
	}
	if r := s.run("deals", "resume", "--repo", "client", d.ID); r.code != exitNotFound || !strings.Contains(r.err, "ended") {
		t.Errorf("resumed: exit code %d: %s", r.code, r.err)
	}
}
