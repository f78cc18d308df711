//go:build unix

package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tollgraph/tollgraph/piece"
)

// crashes is how many times a matrix kills a process: few, unless
// TOLLGRAPH_CRASHES asks for more.
func crashes(t testing.TB, few int) int {
	t.Helper()
	if s := os.Getenv("TOLLGRAPH_CRASHES"); s != "" {
		n, err := strconv.Atoi(s)
		must(t, err)
		return n
	}
	return few
}

// perDeal is how many crashes one deal suffers before it is left to finish.
const perDeal = 10

// TestCrashAtAnyInstant kills provider, client, or both at random instants,
// starts them again, and lets the deal end: no byte is lost, paid twice or given
// away.
func TestCrashAtAnyInstant(t *testing.T) {
	t.Parallel()
	total := crashes(t, perDeal)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d crashes", seed, total)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for done := 0; done < total; done += perDeal {
		t.Run(fmt.Sprint(done), func(t *testing.T) {
			b := newBench(t, 8<<20, 16<<10, 16<<10)
			n := b.torment(min(perDeal, total-done), func() time.Duration {
				return time.Duration(20+rnd.IntN(500)) * time.Millisecond
			}, rnd)
			t.Logf("%d crashes before the end", n)
			b.verify()
		})
	}
}

// torment runs the deal to its end and, at most crashes times, kills one or
// both sides after a while. It returns how many crashes there were.
func (b *bench) torment(crashes int, while func() time.Duration, rnd *rand.Rand) (n int) {
	b.t.Helper()
	seller := b.startSeller(0)
	defer func() { seller.kill() }()
	client := b.startClient(0)
	defer func() { client.kill() }()
	deadline := time.After(2 * time.Minute)
	for {
		next := time.NewTimer(while())
		crash := next.C
		if n >= crashes {
			crash = nil
		}
		select {
		case <-client.done:
			if b.finished(client) {
				b.settle(seller)
				return n
			}
			client = b.startClient(0)
		case <-crash:
			n++
			victims := 1 + rnd.IntN(3)
			if victims&1 != 0 {
				client.kill()
			}
			if victims&2 != 0 {
				seller.kill()
				seller = b.startSeller(0)
			}
			if victims&1 != 0 && !b.finished(client) {
				client = b.startClient(0)
			}
		case <-deadline:
			client.kill()
			b.fatal("not complete after %d crashes and two minutes", n)
		}
		next.Stop()
	}
}

// finished reports whether a client that ended has everything. One that gave up
// must have said so with the right exit code, and is started again.
func (b *bench) finished(client *process) bool {
	b.t.Helper()
	select {
	case <-client.done:
	case <-time.After(longest):
		client.kill()
		b.fatal("the client does not end")
	}
	if client.err == nil {
		return true
	}
	if code := client.ProcessState.ExitCode(); !client.killed() && code != 6 && code != 1 {
		b.fatal("the client ended with code %d: %v", code, client.err)
	}
	return false
}

// settle stops the provider in order: what it knows is on disk then.
func (b *bench) settle(seller *process) {
	b.t.Helper()
	select {
	case <-seller.done: // it crashed after the deal
		seller = b.startSeller(0)
	default:
	}
	b.stop(seller)
}

// sameFile compares what was written out with what is sold.
func (b *bench) sameFile() {
	b.t.Helper()
	want, got := b.fileSum(), sha256.New()
	out, err := os.Open(b.path("out"))
	must(b.t, err)
	defer out.Close()
	_, err = io.Copy(got, out)
	must(b.t, err)
	if !bytes.Equal(want, got.Sum(nil)) {
		b.t.Error("the file that arrived is another one")
	}
}

// fileSum is the hash of the file in the provider's CAR.
func (b *bench) fileSum() []byte {
	b.t.Helper()
	store, err := piece.Open(b.t.Context(), piece.Config{Paths: []string{b.car}, IndexDir: b.t.TempDir(), Logger: testLogger()})
	must(b.t, err)
	defer store.Close()
	info, ok := store.Find(b.root, nil)
	if !ok {
		b.t.Fatal("the CAR lacks its root")
	}
	sum := sha256.New()
	must(b.t, piece.Cat(b.t.Context(), store.LinkSystem(info.ID), b.root, "", sum, 0, -1))
	return sum.Sum(nil)
}
