package main

import (
	"os"
	"strings"
	"testing"
)

// TestEgress: a provider sends no faster than it is told to, on the command line
// for one peer, in config.toml for all together, and takes no limit that nobody
// could be served at.
func TestEgress(t *testing.T) {
	const size, limit = 3 << 20, 1 << 20
	for name, args := range map[string][]string{
		"one peer": {"--egress-per-peer", "1MiB"}, "on a stream": {"--egress", "1MiB", "--carrier", "v0"}, "all, configured": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			s.tree("tree", size)
			root := strings.TrimSpace(s.must("car", "create", "-o", "goods.car", "tree").out)
			if args == nil {
				if err := os.Mkdir(s.path("provider"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(s.path("provider/config.toml"), []byte("[serve]\negress = \"1MiB\"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := s.serve("provider", append(args, "goods.car")...)
			got := s.fetch("client", p, root, "-o", "out")
			s.same("tree", "out")
			// A burst of 256 KiB may go at once.
			if least := float64(got.Bytes-256<<10) / limit; got.Seconds < least {
				t.Errorf("%d bytes in %.2f s, at least %.2f are due", got.Bytes, got.Seconds, least)
			}
		})
	}
	t.Run("too little", func(t *testing.T) {
		s := newShell(t)
		for _, flag := range []string{"--egress", "--egress-per-peer"} {
			if r := s.run("serve", flag, "1KiB", "goods.car"); r.code != exitUsage || !strings.Contains(r.err, flag) {
				t.Errorf("%s 1KiB: exit code %d: %s", flag, r.code, r.err)
			}
		}
	})
}
