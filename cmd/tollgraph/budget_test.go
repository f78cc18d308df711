package main

import (
	"os"
	"strings"
	"testing"
)

// TestBudgets: what the repo may spend is shown as it was set, a dry run says
// what it forbids, and a fetch is refused by the same rule before anything is
// bought. 3 MiB cost 0.00003 FIL.
func TestBudgets(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	p, root := s.sell("tree")
	want := budget{}
	if got := decode[budget](t, s.must("budget", "show", "--json", "--repo", "client")); got != want {
		t.Errorf("limits of a fresh repo %+v", got)
	}
	for _, c := range []struct {
		set  []string
		says string // why it is refused; "" if it is not
	}{
		{[]string{"--per-deal", "0.00001FIL"}, "policy per deal"},
		{[]string{"--per-deal", "0", "--per-day", "0.00001FIL"}, "policy per day"},
		{[]string{"--per-day", "0", "--per-provider-day", "0.00001FIL"}, "policy per provider and day"},
		{[]string{"--per-provider-day", "0", "--total", "0.00001FIL"}, "policy in total"},
		{[]string{"--total", "0", "--max-price", "0.001FIL"}, "price above the maximum"},
		{[]string{"--max-price", "0.02FIL", "--total", "1FIL"}, ""},
	} {
		s.must(append([]string{"budget", "set", "--repo", "client"}, c.set...)...)
		fetch := []string{"fetch", "--json", "--repo", "client", "--provider", p.addr, "--budget", "1FIL", "--max-price", "1FIL", "-o", "out", root}
		dry := s.run(append(fetch, "--dry-run")...)
		e := decode[estimate](t, dry)
		if c.says == "" {
			if dry.code != 0 || e.Refused != "" || e.Bytes < 3<<20 || e.Cost.IsZero() || e.Held != 0 {
				t.Errorf("%q: exit code %d: %+v; %s", c.set, dry.code, e, dry.err)
			}
			continue
		}
		real := s.run(fetch...)
		if dry.code != exitPrice || real.code != exitPrice || e.Code != exitPrice {
			t.Errorf("%q: exit codes %d, %d, %d", c.set, dry.code, real.code, e.Code)
		}
		for _, text := range []string{dry.err, e.Refused, real.err} {
			if !strings.Contains(text, c.says) || !strings.Contains(text, "budget set") {
				t.Errorf("%q: %q is not in %q", c.set, c.says, text)
			}
		}
	}
	if _, err := os.Stat(s.path("out")); err == nil {
		t.Error("something was bought")
	}
	s.fetch("client", p, root, "-o", "out")
	e := decode[estimate](t, s.must("fetch", "--json", "--dry-run", "--repo", "client", "--provider", p.addr, root))
	if e.Bytes != 0 || !e.Cost.IsZero() || e.Held < 3<<20 {
		t.Errorf("what is here would cost %+v", e)
	}
	lines := s.must("budget", "show", "--repo", "client").out
	if !strings.Contains(lines, "per day               no limit") || !strings.Contains(lines, "total                 1 FIL") {
		t.Errorf("limits for people:\n%s", lines)
	}
}

// TestBudgetOfDaemon: a deal that a limit stops goes on when it is lifted.
func TestBudgetOfDaemon(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	g := s.gate(p, 3<<20)
	s.daemon("client")
	args := []string{"fetch", "--repo", "client", "--provider", g.addr, "--budget", "1FIL", "--max-at-risk", "0", "-o", "out", root}
	waiting := s.background(args...)
	<-g.reached
	s.must("budget", "set", "--repo", "client", "--per-deal", "0.00004FIL") // some 4 of 8 MiB
	g.open()
	if r := waiting(); r.code != exitPrice || !strings.Contains(r.err, "policy per deal") || !strings.Contains(r.err, "add-funds") {
		t.Errorf("the one who waited: exit code %d: %s", r.code, r.err)
	}
	if d := s.only("client"); !strings.Contains(d.Message, "policy per deal") {
		t.Errorf("deal %+v", d)
	}
	s.must("budget", "set", "--repo", "client", "--per-deal", "0")
	s.finish("out", args...)
	s.same("tree", "out")
}

// TestCredit: the operator looks at what payers owe, notes what they paid, and
// both sides prove the account to anyone.
func TestCredit(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	p, root := s.sell("tree")
	got := s.fetch("client", p, root, "-o", "out")
	list := decode[[]creditView](t, s.must("credit", "list", "--json", "--repo", "provider"))
	if len(list) != 1 || list[0].Owed.String() != got.Paid {
		t.Fatalf("credit %+v, paid %s", list, got.Paid)
	}
	payer := list[0].Payer
	hint := func() string {
		q := decode[answer](t, s.must("query", "--json", "--repo", "client", "--provider", p.addr, root))
		if q.Credit == nil {
			return "none"
		}
		return *q.Credit
	}
	if said := hint(); said != "1000000000000000000" { // also after an account was opened
		t.Errorf("what any payer is lent: %s", said)
	}
	s.must("credit", "set", "--repo", "provider", payer, "2FIL")
	if said := hint(); said != "none" { // the node that runs finds out that one has a line of its own
		t.Errorf("what any payer is lent: %s", said)
	}
	s.must("credit", "settle", "--repo", "provider", "--note", "by hand", payer, got.Paid+"atto")
	list = decode[[]creditView](t, s.must("credit", "list", "--json", "--repo", "provider"))
	if list[0].Line.String() != "2000000000000000000" || !list[0].Owed.IsZero() || list[0].Settled.String() != got.Paid {
		t.Errorf("credit %+v", list)
	}
	payee := decode[walletView](t, s.must("wallet", "show", "--json", "--repo", "provider")).Address
	for _, side := range []struct{ repo, other string }{{"client", payee}, {"provider", payer}} {
		statement := s.must("channel", "statement", "--repo", side.repo, side.other).out
		if err := os.WriteFile(s.path("statement"), []byte(statement), 0o600); err != nil {
			t.Fatal(err)
		}
		proof := decode[map[string]any](t, s.must("channel", "verify", "--json", "statement"))
		if proof["verified"] != true || proof["total_atto"] != got.Paid || proof["payer"] != payer || proof["payee"] != payee {
			t.Errorf("%s proves %v", side.repo, proof)
		}
		forged := strings.ReplaceAll(statement, `"`+got.Paid+`"`, `"1`+got.Paid+`"`)
		if err := os.WriteFile(s.path("forged"), []byte(forged), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := s.run("channel", "verify", "forged"); r.code != exitUnverified {
			t.Errorf("a forged statement: exit code %d: %s", r.code, r.err)
		}
	}
	if out := s.must("channel", "list", "--repo", "client").out; !strings.Contains(out, payee) {
		t.Errorf("channels %q", out)
	}
}

// TestControlUsage: what is wrong in the use of these commands.
func TestControlUsage(t *testing.T) {
	s := newShell(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"deals", "cancel"}, exitUsage, "takes ID"},
		{[]string{"deals", "cancel", "x"}, exitUsage, "not the id"},
		{[]string{"deals", "cancel", "nobody/1"}, exitUsage, "nobody"},
		{[]string{"deals", "add-funds", "1"}, exitUsage, "ID AMOUNT"},
		{[]string{"deals", "add-funds", "1", "5"}, exitUsage, "unit"},
		{[]string{"deals", "add-funds", "1", "5FIL"}, exitNotFound, "deals list"},
		{[]string{"deals", "resume", "1"}, exitNotFound, "deals list"},
		{[]string{"deals", "pause", "1"}, exitNotFound, "deals list"},
		{[]string{"budget", "set"}, exitUsage, "--per-day"},
		{[]string{"budget", "set", "--per-day", "1"}, exitUsage, "--per-day"},
		{[]string{"budget", "show", "x"}, exitUsage, "no arguments"},
		{[]string{"budget", "nonsense"}, exitUsage, "nonsense"},
		{[]string{"ask", "set"}, exitUsage, "--price"},
		{[]string{"ask", "set", "--price", "1FIL", "--payment-interval", "0"}, exitUsage, "interval"},
		{[]string{"ask", "set", "--price", "1"}, exitUsage, "--price"},
		{[]string{"credit", "set", "f1"}, exitUsage, "PAYER AMOUNT"},
		{[]string{"credit", "set", "nobody", "1FIL"}, exitUsage, "nobody"},
		{[]string{"credit", "settle", "f1wnhjmfj2qubzfgt3isx4vsofhfejdwkeqgqzr4y", "0"}, exitUsage, "above 0"},
		{[]string{"channel", "statement", "f1wnhjmfj2qubzfgt3isx4vsofhfejdwkeqgqzr4y"}, exitNotFound, "channel list"},
		{[]string{"channel", "statement", "--as", "friend", "f1wnhjmfj2qubzfgt3isx4vsofhfejdwkeqgqzr4y"}, exitUsage, "payer or payee"},
		{[]string{"channel", "verify", "nowhere"}, exitFailed, "nowhere"},
		{[]string{"daemon", "--api", "0.0.0.0:1"}, exitUsage, "loopback"},
		{[]string{"daemon", "--api", "nowhere"}, exitUsage, "--api"},
		{[]string{"daemon", "nowhere.car"}, exitFailed, "nowhere.car"},
	} {
		if r := s.run(c.args...); r.code != c.code || !strings.Contains(r.err, c.says) || r.out != "" {
			t.Errorf("%q: exit code %d, want %d; %q is not in %q; %s", c.args, r.code, c.code, c.says, r.err, r.out)
		}
	}
}

// TestStoredAsk: terms that were set hold where no flag says otherwise.
func TestStoredAsk(t *testing.T) {
	s := newShell(t)
	s.must("ask", "set", "--price", "0.01FIL", "--payment-interval", "2MiB")
	got := decode[askView](t, s.must("ask", "set", "--json", "--unseal-price", "5atto"))
	if *got.Price != 9_313_226 || *got.Interval != 2<<20 || *got.IntervalIncrease != 0 || got.UnsealPrice.String() != "5" {
		t.Errorf("ask %+v", got)
	}
	s.tree("tree", 1<<10)
	s.must("car", "create", "-o", "goods.car", "tree")
	p := s.start("serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--price", "0.02FIL", "--credit", "1FIL", "goods.car")
	for _, e := range p.events {
		if e.Event == "ready" && (e.Price != "18626452" || e.Interval != 2<<20 || e.UnsealPrice != "5") {
			t.Errorf("serves at %+v", e)
		}
	}
}
