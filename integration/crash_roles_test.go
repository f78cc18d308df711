//go:build unix

package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/payment"
	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/transport"
	"github.com/tollgraph/tollgraph/voucher"
)

// The processes below are this test binary again, with crash points in them.
const (
	envRole = "TOLLGRAPH_TEST_ROLE" // provider or client
	envDir  = "TOLLGRAPH_TEST_DIR"
	envArg  = "TOLLGRAPH_TEST_ARG" // CAR of the provider, root of the client
	envAddr = "TOLLGRAPH_TEST_ADDR"
	envStep = "TOLLGRAPH_TEST_INTERVAL"
)

func (b *bench) child(crashAt int, role, arg, addr string) *exec.Cmd {
	b.t.Helper()
	self, err := os.Executable()
	must(b.t, err)
	cmd := exec.Command(self, "-test.run", "^TestRole$", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), envRole+"="+role, envDir+"="+b.path(role), envArg+"="+arg, envAddr+"="+addr,
		fmt.Sprintf("%s=%d", envCrashAt, crashAt), fmt.Sprintf("%s=%d", envStep, uint64(b.ask.PaymentInterval)))
	return cmd
}

func fusedSeller(b *bench, crashAt int) *exec.Cmd {
	return b.child(crashAt, "provider", b.car, b.listen)
}

func fusedClient(b *bench, crashAt int) *exec.Cmd {
	addr, err := os.ReadFile(b.path("address"))
	must(b.t, err)
	return b.child(crashAt, "client", b.root.String(), string(addr))
}

// TestRole is not a test: it is what the processes of TestCrashPoints run.
func TestRole(t *testing.T) {
	role := os.Getenv(envRole)
	if role == "" {
		t.Skip("run by TestCrashPoints")
	}
	dir := os.Getenv(envDir)
	must(t, os.MkdirAll(dir, 0o700))
	f := fuseFromEnv()
	db, err := fusedDB(filepath.Join(dir, "tollgraph.db"), f)
	must(t, err)
	defer db.Close()
	must(t, payment.Migrate(t.Context(), db))
	wallet, err := payment.LoadOrCreateKey(filepath.Join(dir, "wallet.key"))
	must(t, err)
	if role == "provider" {
		till, err := payment.NewTill(db, wallet.Address(), payment.TillConfig{DefaultCredit: voucher.OneFIL})
		must(t, err)
		sellUntilTerm(t, dir, f, func(c *market.ProviderConfig) { c.DB, c.Node = db, till })
		return
	}
	purse, err := payment.NewWallet(db, wallet, payment.WalletConfig{})
	must(t, err)
	buyOnce(t, dir, f, func(c *market.ClientConfig) { c.DB, c.Node, c.Wallet = db, purse, purse.Address() })
}

// roleHost is a host with the key that the role had before.
func roleHost(t *testing.T, dir string, listen ...string) host.Host {
	t.Helper()
	path := filepath.Join(dir, "host.key")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		must(t, err)
		data, err = crypto.MarshalPrivateKey(key)
		must(t, err)
		must(t, os.WriteFile(path+".new", data, 0o600))
		must(t, os.Rename(path+".new", path))
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	must(t, err)
	h, err := transport.NewHost(transport.HostConfig{Key: key, Listen: listen})
	must(t, err)
	return h
}

func sellUntilTerm(t *testing.T, dir string, f *fuse, stored sellerOption) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var step voucher.Bytes
	_, err := fmt.Sscan(os.Getenv(envStep), &step)
	must(t, err)
	h := roleHost(t, dir, os.Getenv(envAddr))
	s := newSeller(t, dir, h, []string{os.Getenv(envArg)}, voucher.Ask{PricePerByte: 3, PaymentInterval: step}, voucher.OneFIL, stored,
		func(c *market.ProviderConfig) {
			c.Host, c.Transfers = fusedHost{c.Host, f}, fusedTransfers{c.Transfers, f}
			c.Pieces = fusedGoods{c.Pieces.(goods), f}
		})
	fmt.Printf("listening %s/p2p/%s\n", h.Addrs()[0], h.ID())
	<-ctx.Done()
	s.stop()
	fmt.Printf("passed %d\n", f.passed.Load())
}

func buyOnce(t *testing.T, dir string, f *fuse, stored buyerOption) {
	from, err := peer.AddrInfoFromString(os.Getenv(envAddr))
	must(t, err)
	root, err := cid.Decode(os.Getenv(envArg))
	must(t, err)
	b := newBuyerOn(t, dir, roleHost(t, dir), stored, func(c *market.ClientConfig) {
		c.Host, c.Transfers, c.Stores = fusedHost{c.Host, f}, fusedTransfers{c.Transfers, f}, fusedStores{stores{filepath.Join(dir, "blocks")}, f}
	})
	_, err = b.Get(t.Context(), market.Request{Provider: market.RetrievalPeer{AddrInfo: *from}, Root: root, Budget: voucher.OneFIL, AtRisk: risk(0)})
	must(t, err)
	b.stop()
	out, err := os.Create(filepath.Join(dir, "..", "out"))
	must(t, err)
	held, err := piece.OpenPartial(stores{filepath.Join(dir, "blocks")}.path(root), root)
	must(t, err)
	must(t, piece.Cat(t.Context(), held.LinkSystem(), root, "", out, 0, -1))
	must(t, errors.Join(held.Close(), out.Close()))
	fmt.Printf("passed %d\n", f.passed.Load())
}

// TestCrashPoints kills one side at a crash point, starts it again, kills it or
// the other at another one, and so on. Points are drawn, so that many runs
// visit them all.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	const perDeal = 8
	total := crashes(t, perDeal)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d crashes", seed, total)
	rnd := mrand.New(mrand.NewPCG(seed, 2))
	for done := 0; done < total; done += perDeal {
		t.Run(fmt.Sprint(done), func(t *testing.T) {
			b := newBench(t, 1<<20, 16<<10, 32<<10)
			b.client, b.seller = fusedClient, fusedSeller
			n := b.burnThrough(min(perDeal, total-done), rnd)
			t.Logf("%d crashes before the end", n)
			b.verify()
		})
	}
}

// burnThrough runs the deal to its end through at most crashes crash points. A
// process that starts has a fuse of some length; the last ones have none.
func (b *bench) burnThrough(crashes int, rnd *mrand.Rand) (n int) {
	b.t.Helper()
	fuse := func() int {
		if n >= crashes {
			return 0
		}
		return 1 + rnd.IntN(120)
	}
	seller := b.startSeller(fuse())
	defer func() { seller.kill() }()
	for ; !b.known(); n++ { // it crashed before it could be found
		seller = b.startSeller(fuse())
	}
	client := b.startClient(fuse())
	defer func() { client.kill() }()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case <-client.done:
			if b.finished(client) {
				b.settle(seller)
				return n
			}
			if client.killed() {
				n++
			}
			client = b.startClient(fuse())
		case <-seller.done:
			n++
			seller = b.startSeller(fuse())
		case <-deadline:
			client.kill()
			b.fatal("not complete after %d crashes and two minutes", n)
		}
	}
}
