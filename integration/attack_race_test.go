package integration

import (
	"context"
	"sync"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/libp2p/go-libp2p/core/peer"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// The races between a payment and the limit that it raises. On the plain stack
// each leaves a channel that stands still for good, although it was paid for;
// what is done here by hand, timing does there.

// until calls fn on the first event that it accepts.
func until(t *testing.T, m datatransfer.Manager, is func(datatransfer.Event, datatransfer.ChannelState) bool) <-chan datatransfer.ChannelID {
	t.Helper()
	found := make(chan datatransfer.ChannelID, 1)
	unsub := m.SubscribeToEvents(func(e datatransfer.Event, s datatransfer.ChannelState) {
		if is(e, s) {
			select {
			case found <- s.ChannelID():
			default:
			}
		}
	})
	t.Cleanup(unsub)
	return found
}

func code(c datatransfer.EventCode) func(datatransfer.Event, datatransfer.ChannelState) bool {
	return func(e datatransfer.Event, _ datatransfer.ChannelState) bool { return e.Code == c }
}

// wait takes what comes, or fails.
func wait[T any](ctx context.Context, t testing.TB, what <-chan T) T {
	t.Helper()
	select {
	case v := <-what:
		return v
	case <-ctx.Done():
		t.Fatal("it did not come")
		panic("unreachable")
	}
}

// raise is a payment: everything may go.
var raise = datatransfer.ValidationResult{Accepted: true, DataLimit: 1 << 40}

// TestRaceResumeBeforePause is R2: the limit is raised after it was reached, but
// before graphsync has paused, because the block that reached it waits for a slow
// reader. On the plain stack the resume fails, the pause follows, and nothing
// undoes it.
func TestRaceResumeBeforePause(t *testing.T) {
	s := newShop(t)
	ctx := within(t, longest)
	for blocks := uint64(2); blocks <= 24; blocks++ { // one of them is the first that waits
		p := newPlain(t, s.links(), blocks*shopBlock, gsimpl.MaxMemoryPerPeerResponder(2*shopBlock))
		reached := until(t, p.manager, code(datatransfer.DataLimitExceeded))
		r := newRaider(t, p.host)
		r.hold = make(chan struct{})
		r.send(ctx, gsRequest(s.deal, pullMessage(t, 7, false, s.deal)))
		var err error
		select {
		case chid := <-reached:
			update, cancel := context.WithTimeout(ctx, time.Second)
			err = p.manager.UpdateValidationStatus(update, chid, raise)
			cancel()
		case <-time.After(time.Second): // the block that waits comes before the limit
		}
		close(r.hold)
		if err == nil {
			continue
		}
		got := r.loot(ctx, s)
		t.Logf("limit at %d blocks: %v; %d of %d bytes came", blocks, err, got.total, s.dealSize)
		if got.total == s.dealSize {
			continue
		}
		// A second payment does not help: the channel believes that it runs.
		_ = p.manager.UpdateValidationStatus(ctx, datatransfer.ChannelID{Initiator: r.host.ID(), Responder: p.host.ID(), ID: 7}, raise)
		if again := r.loot(ctx, s); again.total == s.dealSize {
			t.Error("a second payment helped")
		}
		return
	}
	t.Error("the plain stack stood it at every limit")
}

// TestRaceStalePause is R3: a pause is asked for by hand in the block that reaches
// the limit. The limit's comes first, and the other one is carried out after the
// channel was resumed, by nobody's wish.
func TestRaceStalePause(t *testing.T) {
	s := newShop(t)
	ctx := within(t, longest)
	var p *plain
	var sum uint64
	p = newPlainHooked(t, s.links(), shopInterval, func(_ peer.ID, q graphsync.RequestData, b graphsync.BlockData, _ graphsync.OutgoingBlockHookActions) {
		before := sum
		if sum += b.BlockSizeOnWire(); before < shopInterval && sum >= shopInterval {
			_ = p.gs.Pause(ctx, q.ID()) // the request runs: there is no error
		}
	})
	stopped := until(t, p.manager, code(datatransfer.DataLimitExceeded))
	r := newRaider(t, p.host)
	q := gsRequest(s.deal, pullMessage(t, 7, false, s.deal))
	r.ask(ctx, q)
	must(t, p.manager.UpdateValidationStatus(ctx, wait(ctx, t, stopped), raise))
	got := r.loot(ctx, s)
	t.Logf("after the payment %d of %d bytes", got.total, s.dealSize)
	if got.total == s.dealSize {
		t.Error("the plain stack stood it")
	}
}

// TestRaceRestart is R4: a restart that meets the request that it replaces. On
// the plain stack the old one's end may count as the new one's, and its blocks
// as sent already. Whether it does hangs on the order of a map and on when a worker
// looks up, so the plain half shows what came and holds it to nothing. A seller
// ends the old one first.
func TestRaceRestart(t *testing.T) {
	s := newShop(t)
	ctx := within(t, longest)
	run := func(t *testing.T, r *raider, pay func()) loot {
		first := gsRequest(s.deal, pullMessage(t, 7, false, s.deal))
		r.send(ctx, first)
		r.rest(ctx, first.ID())
		pay()
		second := gsRequest(s.deal, pullMessage(t, 7, true, s.deal))
		r.send(ctx, gsmsg.NewCancelRequest(first.ID()), second) // in one message: in any order
		r.rest(ctx, second.ID())
		return r.loot(ctx, s)
	}
	t.Run("plain", func(t *testing.T) {
		p := newPlain(t, s.links(), shopInterval)
		r := newRaider(t, p.host)
		got := run(t, r, func() {
			_ = p.manager.UpdateValidationStatus(ctx, datatransfer.ChannelID{Initiator: r.host.ID(), Responder: p.host.ID(), ID: 7}, datatransfer.ValidationResult{Accepted: true, DataLimit: 2 * shopInterval})
		})
		t.Logf("%+v", got)
	})
	t.Run("tollgraph", func(t *testing.T) {
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
		got := run(t, newRaider(t, sel.host), func() {})
		if got.unique > shopCredit {
			t.Errorf("%+v", got)
		}
		honestSale(t, ctx, sel, s.deal, s.dealSize)
	})
}

// TestRaceFinalPayment is R5: money that arrives while the provider says that it
// has sent everything. On the plain stack the channel then waits for a payment
// that it has; a seller looks at its books again.
func TestRaceFinalPayment(t *testing.T) {
	s := newShop(t)
	ctx := within(t, longest)
	p := newPlain(t, s.links(), 1<<40)
	final := until(t, p.manager, func(_ datatransfer.Event, st datatransfer.ChannelState) bool {
		return st.Status() == datatransfer.Finalizing
	})
	r := newRaider(t, p.host)
	r.send(ctx, gsRequest(s.deal, pullMessage(t, 7, false, s.deal)))
	chid := wait(ctx, t, final)
	// The payment came before: nothing will tell of it again.
	if st := p.manager.TransferChannelStatus(ctx, chid); st != datatransfer.Finalizing {
		t.Errorf("the plain stack is %s by itself", st)
	}
}

// TestRacePaid: four clients at once pay a seller at each of its limits, strictly
// after receipt, on both ways that payments take, so that every race can happen.
// Every deal completes and settles exactly.
func TestRacePaid(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	ask := voucher.Ask{PricePerByte: 3, PaymentInterval: 2 * shopBlock}
	sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, ask, voucher.OneFIL)
	var all sync.WaitGroup
	for i := range 4 {
		b := newBuyer(t, t.TempDir(), func(c *market.ClientConfig) { c.VouchersOnly = i%2 == 1 })
		all.Go(func() {
			got, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: sel.addr()}, Root: s.deal, Budget: voucher.OneFIL, AtRisk: risk(0)})
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			if want := ask.PricePerByte.Of(voucher.Bytes(s.dealSize)); uint64(got.TotalReceived) != s.dealSize || got.FundsSpent != want {
				t.Errorf("client %d: %d bytes for %s", i, got.TotalReceived, got.FundsSpent)
			}
		})
	}
	all.Wait()
}
