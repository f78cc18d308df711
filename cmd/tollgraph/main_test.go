package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary be the program.
const asProgram = "TOLLGRAPH_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	endAtOnce()
	os.Exit(m.Run())
}

// endAtOnce lets the processes that the tests run end without the second that the
// race detector lets pass before each exit, for what still runs then. What GORACE
// says already comes last, and holds.
func endAtOnce() {
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // never fails: there is no NUL in it
}

// patience bounds every run of the program in these tests.
const patience = 2 * time.Minute

// shell runs the program in a folder of its own.
type shell struct {
	t   *testing.T
	dir string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	return &shell{t, t.TempDir()}
}

func (s *shell) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// command prepares a run of the program that is killed when the test ends.
func (s *shell) command(args ...string) *exec.Cmd {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), asProgram+"=1", "TOLLGRAPH_PATH="+s.path("default-repo"))
	return cmd
}

// result is how a run ended.
type result struct {
	code     int
	out, err string
}

// run runs the program to its end.
func (s *shell) run(args ...string) result {
	s.t.Helper()
	cmd := s.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	code := s.exitCode(cmd.Run())
	return result{code, out.String(), errs.String()}
}

// exitCode is the code that err, of Wait, says; -1 after a signal.
func (s *shell) exitCode(err error) int {
	s.t.Helper()
	ended := (*exec.ExitError)(nil)
	if errors.As(err, &ended) {
		return ended.ExitCode()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return 0
}

// must runs the program and fails the test if it does.
func (s *shell) must(args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("%q: exit code %d\n%s", args, r.code, r.err)
	}
	return r
}

// decode reads the JSON of r.
func decode[T any](t *testing.T, r result) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("%v in %q; %s", err, r.out, r.err)
	}
	return v
}

// fetch fetches into repo and returns the receipt.
func (s *shell) fetch(repo string, p *serving, args ...string) receipt {
	s.t.Helper()
	return decode[receipt](s.t, s.must(append([]string{"fetch", "--json", "--repo", repo, "--provider", p.addr, "--budget", "1FIL"}, args...)...))
}

// serving is a running provider.
type serving struct {
	addr   string
	api    string // a daemon's
	roots  []string
	events []event // until it was ready
	stop   func(os.Signal) result
}

// serve starts a provider on repo.
func (s *shell) serve(repo string, args ...string) *serving {
	s.t.Helper()
	return s.start("serve", append([]string{"--repo", repo, "--listen", "/ip4/127.0.0.1/tcp/0"}, args...)...)
}

// start starts serve or daemon, waits until it is ready, and ends it in order
// with the test.
func (s *shell) start(command string, args ...string) *serving {
	s.t.Helper()
	cmd := s.command(append([]string{command, "--json"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := json.NewDecoder(bufio.NewReader(out))
	p := new(serving)
	for ready := false; !ready; {
		var e event
		if err := lines.Decode(&e); err != nil {
			s.t.Fatalf("%s ended before it was ready: %v: %s", command, errors.Join(err, cmd.Wait()), errs.String())
		}
		p.events = append(p.events, e)
		switch e.Event {
		case "listening":
			p.addr = e.Addr
		case "api":
			p.api = e.Addr
		case "root":
			p.roots = append(p.roots, e.CID)
		}
		ready = e.Event == "ready"
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, io.MultiReader(lines.Buffered(), out)) // nobody looks at later events
	}()
	var once sync.Once
	var ended result
	killed := false
	p.stop = func(sig os.Signal) result {
		once.Do(func() {
			killed = sig == os.Kill
			_ = cmd.Process.Signal(sig) // it may have been killed by its deadline
			<-drained
			ended = result{code: s.exitCode(cmd.Wait()), err: errs.String()}
		})
		return ended
	}
	s.t.Cleanup(func() {
		if r := p.stop(os.Interrupt); r.code != 0 && !killed {
			s.t.Errorf("%s ended with exit code %d: %s", command, r.code, r.err)
		}
	})
	return p
}

// sell makes a CAR of tree and serves it for money.
func (s *shell) sell(tree string, args ...string) (p *serving, root string) {
	s.t.Helper()
	root = strings.TrimSpace(s.must("car", "create", "-o", "goods.car", tree).out)
	return s.serve("provider", append(args, "--price", "0.01FIL", "--credit", "1FIL", "goods.car")...), root
}

// tree makes a directory tree with a file of size bytes.
func (s *shell) tree(name string, size int) {
	s.t.Helper()
	if err := makeTree(s.path(name), 0); err != nil {
		s.t.Fatal(err)
	}
	if err := makeNoise(s.path(name+"/noise.bin"), bytesOf(size)); err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(s.path(name+"/empty folder"), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// same fails the test if two trees differ.
func (s *shell) same(a, b string) {
	s.t.Helper()
	sums := [2]treeSum{}
	for i, name := range []string{a, b} {
		var err error
		if sums[i], err = sumTree(s.path(name)); err != nil {
			s.t.Fatal(err)
		}
	}
	if sums[0] != sums[1] {
		s.t.Errorf("%s and %s differ", a, b)
	}
}

// relay passes one connection to a provider on and tells when enough has come
// back.
func (s *shell) relay(p *serving, after int64, reached func()) (addr string) {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	parts := strings.Split(p.addr, "/") // "", ip4, 127.0.0.1, tcp, port, p2p, id
	target := net.JoinHostPort(parts[2], parts[4])
	var done sync.WaitGroup
	done.Go(func() {
		in, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer in.Close()
		out, err := net.Dial("tcp", target)
		if err != nil {
			return // the fetch fails, and with it the test
		}
		defer out.Close()
		done.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() }) // ends with either connection
		_, _ = io.CopyN(in, out, after)
		reached()
		_, _ = io.Copy(in, out)
	})
	s.t.Cleanup(func() { _ = l.Close(); done.Wait() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "/ip4/127.0.0.1/tcp/" + port + "/p2p/" + parts[6]
}

// stopMidway starts a fetch and sends it a signal when half of size has
// crossed the wire.
func (s *shell) stopMidway(repo, out string, p *serving, root string, size int64, sig syscall.Signal) result {
	s.t.Helper()
	started := make(chan *os.Process, 1)
	addr := s.relay(p, size/2, func() { _ = (<-started).Signal(sig) }) // it is running: its transfer is
	cmd := s.command("fetch", "--repo", repo, "--provider", addr, "--budget", "1FIL", "--max-at-risk", "0", "-o", out, root)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	started <- cmd.Process
	return result{code: s.exitCode(cmd.Wait()), err: errs.String()}
}
