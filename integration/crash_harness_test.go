//go:build unix

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/voucher"
)

// program is the tollgraph binary, built once for all tests that run it.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tollgraph-integration")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tollgraph")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/tollgraph").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// bench is one provider and one client as processes, with a repo each, that
// deal in one file.
type bench struct {
	t      testing.TB
	dir    string // provider/, client/, data.car, out
	car    string
	root   cid.Cid
	size   uint64
	listen string // a fixed address, so that the provider comes back to it
	ask    voucher.Ask
	client role
	seller role
	torn   bool // writes of either side were lost
}

// A role makes the command of a process. crashAt, if not 0, is the crash point
// at which it kills itself, where it knows of any.
type role func(b *bench, crashAt int) *exec.Cmd

// newBench makes a bench with a file of size bytes in chunks. Payments are due
// for every interval.
func newBench(t testing.TB, size, chunk int64, interval voucher.Bytes) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, dir: dir, ask: voucher.Ask{PricePerByte: 3, PaymentInterval: interval}, client: fetchProcess, seller: serveProcess}
	b.car, b.root, b.size = makeCAR(t, dir, size, chunk)
	b.listen = freeAddress(t)
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// serveProcess is `tollgraph serve`.
func serveProcess(b *bench, _ int) *exec.Cmd {
	return b.tollgraph("--repo", b.path("provider"), "serve", "--listen", b.listen, "--credit", "1FIL",
		"--price", "0.000000003221225472FIL", "--payment-interval", fmt.Sprint(uint64(b.ask.PaymentInterval)), b.car)
}

// fetchProcess is `tollgraph fetch`, paying strictly after receipt.
func fetchProcess(b *bench, _ int) *exec.Cmd {
	addr, err := os.ReadFile(b.path("address"))
	must(b.t, err)
	return b.tollgraph("--repo", b.path("client"), "--json", "fetch", "--provider", string(addr), "--budget", "1FIL",
		"--max-at-risk", "0", "--overwrite", "-o", b.path("out"), b.root.String())
}

func (b *bench) tollgraph(args ...string) *exec.Cmd {
	b.t.Helper()
	path, err := program()
	must(b.t, err)
	return exec.Command(path, args...)
}

// process is a running command.
type process struct {
	*exec.Cmd
	name string
	log  *os.File
	done chan struct{} // closed when it has ended
	err  error         // how, once done is closed
}

// start starts cmd with its standard error in a log, and its standard output
// on the returned process's Stdout unless that is set.
func (b *bench) start(name string, cmd *exec.Cmd) *process {
	b.t.Helper()
	log, err := os.OpenFile(b.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(b.t, err)
	cmd.Stderr = log
	p := &process{Cmd: cmd, name: name, log: log, done: make(chan struct{})}
	must(b.t, cmd.Start())
	return p
}

// reap waits for the process, aside.
func (p *process) reap() {
	go func() {
		p.err = errors.Join(p.Wait(), p.log.Close())
		close(p.done)
	}()
}

// kill ends the process at once, without a chance to clean up.
func (p *process) kill() {
	_ = p.Process.Kill() // it may have ended by itself
	<-p.done
}

// killed reports whether SIGKILL ended the process.
func (p *process) killed() bool {
	exit := (*exec.ExitError)(nil)
	if !errors.As(p.err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// startSeller starts the provider and waits until it listens or has crashed.
func (b *bench) startSeller(crashAt int) *process {
	b.t.Helper()
	cmd := b.seller(b, crashAt)
	stdout, err := cmd.StdoutPipe()
	must(b.t, err)
	p := b.start("provider", cmd)
	listening := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if addr, ok := strings.CutPrefix(lines.Text(), "listening "); ok {
				select {
				case listening <- addr:
				default:
				}
			}
		}
		p.reap() // after the last read of the pipe
	}()
	select {
	case addr := <-listening:
		must(b.t, os.WriteFile(b.path("address"), []byte(addr), 0o600))
	case <-p.done:
		if !p.killed() {
			b.fatal("the provider did not start: %v", p.err)
		}
	case <-time.After(time.Minute):
		p.kill()
		b.fatal("the provider does not listen")
	}
	return p
}

// known reports whether the provider's address is known to the client.
func (b *bench) known() bool {
	_, err := os.Stat(b.path("address"))
	return err == nil
}

func (b *bench) startClient(crashAt int) *process {
	b.t.Helper()
	p := b.start("client", b.client(b, crashAt))
	p.reap()
	return p
}

// fatal fails the test with the ends of the logs.
func (b *bench) fatal(format string, args ...any) {
	b.t.Helper()
	for _, name := range []string{"provider", "client"} {
		log, _ := os.ReadFile(b.path(name + ".log")) // there may be none
		b.t.Logf("%s: %s", name, log[max(0, len(log)-4000):])
	}
	b.t.Fatalf(format, args...)
}

// stop ends the provider in order.
func (b *bench) stop(p *process) {
	b.t.Helper()
	must(b.t, p.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.kill()
		b.fatal("the provider does not stop")
	}
}

// book is a deal as `deals list --json` shows it.
type book struct {
	ID, Role, Status, Message string
	Bytes                     uint64
	Paid                      string `json:"paid_atto"`
}

// books lists the deals in a repo.
func (b *bench) books(repo string) map[string]book {
	b.t.Helper()
	list := b.tollgraph("--repo", b.path(repo), "--json", "deals", "list") // may build it, which is not timed
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, list.Path, list.Args[1:]...).Output()
	must(b.t, err)
	var deals []book
	must(b.t, json.Unmarshal(out, &deals))
	byID := make(map[string]book)
	for _, d := range deals {
		byID[d.ID] = d
	}
	return byID
}

// verify checks the outcome: the file is whole, exactly its price was paid,
// both books agree on every deal, and none is left open.
func (b *bench) verify() {
	b.t.Helper()
	bought, sold := b.books("client"), b.books("provider")
	var bytes uint64
	var paid voucher.Amount
	for id, d := range bought {
		other, known := sold[id]
		if !known && b.torn && d.Bytes == 0 && d.Paid == "0" {
			continue // its provider lost the record of a deal about nothing
		}
		if d.Paid != "0" && (d.Paid != other.Paid || d.Bytes != other.Bytes) || d.Status != "Completed" || other.Status != "Completed" {
			b.t.Errorf("the books differ, or a deal is open:\n client   %+v\n provider %+v", d, other)
		}
		var amount voucher.Amount
		must(b.t, amount.UnmarshalText([]byte(d.Paid)))
		bytes, paid = bytes+d.Bytes, paid.Add(amount)
	}
	if want := b.ask.Terms().Cost(voucher.Bytes(b.size)); bytes != b.size || paid != want || len(sold) > len(bought) {
		b.t.Errorf("%d bytes for %s, want %d for %s:\n client   %+v\n provider %+v", bytes, paid, b.size, want, bought, sold)
	}
	b.sameFile()
	if b.t.Failed() {
		b.fatal("after %d deals", len(bought))
	}
}
