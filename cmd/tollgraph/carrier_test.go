package main

import (
	"syscall"
	"testing"
)

// TestCarriers: a deal between two processes is the same on every carrier. A
// provider that speaks the first protocol only is found out to be one, and one that
// speaks both sells by the first to a client that speaks nothing else.
func TestCarriers(t *testing.T) {
	for name, c := range map[string]struct{ serve, fetch string }{
		"the provider is old": {carrierV0, carrierAuto},
		"the client is old":   {carrierAuto, carrierV0},
		"both are":            {carrierV0, carrierV0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			s.tree("tree", 5<<20)
			p, root := s.sell("tree", "--carrier", c.serve)
			got := s.fetch("client", p, root, "--carrier", c.fetch, "--max-at-risk", "1MiB", "-o", "out")
			s.same("tree", "out")
			if got.Paid != cost(t, got) || got.Bytes < 5<<20 || !got.Verified || got.Payments < 2 {
				t.Errorf("receipt %+v", got)
			}
			s.sameBooks(got)
			again := s.fetch("client", p, root, "--carrier", c.fetch, "-o", "out again")
			if again.Bytes != 0 || again.Paid != "0" || !again.Verified {
				t.Errorf("the second fetch cost something: %+v", again)
			}
		})
	}
	s := newShell(t)
	if r := s.run("fetch", "--carrier", "pigeon", "--provider", "/ip4/127.0.0.1/tcp/1", "bafkqaaa"); r.code != exitUsage {
		t.Errorf("an unknown carrier: exit code %d\n%s", r.code, r.err)
	}
}

// TestCarrierCut: a client on streams that is stopped, or killed, in the middle
// goes on where it was, and no byte is paid twice.
func TestCarrierCut(t *testing.T) {
	const size = 24 << 20
	for name, sig := range map[string]syscall.Signal{"stopped": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			s.tree("tree", size)
			p, root := s.sell("tree", "--carrier", carrierV0)
			if r := s.stopMidway("client", "out", p, root, size, sig); r.code == exitOK {
				t.Fatalf("it was not stopped: %s", r.err)
			}
			got := s.fetch("client", p, "--max-at-risk", "0", root, "-o", "out")
			s.same("tree", "out")
			s.paidOnce(got, p, root)
		})
	}
}
