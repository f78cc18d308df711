package main

import (
	"os"
	"testing"
)

// TestFree: one node sells one CAR and gives another away, and a client without
// any money is served the one and refused the other.
func TestFree(t *testing.T) {
	s := newShell(t)
	s.tree("sold", 1<<20)
	s.tree("given", 2<<20)
	s.must("car", "create", "-o", "sold.car", "sold")
	s.must("car", "create", "-o", "given.car", "given")
	p := s.serve("provider", "--price", "0.01FIL", "--credit", "1FIL", "--free", "given.car", "sold.car")
	given, sold := "", ""
	for _, root := range p.roots {
		if a := decode[answer](t, s.must("query", "--json", "--repo", "asker", "--provider", p.addr, root)); a.Price == "0" {
			given = root
		} else {
			sold = root
		}
	}
	if len(p.roots) != 2 || given == "" || sold == "" {
		t.Fatalf("of %v %q is free and %q is sold", p.roots, given, sold)
	}
	if r := s.fetch("client", p, "-o", "got", given); r.Paid != "0" || r.Bytes < 2<<20 {
		t.Errorf("what is given away: %+v", r)
	}
	s.same("given", "got")
	if r := s.run("fetch", "--repo", "client", "--provider", p.addr, "-o", "got2", sold); r.code != exitPrice {
		t.Errorf("what is sold: exit code %d: %s", r.code, r.err)
	}
	if err := p.stop(os.Interrupt); err.code != 0 {
		t.Error(err.err)
	}
}
