package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// daemon starts a daemon on repo.
func (s *shell) daemon(repo string, args ...string) *serving {
	s.t.Helper()
	return s.start("daemon", append([]string{"--repo", repo}, args...)...)
}

// gate passes connections to a provider on, and stops what comes back after so
// many bytes until it is opened.
type gate struct {
	addr    string
	reached chan struct{} // closed when it has stopped
	open    func()
}

func (s *shell) gate(p *serving, after int64) *gate {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	parts := strings.Split(p.addr, "/") // "", ip4, 127.0.0.1, tcp, port, p2p, id
	_, port, _ := net.SplitHostPort(l.Addr().String())
	g := &gate{addr: "/ip4/127.0.0.1/tcp/" + port + "/p2p/" + parts[6], reached: make(chan struct{})}
	opened := make(chan struct{})
	g.open = sync.OnceFunc(func() { close(opened) })
	reached := sync.OnceFunc(func() { close(g.reached) })
	var done sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	pass := func(in net.Conn) {
		out, err := net.Dial("tcp", net.JoinHostPort(parts[2], parts[4]))
		if err != nil {
			_ = in.Close() // the provider is gone: so is the connection
			return
		}
		mu.Lock()
		conns = append(conns, in, out)
		mu.Unlock()
		done.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() }) // ends with either connection
		defer in.Close()
		if n, _ := io.CopyN(in, out, after); n == after {
			reached()
			<-opened
		}
		_, _ = io.Copy(in, out)
	}
	done.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			done.Go(func() { pass(in) })
		}
	})
	s.t.Cleanup(func() {
		g.open()
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		done.Wait()
	})
	return g
}

// background runs the program aside.
func (s *shell) background(args ...string) (wait func() result) {
	s.t.Helper()
	stop := s.signalled(args...)
	return func() result { return stop(nil) }
}

// signalled runs the program aside, to be sent a signal, if it is one, and
// waited for.
func (s *shell) signalled(args ...string) (stop func(os.Signal) result) {
	s.t.Helper()
	cmd := s.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return func(sig os.Signal) result {
		if sig != nil {
			_ = cmd.Process.Signal(sig) // it may have ended; its code tells
		}
		code := s.exitCode(cmd.Wait())
		return result{code, out.String(), errs.String()}
	}
}

// only returns the one deal that the repo has.
func (s *shell) only(repo string) deal {
	s.t.Helper()
	deals := decode[[]deal](s.t, s.must("deals", "list", "--json", "--repo", repo))
	if len(deals) != 1 {
		s.t.Fatalf("%d deals: %+v", len(deals), deals)
	}
	return deals[0]
}

// TestDaemon: what a daemon runs for is done through it: fetching to files and
// to standard output, looking at deals, and the same again for nothing.
func TestDaemon(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 3<<20)
	p, root := s.sell("tree")
	d := s.daemon("client")
	if info, err := os.Stat(d.api); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(d.api)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder of the socket: %v, %v", info, err)
	}
	got := s.fetch("client", p, root, "-o", "out")
	s.same("tree", "out")
	if !got.Verified || got.Bytes < 3<<20 || got.Paid == "0" || got.Output != s.path("out") {
		t.Errorf("receipt %+v", got)
	}
	found := s.only("client")
	if found.ID != got.Deal || found.Status != "Completed" || found.Paid != got.Paid {
		t.Errorf("deal %+v, receipt %+v", found, got)
	}
	if one := decode[deal](t, s.must("deals", "show", "--json", "--repo", "client", got.Deal)); one.ID != got.Deal {
		t.Errorf("deal %+v", one)
	}
	again := s.fetch("client", p, root, "-o", "again")
	s.same("tree", "again")
	if again.Bytes != 0 || again.Paid != "0" {
		t.Errorf("paid again: %+v", again)
	}
	noise, err := os.ReadFile(s.path("tree/noise.bin"))
	if err != nil {
		t.Fatal(err)
	}
	piped := s.must("fetch", "--repo", "client", "--provider", p.addr, "-o", "-", root+"/noise.bin")
	if piped.out != string(noise) {
		t.Errorf("%d bytes on standard output, want %d", len(piped.out), len(noise))
	}
	left, err := filepath.Glob(s.path("client/api/out-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"fetch", "--provider", p.addr, "-o", "out", root}, exitFailed, "exists"},
		{[]string{"fetch", "--provider", p.addr, "-o", "other", nowhere}, exitNotFound, "not found"},
		{[]string{"fetch", "--provider", p.addr, "-o", "-", root}, exitFailed, "directory"},
		{[]string{"daemon"}, exitFailed, "in use"},
		{[]string{"ask", "get"}, exitFailed, "only buys"},
		{[]string{"deals", "show", "17"}, exitNotFound, "deals list"},
		{[]string{"deals", "resume", got.Deal}, exitNotFound, "ended"},
		{[]string{"deals", "pause", got.Deal}, exitNotFound, "ended"},
	} {
		r := s.run(append([]string{"--repo", "client"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.err, c.says) {
			t.Errorf("%q: exit code %d, %s", c.args, r.code, r.err)
		}
	}
}

// TestDaemonControl: a deal of a daemon is paused, funded and resumed, and the
// one who waits for it learns of that.
func TestDaemonControl(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	g := s.gate(p, 3<<20)
	s.daemon("client")
	args := []string{"fetch", "--json", "--repo", "client", "--provider", g.addr, "--budget", "0.5FIL", "--max-at-risk", "0", "-o", "out", root}
	waiting := s.background(args...)
	<-g.reached
	d := s.only("client")
	control := func(verb string, more ...string) deal {
		return decode[deal](t, s.must(append([]string{"deals", verb, "--json", "--repo", "client", d.ID}, more...)...))
	}
	if got := control("add-funds", "0.25FIL"); got.Budget != "750000000000000000" {
		t.Errorf("budget %s", got.Budget)
	}
	control("pause")
	if r := waiting(); r.code != exitIncomplete || !strings.Contains(r.err, "paused") {
		t.Errorf("the one who waited: exit code %d: %s", r.code, r.err)
	}
	if got := control("set-budget", "0.9FIL"); got.Budget != "900000000000000000" {
		t.Errorf("budget %s while it stands still", got.Budget)
	}
	if r := s.run("deals", "set-budget", "--repo", "client", d.ID, "1atto"); r.code != exitPrice || !strings.Contains(r.err, "paid already") {
		t.Errorf("a budget below what is paid: exit code %d: %s", r.code, r.err)
	}
	g.open()
	control("resume")
	s.finish("out", args...)
	s.same("tree", "out")
	last := s.only("client")
	if last.ID != d.ID || last.Status != "Completed" || last.Budget != "900000000000000000" {
		t.Errorf("deal %+v", last)
	}
}

// finish runs the fetch of args, which joins the one that runs, or finds that
// its output is there already.
func (s *shell) finish(output string, args ...string) {
	s.t.Helper()
	if r := s.run(args...); r.code != 0 && !strings.Contains(r.err, output+": output exists") && !strings.Contains(r.err, "exists") {
		s.t.Fatalf("%q: exit code %d: %s", args, r.code, r.err)
	}
}

// TestDaemonStops: a daemon that is stopped or killed goes on at its next start
// with what it was told, and writes it out.
func TestDaemonStops(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			s := newShell(t)
			s.tree("tree", 8<<20)
			p, root := s.sell("tree")
			g := s.gate(p, 3<<20)
			first := s.daemon("client")
			args := []string{"fetch", "--json", "--repo", "client", "--provider", g.addr, "--budget", "0.5FIL", "--max-at-risk", "0", "-o", "out", root}
			waiting := s.background(args...)
			<-g.reached
			if r := first.stop(sig); sig == os.Interrupt && r.code != 0 {
				t.Errorf("exit code %d: %s", r.code, r.err)
			}
			if r := waiting(); r.code != exitIncomplete || !strings.Contains(r.err, "next start") {
				t.Errorf("the one who waited: exit code %d: %s", r.code, r.err)
			}
			g.open()
			s.daemon("client")
			s.finish("out", args...)
			s.same("tree", "out")
			d := s.only("client")
			sold := s.only("provider")
			if d.Paid != sold.Paid || d.Status != "Completed" || sold.Status != "Completed" || d.Paid == "0" {
				t.Errorf("books differ: client %+v, provider %+v", d, sold)
			}
		})
	}
}

// TestDaemonsTrade: two daemons buy from each other at once.
func TestDaemonsTrade(t *testing.T) {
	s := newShell(t)
	var sides [2]*serving
	var roots [2]string
	names := [2]string{"anna", "bert"}
	for i, name := range names {
		s.tree(name+"-tree", 4<<20)
		if err := os.WriteFile(s.path(name+"-tree/name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		roots[i] = strings.TrimSpace(s.must("car", "create", "-o", name+".car", name+"-tree").out)
		sides[i] = s.daemon(name, "--listen", "/ip4/127.0.0.1/tcp/0", "--price", "0.01FIL", "--credit", "1FIL", name+".car")
	}
	var waits [2]func() result
	for i, name := range names {
		other := 1 - i
		waits[i] = s.background("fetch", "--json", "--repo", name, "--provider", sides[other].addr, "--budget", "1FIL", "-o", name+"-bought", roots[other])
	}
	for i, wait := range waits {
		r := wait()
		if r.code != 0 {
			t.Fatalf("%s: exit code %d: %s", names[i], r.code, r.err)
		}
		if got := decode[receipt](t, r); got.Bytes < 4<<20 || got.Paid == "0" {
			t.Errorf("%s: %+v", names[i], got)
		}
		s.same(names[1-i]+"-tree", names[i]+"-bought")
	}
	for i, name := range names {
		deals := decode[[]deal](t, s.must("deals", "list", "--json", "--repo", name))
		roles := map[string]deal{}
		for _, d := range deals {
			roles[d.Role] = d
		}
		if len(deals) != 2 || roles["client"].Root != roots[1-i] || roles["provider"].Root != roots[i] {
			t.Errorf("%s: %+v", name, deals)
		}
	}
}

// TestServeAnswers: a node that only sells takes a new ask, and cancels a sale.
func TestServeAnswers(t *testing.T) {
	s := newShell(t)
	s.tree("tree", 8<<20)
	p, root := s.sell("tree")
	s.must("ask", "set", "--repo", "provider", "--price", "0.02FIL")
	price := func() string {
		return decode[answer](t, s.must("query", "--json", "--repo", "asker", "--provider", p.addr, root)).Price
	}
	if got := price(); got != "18626452" {
		t.Errorf("price %s", got)
	}
	g := s.gate(p, 3<<20)
	waiting := s.background("fetch", "--repo", "client", "--provider", g.addr, "--budget", "1FIL", "--max-at-risk", "0", "-o", "out", root)
	<-g.reached
	sold := s.only("provider")
	if r := s.run("deals", "pause", "--repo", "provider", sold.ID); r.code != exitUsage || !strings.Contains(r.err, "sale") {
		t.Errorf("pausing a sale: exit code %d: %s", r.code, r.err)
	}
	s.must("deals", "cancel", "--repo", "provider", sold.Peer+"/"+sold.ID)
	g.open()
	if r := waiting(); r.code != 0 && !strings.Contains(r.err, "cancel") { // it may have made another deal
		t.Errorf("the client of a cancelled sale: exit code %d: %s", r.code, r.err)
	}
	if d := decode[deal](t, s.must("deals", "show", "--json", "--repo", "provider", sold.Peer+"/"+sold.ID)); !strings.Contains(d.Message, "cancel") || d.Bytes >= 8<<20 {
		t.Errorf("the cancelled sale: %+v", d)
	}
	if err := p.stop(os.Interrupt); err.code != 0 {
		t.Error(errors.New(err.err))
	}
	p = s.serve("provider", "--credit", "1FIL", "goods.car") // no price is named: the one that was set holds
	if got := price(); got != "18626452" {
		t.Errorf("price %s after a restart", got)
	}
}
