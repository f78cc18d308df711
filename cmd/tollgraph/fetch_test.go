package main

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tollgraph/tollgraph/voucher"
)

func bytesOf(n int) voucher.Bytes { return voucher.Bytes(n) }

// cost is bytes × price of a receipt, in attoFIL.
func cost(t *testing.T, r receipt) string {
	t.Helper()
	price, ok := new(big.Int).SetString(r.Price, 10)
	if !ok {
		t.Fatalf("price %q", r.Price)
	}
	return price.Mul(price, new(big.Int).SetUint64(r.Bytes)).String()
}

// TestRoundTrip sells a real directory tree and compares files and books.
func TestRoundTrip(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 5<<20)
	p, root := s.sell("tree")
	s.must("car", "verify", "goods.car")

	got := s.fetch("client", p, root, "-o", "out")
	s.same("tree", "out")
	if info, err := os.Stat(s.path("out/empty folder")); err != nil || !info.IsDir() {
		t.Errorf("the empty folder: %v", err)
	}
	if got.Paid != cost(t, got) || got.Price != "9313226" || !got.Verified || got.Bytes < 5<<20 || got.Output != "out" {
		t.Errorf("receipt %+v", got)
	}
	quoted := decode[answer](t, s.must("quote", "--json", "--provider", p.addr, root))
	if quoted.Bytes == nil || *quoted.Bytes != got.Bytes || *quoted.Blocks != got.Blocks || quoted.Cost != got.Paid {
		t.Errorf("quoted %d bytes for %s attoFIL, got %+v", quoted.Bytes, quoted.Cost, got)
	}
	s.sameBooks(got)

	again := s.fetch("client", p, root, "-o", "out again")
	s.same("tree", "out again")
	if again.Bytes != 0 || again.Paid != "0" || again.Payments != 0 || !again.Verified {
		t.Errorf("the second fetch cost something: %+v", again)
	}
}

// sameBooks checks that both sides have the deal of r with the same bytes and
// money, and that the wallets agree.
func (s *shell) sameBooks(r receipt) {
	s.t.Helper()
	bought := decode[deal](s.t, s.must("deals", "show", "--json", "--repo", "client", r.Deal))
	sold := decode[deal](s.t, s.must("deals", "show", "--json", "--repo", "provider", r.Deal))
	if bought.Bytes != r.Bytes || sold.Bytes != r.Bytes || bought.Paid != r.Paid || sold.Paid != r.Paid {
		s.t.Errorf("books differ: receipt %+v, client %+v, provider %+v", r, bought, sold)
	}
	if bought.Role != "client" || sold.Role != "provider" || bought.Status != "Completed" || sold.Status != "Completed" {
		s.t.Errorf("client %+v, provider %+v", bought, sold)
	}
	payer := decode[walletView](s.t, s.must("wallet", "show", "--json", "--repo", "client"))
	payee := decode[walletView](s.t, s.must("wallet", "show", "--json", "--repo", "provider"))
	if len(payer.Paid) != 1 || len(payee.Received) != 1 || payer.Paid[0].Total.String() != r.Paid || payee.Received[0].Total.String() != r.Paid ||
		payer.Paid[0].Peer != payee.Address || payee.Received[0].Peer != payer.Address {
		s.t.Errorf("wallets differ: %+v, %+v", payer, payee)
	}
}

// TestParts fetches parts of a DAG: what crosses the wire is what was quoted,
// also through a sharded directory.
func TestParts(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	const entries = 5000
	if err := os.MkdirAll(s.path("tree/many"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		name := fmt.Sprintf("tree/many/an entry with quite a long name %04d", i)
		if err := os.WriteFile(s.path(name), []byte(strconv.Itoa(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, root := s.sell("tree")
	whole := decode[answer](t, s.must("quote", "--json", "--provider", p.addr, root))
	for i, part := range []struct {
		name   string
		target string
		flags  []string
		out    string
		want   string // file of the tree that out is, if it is one
		most   uint64 // blocks
	}{
		{"file", root + "/notes/Größe und Preis", nil, "file", "notes/Größe und Preis", 4},
		{"file in a sharded directory", root + "/many/an entry with quite a long name 4321", nil, "entry", "many/an entry with quite a long name 4321", 8},
		{"folder", "/ipfs/" + root + "/notes", nil, "folder", "notes/deeper/still/file", 6},
		{"bytes", root + "/noise.bin", []string{"--entity-bytes=2097152:*"}, "bytes", "", 3},
		{"scope", root + "/notes", []string{"--dag-scope", "block"}, "scope.car", "", 2},
		{"selector", root, []string{"--selector", `{"R":{"l":{"depth":1},":>":{"a":{">":{"@":{}}}}}}`}, "selector.car", "", 1},
	} {
		t.Run(part.name, func(t *testing.T) {
			s := &shell{t, s.dir}
			quoted := decode[answer](t, s.must(append([]string{"quote", "--json", "--provider", p.addr, part.target}, part.flags...)...))
			got := s.fetch("part"+strconv.Itoa(i), p, append(part.flags, part.target, "-o", part.out)...)
			if got.Bytes != *quoted.Bytes || got.Blocks != *quoted.Blocks || got.Paid != quoted.Cost {
				t.Errorf("quoted %d bytes in %d blocks for %s attoFIL, got %+v", *quoted.Bytes, *quoted.Blocks, quoted.Cost, got)
			}
			if got.Blocks > part.most || got.Bytes >= *whole.Bytes {
				t.Errorf("%d blocks and %d bytes came, at most %d blocks were expected", got.Blocks, got.Bytes, part.most)
			}
			s.compare(part.out, part.want)
		})
	}
	all, err := os.ReadFile(s.path("tree/noise.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.path("bytes")); err != nil || string(got) != string(all[2<<20:]) {
		t.Errorf("the range has %d bytes: %v", len(got), err)
	}
}

// compare compares an output with a file of the tree: the output itself, or
// the file of that name in it.
func (s *shell) compare(out, want string) {
	s.t.Helper()
	if want == "" {
		return
	}
	if info, err := os.Stat(s.path(out)); err == nil && info.IsDir() {
		_, rest, _ := strings.Cut(want, "/")
		out = filepath.Join(out, rest)
	}
	a, err := os.ReadFile(s.path(out))
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(s.path("tree/" + want))
	if err != nil || string(a) != string(b) {
		s.t.Errorf("%s is %q, want %q (%v)", out, a, b, err)
	}
}

// TestStandardOutput: -o - writes the file and nothing else there.
func TestStandardOutput(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 1<<20)
	p, root := s.sell("tree")
	got := s.must("fetch", "--repo", "client", "--provider", p.addr, "--budget", "1FIL", "-o", "-", root+"/read me.txt")
	if want := "What is here was made to be sold.\n"; got.out != want {
		t.Errorf("got %q, want %q", got.out, want)
	}
	if !strings.Contains(got.err, "paid") {
		t.Errorf("no receipt in %q", got.err)
	}
	car := s.must("fetch", "--repo", "client", "--provider", p.addr, "--budget", "1FIL", "--car", "-o", "-", root)
	if err := os.WriteFile(s.path("all.car"), []byte(car.out), 0o644); err != nil {
		t.Fatal(err)
	}
	s.must("car", "verify", "all.car")
}

// TestKilled: a fetch that is killed midway goes on when it is run again, and
// pays for every byte once.
func TestKilled(t *testing.T) {
	const size = 24 << 20
	s := newShell(t)
	s.tree("tree", size)
	p, root := s.sell("tree")
	if r := s.stopMidway("client", "out", p, root, size, syscall.SIGKILL); r.code != -1 {
		t.Fatalf("exit code %d of a fetch that was killed: %s", r.code, r.err)
	}
	got := s.fetch("client", p, "--max-at-risk", "0", root, "-o", "out")
	s.same("tree", "out")
	s.paidOnce(got, p, root)
}

// TestInterrupted: Ctrl-C is a pause, and says how to go on.
func TestInterrupted(t *testing.T) {
	const size = 24 << 20
	s := newShell(t)
	s.tree("tree", size)
	p, root := s.sell("tree")
	r := s.stopMidway("client", "out", p, root, size, syscall.SIGINT)
	if r.code != exitInterrupted || !strings.Contains(r.err, "to go on:\n  ") || !strings.Contains(r.err, "fetch --repo client") {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	if _, err := os.Stat(s.path("out")); err == nil {
		t.Error("half an output was written")
	}
	got := s.fetch("client", p, "--max-at-risk", "0", root, "-o", "out")
	s.same("tree", "out")
	s.paidOnce(got, p, root)
}

// paidOnce checks that all deals together paid exactly for what there is, on
// both sides.
func (s *shell) paidOnce(got receipt, p *serving, root string) {
	s.t.Helper()
	whole := decode[answer](s.t, s.must("quote", "--json", "--provider", p.addr, root))
	for _, repo := range []string{"client", "provider"} {
		paid, moved := new(big.Int), uint64(0)
		for _, d := range decode[[]deal](s.t, s.must("deals", "list", "--json", "--repo", repo)) {
			one, ok := new(big.Int).SetString(d.Paid, 10)
			if !ok {
				s.t.Fatalf("paid %q", d.Paid)
			}
			paid.Add(paid, one)
			moved += d.Bytes
		}
		if paid.String() != whole.Cost || moved != *whole.Bytes {
			s.t.Errorf("%s: %d bytes for %s attoFIL, want %d for %s; receipt %+v", repo, moved, paid, *whole.Bytes, whole.Cost, got)
		}
	}
}

// TestSymlinkOut: a symlink that leads out of the output is not made unless the
// user allows it; what was bought is not bought again for that.
func TestSymlinkOut(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 1<<10)
	if err := os.Symlink("/elsewhere", s.path("tree/link")); err != nil {
		t.Skip(err)
	}
	p, root := s.sell("tree")
	fetch := []string{"fetch", "--repo", "client", "--provider", p.addr, "--budget", "1FIL", "-o", "out", root}
	r := s.run(fetch...)
	if r.code != exitFailed || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, "/link") || !strings.Contains(r.err, "--any-symlinks") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	got := s.fetch("client", p, root, "-o", "out", "--any-symlinks")
	if to, err := os.Readlink(s.path("out/link")); err != nil || to != "/elsewhere" || got.Paid != "0" {
		t.Errorf("%q, %v; receipt %+v", to, err, got)
	}
}

// TestProviderDies: a fetch whose provider dies for good ends when its patience
// does, says why, and goes on once the provider is back.
func TestProviderDies(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	args := []string{"fetch", "--repo", "client", "--budget", "1FIL", "--max-at-risk", "0", "--patience", "5s", "-o", "out", root}
	addr := s.relay(p, 4<<20, func() { p.stop(os.Kill) })
	r := s.run(append(args, "--provider", addr)...)
	if r.code != exitIncomplete || !strings.Contains(r.err, "no progress") || !strings.Contains(r.err, "not reachable") || !strings.Contains(r.err, "to go on:\n  ") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	again := s.serve("provider", "--price", "0.01FIL", "--credit", "1FIL", "goods.car")
	got := s.fetch("client", again, "--max-at-risk", "0", "-o", "out", root)
	s.same("tree", "out")
	s.paidOnce(got, again, root)
}

// TestTwoProviders: what one provider sold of a tree is not bought again from
// another.
func TestTwoProviders(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	one, root := s.sell("tree")
	two := s.serve("second", "--price", "0.01FIL", "--credit", "1FIL", "goods.car")
	first := s.fetch("client", one, root+"/notes", "-o", "notes")
	rest := s.fetch("client", two, root, "-o", "out")
	s.same("tree", "out")
	whole := decode[answer](t, s.must("quote", "--json", "--provider", two.addr, root))
	if first.Bytes == 0 || first.Bytes+rest.Bytes != *whole.Bytes || first.Provider == rest.Provider {
		t.Errorf("%d bytes and %d, of %d", first.Bytes, rest.Bytes, *whole.Bytes)
	}
}
