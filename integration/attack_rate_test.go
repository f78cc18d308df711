//go:build unix

package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	gsmsgv2 "github.com/ipfs/go-graphsync/message/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/tollgraph/tollgraph/payment"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// What a process that attacks is told.
const (
	envRaid   = "TOLLGRAPH_TEST_RAID"   // which of raids
	envVictim = "TOLLGRAPH_TEST_VICTIM" // the seller's address
	envGoods  = "TOLLGRAPH_TEST_GOODS"  // the roots of a DAG of the shop and of a ladder, and the seller's wallet
)

// A frame is a message of graphsync as it is on the wire, of which the ids of the
// requests can be changed.
type frame struct {
	raw []byte
	ids []int // where they are
}

func newFrame(t testing.TB, reqs ...gsmsg.GraphSyncRequest) *frame {
	t.Helper()
	all := make(map[graphsync.RequestID]gsmsg.GraphSyncRequest, len(reqs))
	for _, q := range reqs {
		all[q.ID()] = q
	}
	var buf bytes.Buffer
	must(t, gsmsgv2.NewMessageHandler().ToNet("", gsmsg.NewMessage(all, nil, nil), &buf))
	f := &frame{raw: buf.Bytes()}
	for id := range all {
		at := bytes.Index(f.raw, id.Bytes())
		if at < 0 {
			t.Fatal("a request's id is not where it is looked for")
		}
		f.ids = append(f.ids, at)
	}
	return f
}

// fresh returns the frame with new ids. It is valid until the next call.
func (f *frame) fresh() []byte {
	for _, at := range f.ids {
		copy(f.raw[at:], graphsync.NewRequestID().Bytes())
	}
	return f.raw
}

// forged is a payment frame for a deal, with a voucher that its payer has not
// signed.
func forged(t testing.TB, payee address.Address, id voucher.DealID) []byte {
	t.Helper()
	poor, err := voucher.NewKey()
	must(t, err)
	rich, err := voucher.NewKey()
	must(t, err)
	theirs, err := payment.ChannelAddress(rich.Address(), payee)
	must(t, err)
	v := &voucher.SignedVoucher{ChannelAddr: theirs, Lane: 1, Nonce: 1, Amount: fbig.NewFromGo(big.NewInt(1 << 20))}
	must(t, poor.Sign(v))
	return payFrameOf(t, id, encodePayment(t, id, theirs, v))
}

// rawStream is written to at the pace of the other side, whose answers are
// thrown away. When it is cut there is another one.
type rawStream struct {
	r     *raider
	ctx   context.Context
	proto protocol.ID
	s     network.Stream
}

func (r *raider) stream(ctx context.Context, p protocol.ID) *rawStream {
	return &rawStream{r: r, ctx: ctx, proto: p}
}

func (o *rawStream) write(b []byte) error {
	if o.s == nil {
		s, err := o.r.host.NewStream(o.ctx, o.r.to, o.proto)
		if err != nil {
			return err
		}
		o.s = s
		context.AfterFunc(o.ctx, func() { _ = s.Reset() }) // or a write waits on
		go func() { _, _ = io.Copy(io.Discard, s) }()
	}
	_, err := o.s.Write(b)
	if err != nil {
		_ = o.s.Reset()
		o.s = nil
	}
	return err
}

// TestRaider is not a test: it is what the attackers of TestAttackRate run. It says
// when the attack is under way, and then, for each line that it is sent, how much
// processor time it took so far and how much of the attack was got rid of.
func TestRaider(t *testing.T) {
	a, is := raids[os.Getenv(envRaid)]
	if !is {
		t.Skip("run by TestAttackRate")
	}
	r := &raid{t: t, shop: &shop{}}
	victim, err := peer.AddrInfoFromString(os.Getenv(envVictim))
	must(t, err)
	r.victim = *victim
	goods := strings.Fields(os.Getenv(envGoods))
	r.shop.deal, err = cid.Decode(goods[0])
	must(t, err)
	r.endless, err = cid.Decode(goods[1])
	must(t, err)
	r.payee, err = address.NewFromString(goods[2])
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r.ctx = ctx
	again := a.begin(r)
	var sent, cut atomic.Int64
	say := func() { fmt.Println("raid", int64(processorTime()), sent.Load(), cut.Load()) }
	go func() {
		defer stop()
		lead := time.NewTimer(raidLead)
		defer lead.Stop()
		<-lead.C
		say()
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			say()
		}
	}()
	each(ctx, a.every, func() {
		if err := again(); err != nil {
			cut.Add(1)
		} else {
			sent.Add(1)
		}
	})
}

// raidLead is how long an attack is under way before anybody is served.
const raidLead = 100 * time.Millisecond

// each calls f every so often until ctx ends.
func each(ctx context.Context, every time.Duration, f func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// raiders is a process that attacks.
type raiders struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
	cmd *exec.Cmd
}

// besiege starts an attack on a seller and returns when it is under way.
func besiege(t *testing.T, name string, sel *seller, s *shop, endless cid.Cid) *raiders {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "-test.run", "^TestRaider$", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), envRaid+"="+name,
		fmt.Sprintf("%s=%s/p2p/%s", envVictim, sel.host.Addrs()[0], sel.host.ID()),
		fmt.Sprintf("%s=%s %s %s", envGoods, s.deal, endless, sel.till.Address()))
	cmd.Stderr = os.Stderr
	r := &raiders{t: t, cmd: cmd}
	r.in, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	r.out = bufio.NewScanner(out)
	must(t, cmd.Start())
	r.hear()
	return r
}

// hear returns what the raiders say: the processor time they took so far, and how
// often they got rid of what they do and how often not.
func (r *raiders) hear() (cpu time.Duration, sent, cut int) {
	r.t.Helper()
	for r.out.Scan() {
		if n, err := fmt.Sscanf(r.out.Text(), "raid %d %d %d", &cpu, &sent, &cut); n == 3 && err == nil {
			return cpu, sent, cut
		}
	}
	r.t.Fatal("the attackers have gone")
	return 0, 0, 0
}

func (r *raiders) ask() (cpu time.Duration, sent, cut int) {
	r.t.Helper()
	_, err := io.WriteString(r.in, "\n")
	must(r.t, err)
	return r.hear()
}

func (r *raiders) stop() {
	r.t.Helper()
	must(r.t, r.in.Close())
	for r.out.Scan() {
	}
	must(r.t, r.cmd.Wait())
}

// TestAttackServed: under each attack that is meant to take the provider's time an
// honest client is served whole. How fast is measured by TestAttackRate.
func TestAttackServed(t *testing.T) {
	s := newShop(t)
	ladderCAR, endless := ladder(t, t.TempDir(), 40)
	for name := range raids {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sel := newSeller(t, t.TempDir(), newHost(t, true), append([]string{ladderCAR}, s.cars...), shopAsk, voucher.OneFIL)
			r := besiege(t, name, sel, s, endless)
			honestSale(t, within(t, longest), sel, s.deal, s.dealSize)
			_, sent, cut := r.ask()
			r.stop()
			t.Logf("%d of %d times, dropped %v", sent, sent+cut, sel.node.Dropped())
			if sent == 0 {
				t.Error("there was no attack")
			}
		})
	}
}

// TestAttackCost measures the processor time that a provider spends on each attack
// while it serves nobody else: at most a tenth of the machine's. It takes minutes, so
// it is opt-in, but needs no quiet machine.
func TestAttackCost(t *testing.T) {
	if os.Getenv("TOLLGRAPH_ATTACK_COST") == "" {
		t.Skip("set TOLLGRAPH_ATTACK_COST=1 to measure")
	}
	const long = 5 * time.Second
	s := newShop(t)
	ladderCAR, endless := ladder(t, t.TempDir(), 40)
	for name := range raids {
		t.Run(name, func(t *testing.T) {
			sel := newSeller(t, t.TempDir(), newHost(t, true), append([]string{ladderCAR}, s.cars...), shopAsk, voucher.OneFIL)
			defer sel.stop()
			r := besiege(t, name, sel, s, endless)
			idle := processorTime()
			_, before, _ := r.ask()
			<-time.After(long)
			cost := processorTime() - idle
			_, sent, cut := r.ask()
			r.stop()
			share := cost.Seconds() / long.Seconds() / float64(runtime.GOMAXPROCS(0))
			t.Logf("%.3f of the machine for %.0f times a second, cut %d times, dropped %v", share, float64(sent-before)/long.Seconds(), cut, sel.node.Dropped())
			if share > 0.1 {
				t.Errorf("%.3f of the machine's processor time", share)
			}
		})
	}
}

// TestAttackRate compares the rate of an honest client undisturbed and under each
// attack, in alternation, by the medians. It needs a quiet machine, so it is opt-in:
// set TOLLGRAPH_ATTACK_RATE to how many rounds to run, and choose an attack with -run.
//
// The attackers are a process of their own. The client begins a moment after they do, so
// that what they ask for first counts; what the last ones left behind is done with before.
// On a machine of their own they would take no processor time of the provider's; here
// they do, so what they took is measured, and the client's time counts without their
// share of the cores.
func TestAttackRate(t *testing.T) {
	if os.Getenv("TOLLGRAPH_ATTACK_RATE") == "" {
		t.Skip("set TOLLGRAPH_ATTACK_RATE=5 to measure")
	}
	rounds := envInt(t, "TOLLGRAPH_ATTACK_RATE", 5)
	s := newShop(t)
	ladderCAR, endless := ladder(t, t.TempDir(), 40)
	car, root, n := makeCAR(t, t.TempDir(), int64(envInt(t, "TOLLGRAPH_ATTACK_MIB", 1024))<<20, 256<<10)
	ask := voucher.Ask{PricePerByte: 3, PaymentInterval: 1 << 20}
	for name := range raids {
		t.Run(name, func(t *testing.T) {
			sel := newSeller(t, t.TempDir(), newHost(t, true), append([]string{car, ladderCAR}, s.cars...), ask, voucher.OneFIL)
			defer sel.stop()
			buy := func() time.Duration {
				dir := t.TempDir()
				defer func() { must(t, os.RemoveAll(dir)) }() // what is not written back yet would slow down the next
				b := newBuyer(t, dir)
				defer b.stop()
				start := time.Now()
				_, err := b.Get(within(t, longest), market.Request{Provider: market.RetrievalPeer{AddrInfo: sel.addr()}, Root: root, Budget: voucher.OneFIL})
				must(t, err)
				return time.Since(start)
			}
			rate := func(d time.Duration) float64 { return float64(n) / (1 << 20) / d.Seconds() }
			buy() // the first one pays for cold caches
			var calmly, attacked, shares []float64
			for range rounds {
				left := settles(t, 0.05)
				calmly = append(calmly, rate(buy()))
				r := besiege(t, name, sel, s, endless)
				before, sentBefore, _ := r.ask()
				took := buy()
				after, sent, cut := r.ask()
				r.stop()
				share := (after - before).Seconds() / float64(runtime.GOMAXPROCS(0)) / took.Seconds()
				attacked = append(attacked, rate(took-time.Duration(share*float64(took))))
				shares = append(shares, share)
				t.Logf("%d times in %v, cut %d times, %.1f %% of the machine's processor time; the last over in %v",
					sent-sentBefore, took.Round(time.Millisecond), cut, 100*share, left)
			}
			before, during := median(calmly), median(attacked)
			t.Logf("undisturbed %.0f MiB/s %.0f, under attack %.0f MiB/s %.0f: %.2f, attackers' own share %.3f, dropped %v",
				before, calmly, during, attacked, during/before, median(shares), sel.node.Dropped())
			if during < 0.9*before {
				t.Errorf("%.0f MiB/s under attack, %.0f without", during, before)
			}
		})
	}
}

// settles waits until this process takes no more than a share of the machine's
// processor time, and returns how long that took.
func settles(t *testing.T, share float64) time.Duration {
	t.Helper()
	const look = 250 * time.Millisecond
	limit := time.Duration(share * float64(look) * float64(runtime.GOMAXPROCS(0)))
	ctx := within(t, longest)
	for start := time.Now(); ; {
		before := processorTime()
		if !waited(ctx, look) {
			t.Fatal("it does not come to rest")
		}
		if processorTime()-before <= limit {
			return time.Since(start).Round(time.Millisecond)
		}
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
