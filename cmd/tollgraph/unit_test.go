package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		text     string
		size     int64
		from, to int64
	}{
		{"0:*", 10, 0, 10}, {"0:-1", 10, 0, 10}, {"2:4", 10, 2, 5}, {"2:99", 10, 2, 10}, {"99:*", 10, 10, 10},
		{"-3:*", 10, 7, 10}, {"-3:-2", 10, 7, 9}, {"-99:1", 10, 0, 2}, {"0:-99", 10, 0, 0}, {"5:4", 10, 5, 5},
		{"0:0", 10, 0, 1}, {"0:*", 0, 0, 0}, {"0:9223372036854775807", 10, 0, 10}, {"-9223372036854775808:-9223372036854775808", 10, 0, 0},
	} {
		s, err := parseSpan(c.text)
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if from, to := s.in(c.size); from != c.from || to != c.to {
			t.Errorf("%s of %d bytes is [%d, %d), want [%d, %d)", c.text, c.size, from, to, c.from, c.to)
		}
	}
	for _, bad := range []string{"", "1", ":", "1:", ":1", "a:b", "*:1", "1:2:3", "9223372036854775808:*"} {
		if _, err := parseSpan(bad); !errors.Is(err, errSpan) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzSpan(f *testing.F) {
	f.Add("0:*", int64(5))
	f.Add("-3:-1", int64(0))
	f.Fuzz(func(t *testing.T, text string, size int64) {
		s, err := parseSpan(text)
		if err != nil || size < 0 {
			return
		}
		if from, to := s.in(size); from < 0 || from > to || to > size {
			t.Errorf("%q of %d bytes is [%d, %d)", text, size, from, to)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		nowhere: nowhere, "/ipfs/" + nowhere: nowhere, "ipfs://" + nowhere + "/a b/ü/": nowhere + "/a b/ü", nowhere + "//a": nowhere + "/a",
	} {
		if got, err := parseTarget(in); err != nil || got.String() != want {
			t.Errorf("%q: %v %v, want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "/", "x", "/ipfs/", "a/" + nowhere} {
		if _, err := parseTarget(bad); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestExitCode(t *testing.T) {
	refused := &market.ProviderError{Refusal: voucher.RefusedCredit}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK}, {errors.New("x"), exitFailed}, {usagef("x"), exitUsage},
		{fmt.Errorf("x: %w", market.ErrNotFound), exitNotFound}, {piece.ErrNoEntry, exitNotFound}, {market.ErrNoDeal, exitNotFound},
		{market.ErrPrice, exitPrice}, {market.ErrBudget, exitPrice}, {market.ErrNoCredit, exitPrice},
		{fmt.Errorf("%w: %w", market.ErrSuspended, refused), exitPrice},
		{piece.ErrBadBlock, exitUnverified}, {market.ErrSuspended, exitIncomplete}, {context.DeadlineExceeded, exitIncomplete},
		{context.Canceled, exitInterrupted}, {errors.Join(errors.New("x"), market.ErrPrice), exitPrice},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// TestAgain: the command that goes on is the one that was run, ready for a
// shell.
func TestAgain(t *testing.T) {
	a := &app{args: []string{"tollgraph", "fetch", "--budget", "1FIL", "--budget=2FIL", nowhere + "/it's ü", "-o", "a b"}}
	want := "tollgraph fetch --budget 1FIL --budget=2FIL '" + nowhere + `/it'\''s ü' -o 'a b'`
	if got := a.again(nil); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	more := voucher.OneFIL.Add(voucher.OneFIL).Add(voucher.OneFIL)
	want = "tollgraph fetch '" + nowhere + `/it'\''s ü' -o 'a b' --budget 3FIL`
	if got := a.again(&more); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestParked: a deal that waits for money says how much it needs.
func TestParked(t *testing.T) {
	a := &app{args: []string{"tollgraph", "fetch", nowhere}}
	state := market.ClientDealState{Message: "budget too small", TotalReceived: 10, TotalFunds: voucher.Atto(30)}
	state.Params = market.Params{PricePerByte: 3, PaymentInterval: 5}
	err := a.advise(t.Context(), &parkedError{state})
	if exitCode(err) != exitPrice || !strings.Contains(err.Error(), "--budget 0.000000000000000045FIL") {
		t.Errorf("%d: %v", exitCode(err), err)
	}
	state.Expected = 100
	if err := a.advise(t.Context(), &parkedError{state}); !strings.Contains(err.Error(), "--budget 0.0000000000000003FIL") {
		t.Error(err)
	}
	state.TotalFunds = voucher.OneFIL // another limit of the wallet's is short
	if err := a.advise(t.Context(), &parkedError{state}); exitCode(err) != exitPrice || strings.Contains(err.Error(), "--budget") {
		t.Error(err)
	}
}

func TestOutputFor(t *testing.T) {
	root := cid.MustParse(nowhere)
	for _, c := range []struct {
		s    selection
		to   string
		car  bool
		want output
	}{
		{selection{target: target{root, ""}, whole: true}, "", false, output{path: nowhere}},
		{selection{target: target{root, "a/b"}, whole: true}, "", false, output{path: "b"}},
		{selection{target: target{root, "a/b"}, whole: true}, "", true, output{path: "b.car", car: true}},
		{selection{target: target{root, "a/.."}, whole: true}, "", false, output{path: nowhere}},
		{selection{target: target{root, "a"}}, "", false, output{path: "a.car", car: true}},
		{selection{target: target{root, ""}, raw: true, whole: true}, "x", false, output{path: "x", car: true}},
	} {
		if got := outputFor(c.s, c.to, c.car, false); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.s, got, c.want)
		}
	}
}

// TestConfig: config.toml sets what command line and environment do not.
func TestConfig(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 1<<20)
	root := strings.TrimSpace(s.must("car", "create", "-o", "goods.car", "tree").out)
	write := func(repo, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(s.path(repo), 0o700), os.WriteFile(s.path(filepath.Join(repo, "config.toml")), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("provider", "[serve]\nprice = \"0.02FIL\"\ncredit = \"1FIL\"\npayment-interval = \"2MiB\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n")
	p := s.serve("provider", "--payment-interval", "3MiB", "goods.car")
	got := decode[answer](t, s.must("query", "--json", "--provider", p.addr, root))
	if got.Price != "18626452" || got.Interval != 3<<20 || got.Credit == nil || *got.Credit != voucher.OneFIL.String() {
		t.Errorf("the ask is %+v", got)
	}
	write("client", "[fetch]\nprovider = \""+p.addr+"\"\nbudget = \"1FIL\"\n")
	s.must("fetch", "--repo", "client", root, "-o", "out")
	s.same("tree", "out")
	for name, text := range map[string]string{"no TOML": "[", "table": "[nonsense]\n", "key": "[fetch]\nnonsense = 1\n", "value": "[fetch]\ntimeout = \"x\"\n"} {
		write("broken", text)
		if r := s.run("fetch", "--repo", "broken", root); r.code != exitUsage || !strings.Contains(r.err, "config.toml") {
			t.Errorf("%s: exit code %d: %s", name, r.code, r.err)
		}
	}
}

// TestDemo runs the demo as make demo does, with less to sell.
func TestDemo(t *testing.T) {
	got := decode[[]receipt](t, newShell(t).must("demo", "--json", "--size", "8MiB"))
	if len(got) != 2 || got[0].Payments < 7 || got[1].Stalls > maxStalls {
		t.Fatalf("%+v", got)
	}
	for _, r := range got {
		if r.Paid != cost(t, r) || !r.Verified || r.Bytes < 8<<20 {
			t.Errorf("%+v", r)
		}
	}
}

func TestVersion(t *testing.T) {
	s := newShell(t)
	if got := s.must("--version"); !strings.HasPrefix(got.out, "tollgraph ") {
		t.Errorf("%q", got.out)
	}
	if got := decode[map[string]string](t, s.must("--version", "--json")); got["version"] == "" {
		t.Errorf("%v", got)
	}
}

// TestTold: an error is a line, what is said twice is said once.
func TestTold(t *testing.T) {
	a, b := errors.New("write x: no space"), errors.New("pack y: write x: no space")
	for _, c := range []struct {
		err  error
		want string
	}{
		{a, "tollgraph: write x: no space"},
		{errors.Join(b, a, a), "tollgraph: pack y: write x: no space"},
		{errors.Join(a, b), "tollgraph: write x: no space\ntollgraph: pack y: write x: no space"},
		{fmt.Errorf("incomplete; to go on:\n  %s", "write x"), "tollgraph: incomplete; to go on:\n  write x"},
	} {
		if got := told(c.err); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestFailedRepoClosesOnce: a repo that cannot be opened says why, and no more.
func TestFailedRepoClosesOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tollgraph.db"), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := startNode(t.Context(), dir, nil)
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

// TestInterruptedEarly: Ctrl-C before anything runs is said in words.
func TestInterruptedEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"tollgraph", "serve", "--repo", t.TempDir(), "x.car"}, &out, &errs)
	if code != exitInterrupted || errs.String() != "tollgraph: interrupted\n" {
		t.Errorf("exit code %d: %q", code, errs.String())
	}
}
