// Package examples holds two complete programs that have a data-transfer stack
// of their own: provider sells on it, client buys on it.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestShort: a reader copies from them.
func TestShort(t *testing.T) {
	for _, name := range []string{"provider", "client"} {
		files, err := filepath.Glob(filepath.Join(name, "*.go"))
		must(t, err)
		lines := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			must(t, err)
			lines += bytes.Count(text, []byte("\n"))
		}
		if lines == 0 || lines >= 120 {
			t.Errorf("%s has %d lines, want less than 120", name, lines)
		}
	}
}

// TestPrograms runs both against each other, as processes: one DAG goes by the
// programs' own vouchers, another is sold.
func TestPrograms(t *testing.T) {
	bin, goods, sellerDir, buyerDir := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./provider", "./client")
	if out, err := build.CombinedOutput(); err != nil { // not held to a time: everything may have to be compiled
		t.Fatalf("%v: %s", err, out)
	}
	gift, giftSize := makeCAR(t, goods, "gift", 1<<20)
	root, size := makeCAR(t, goods, "goods", 5<<20)

	provider := exec.Command(filepath.Join(bin, "provider"), sellerDir, goods)
	provider.Stderr = os.Stderr
	out, err := provider.StdoutPipe()
	must(t, err)
	must(t, provider.Start())
	deadline := time.AfterFunc(2*time.Minute, func() { _ = provider.Process.Kill() }) // gone already, or the read below ends
	t.Cleanup(func() {
		deadline.Stop()
		_ = provider.Process.Kill() // gone already if all went well
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)

	said := run(t, filepath.Join(bin, "client"), buyerDir, strings.TrimSpace(addr), gift.String(), root.String())
	cost := voucher.Price(2).Of(voucher.Bytes(size))
	want := fmt.Sprintf("free %s: %d bytes\nbought %s: %d bytes for %s attoFIL\n", gift, giftSize, root, size, cost)
	if said != want {
		t.Errorf("the client says %q, want %q", said, want)
	}
	must(t, provider.Process.Signal(os.Interrupt))
	if err := provider.Wait(); err != nil {
		t.Errorf("the provider, interrupted: %v", err)
	}
	checkHeld(t, filepath.Join(buyerDir, "free.car"), gift)
	checkHeld(t, filepath.Join(buyerDir, root.String()+".car"), root)
	checkTill(t, sellerDir, cost)
}

// checkHeld says that a DAG is whole, as its bytes say.
func checkHeld(t *testing.T, car string, root cid.Cid) {
	t.Helper()
	p, err := piece.OpenPartial(car, root)
	must(t, err)
	defer p.Close()
	links := p.LinkSystem()
	links.TrustedStorage = false
	whole, _, err := selectors.Complete(t.Context(), links, root, nil, 1<<20)
	if err != nil || !whole {
		t.Errorf("%s: whole %t, %v", car, whole, err)
	}
}

// checkTill says that the provider's books show what was paid, and no more.
func checkTill(t *testing.T, dir string, want voucher.Amount) {
	t.Helper()
	db, err := market.OpenDatabase(filepath.Join(dir, "market.db"))
	must(t, err)
	defer db.Close()
	key, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	must(t, err)
	till, err := payment.NewTill(db, key.Address(), payment.TillConfig{})
	must(t, err)
	channels, err := till.Channels(t.Context())
	must(t, err)
	if len(channels) != 1 || channels[0].Total != want {
		t.Errorf("the provider's channels are %+v, want one of %s", channels, want)
	}
}

// makeCAR packs size random bytes as one file.
func makeCAR(t *testing.T, dir, name string, size int) (root cid.Cid, bytes uint64) {
	t.Helper()
	data := make([]byte, size)
	_, _ = mrand.NewChaCha8([32]byte{byte(size >> 16)}).Read(data) // never fails
	src := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(src, data, 0o600))
	res, err := piece.Create(t.Context(), filepath.Join(dir, name+".car"), []string{src}, piece.CreateOptions{ChunkSize: 256 << 10})
	must(t, err)
	return res.Root, res.Bytes
}

// run returns what a command that ends within minutes says.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Fatalf("%s: %v\n%s", filepath.Base(name), err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
