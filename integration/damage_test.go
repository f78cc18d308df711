//go:build unix

package integration

import (
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// TestDiskFull: the client's disk is full in the middle. The deal stops with
// that reason, and goes on to an exact end when there is room. The size of
// files is limited for want of a disk to fill.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := newBench(t, 8<<20, 16<<10, 64<<10)
	seller := b.startSeller(0)
	defer func() { seller.kill() }()
	b.client = func(b *bench, _ int) *exec.Cmd {
		cmd := fetchProcess(b, 0)
		const blocks = (3 << 20) / 512 // what ulimit counts in
		script := fmt.Sprintf(`ulimit -f %d && exec "$0" "$@"`, blocks)
		return exec.Command("/bin/sh", append([]string{"-c", script}, cmd.Args...)...)
	}
	client := b.startClient(0)
	defer func() { client.kill() }()
	select {
	case <-client.done:
	case <-time.After(time.Minute):
		b.fatal("the client does not notice that its disk is full")
	}
	log, err := os.ReadFile(b.path("client.log"))
	must(t, err)
	if code := client.ProcessState.ExitCode(); code != 6 || !strings.Contains(string(log), "file too large") {
		b.fatal("the client ended with code %d", code)
	}
	b.client = fetchProcess
	client = b.startClient(0)
	if !b.finished(client) {
		b.fatal("the client does not go on")
	}
	b.settle(seller)
	b.verify()
}

// TestTornDatabase kills both sides and tears off the end of what they last
// wrote to their databases, as if the disk had lied about it.
func TestTornDatabase(t *testing.T) {
	t.Parallel()
	rnd := mrand.New(mrand.NewPCG(uint64(time.Now().UnixNano()), 3))
	b := newBench(t, 8<<20, 16<<10, 16<<10)
	seller := b.startSeller(0)
	defer func() { seller.kill() }()
	client := b.startClient(0)
	defer func() { client.kill() }()
	torn := 0
	for ; torn < crashes(t, 4); torn++ {
		select {
		case <-client.done:
		case <-time.After(time.Duration(300+rnd.IntN(500)) * time.Millisecond):
		}
		if client.kill(); b.finished(client) {
			break
		}
		seller.kill()
		b.torn = true
		b.tear("client", 1+rnd.Int64N(9000))
		b.tear("provider", 1+rnd.Int64N(9000))
		seller, client = b.startSeller(0), b.startClient(0)
	}
	t.Logf("torn %d times before the end", torn)
	b.untilFinished(client)
	b.settle(seller)
	b.verify()
}

// tear cuts n bytes off the write-ahead log of a database.
func (b *bench) tear(repo string, n int64) {
	b.t.Helper()
	wal := b.path(repo + "/tollgraph.db-wal")
	info, err := os.Stat(wal)
	if err != nil {
		return // it was checkpointed
	}
	must(b.t, os.Truncate(wal, max(0, info.Size()-n)))
}

// untilFinished lets the client go on until it has everything.
func (b *bench) untilFinished(client *process) {
	b.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case <-client.done:
			if b.finished(client) {
				return
			}
			client = b.startClient(0)
		case <-deadline:
			client.kill()
			b.fatal("not complete after a minute")
		}
	}
}

// TestClockStepsBack: between two runs the clocks of both sides go back by a
// day, which is to say that everything on record is from tomorrow.
func TestClockStepsBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, 6<<20, 16<<10, 16<<10)
	seller := b.startSeller(0)
	defer func() { seller.kill() }()
	for len(b.books("client")) == 0 || len(b.books("provider")) == 0 { // a slow machine gets nowhere in its first second
		client := b.startClient(0)
		select {
		case <-client.done:
		case <-time.After(700 * time.Millisecond):
		}
		client.kill()
	}
	seller.kill()
	for repo, table := range map[string]string{"client": "client_deals", "provider": "provider_deals"} {
		b.fromTomorrow(repo, table)
	}
	seller = b.startSeller(0)
	b.untilFinished(b.startClient(0))
	b.settle(seller)
	b.verify()
}

// fromTomorrow moves the times of all deals in a repo a day ahead.
func (b *bench) fromTomorrow(repo, table string) {
	b.t.Helper()
	db, err := market.OpenDatabase(b.path(repo + "/tollgraph.db"))
	must(b.t, err)
	defer db.Close()
	res, err := db.ExecContext(b.t.Context(), fmt.Sprintf(`UPDATE %s SET updated = updated + 86400000,
		record = json_set(record, '$.created', ?, '$.updated', ?)`, table), tomorrow(), tomorrow())
	must(b.t, err)
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		b.t.Fatalf("%d deals in %s, %v", n, table, err)
	}
}

func tomorrow() string { return time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339Nano) }
