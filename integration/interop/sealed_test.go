package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	rt "github.com/filecoin-project/go-retrieval-types"
)

// TestSellWhatTakesLongToUnseal: a stock client's graphsync gives up a stream
// that was idle for 10 s, and reports an error on every channel of it. A deal
// that waits longer for its piece goes on all the same, priced and free, and no
// byte of it comes before it is unsealed.
func TestSellWhatTakesLongToUnseal(t *testing.T) {
	for _, s := range []sale{
		{name: "priced", sizes: times(34, 1000), price: 2, unseal: 77, interval: 10_000, increase: 1_000, payments: []uint64{77, 20_077, 42_077, 66_077, 68_077}},
		{name: "free", sizes: times(34, 1000)},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			dag := newChain(t, s.sizes...)
			begun, let := filepath.Join(t.TempDir(), "begun"), filepath.Join(t.TempDir(), "go")
			provider := newSellerOfSealed(t, s.ask(),
				fmt.Sprintf("touch '%s'; until [ -e '%s' ]; do sleep 0.05; done; cp {in} {out}", begun, let), dag.car(t))
			client := newLazyClient(t)
			gaveUp := client.happened(t, datatransfer.ReceiveDataError)
			deal := client.propose(within(t, 60*time.Second), provider.addr(), provider.payTo,
				rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(s.price, s.unseal, s.interval, s.increase, wholeDAG, nil)}, wholeDAG)
			await(t, gaveUp, "the end of the client's patience")
			if _, err := os.Stat(begun); err != nil {
				t.Errorf("unsealing has not begun: %v", err)
			}
			if n := client.blocks.size(); n != 0 {
				t.Errorf("%d bytes came before the piece was unsealed", n)
			}
			must(t, os.WriteFile(let, nil, 0o600))
			deal.wait(within(t, 30*time.Second))
			if deal.err != nil || !deal.completed || deal.received != s.bytes() || !slices.Equal(deal.paid, s.payments) {
				t.Errorf("want %d bytes for %v: %s", s.bytes(), s.payments, deal)
			}
			checkSold(t, s, provider)
		})
	}
}

// TestSellWhatCannotBeUnsealed: the client is told, and pays for the attempt at
// most.
func TestSellWhatCannotBeUnsealed(t *testing.T) {
	s := sale{sizes: times(5, 1000), price: 2, unseal: 77, interval: 10_000}
	dag := newChain(t, s.sizes...)
	provider := newSellerOfSealed(t, s.ask(), "echo {in} {out} is broken >&2; exit 3", dag.car(t))
	client := newLazyClient(t)
	deal := client.propose(within(t, 30*time.Second), provider.addr(), provider.payTo,
		rt.DealProposal{PayloadCID: dag.root, ID: 7, Params: params(s.price, s.unseal, s.interval, s.increase, wholeDAG, nil)}, wholeDAG)
	deal.wait(within(t, 30*time.Second))
	if deal.completed || deal.received != 0 || len(deal.statuses) == 0 || deal.statuses[len(deal.statuses)-1] != rt.DealStatusErrored || deal.message == "" {
		t.Errorf("want Errored with a reason, not %q: %s", deal.message, deal)
	}
	if !slices.Equal(deal.paid, []uint64{77}) {
		t.Errorf("paid %v, want the price of unsealing", deal.paid)
	}
}

// happened is closed when an event comes to a channel of s.
func (s *stock) happened(t testing.TB, code datatransfer.EventCode) <-chan struct{} {
	t.Helper()
	there := make(chan struct{})
	done := false // events come from one goroutine
	t.Cleanup(s.dt.SubscribeToEvents(func(e datatransfer.Event, _ datatransfer.ChannelState) {
		if e.Code == code && !done {
			done = true
			close(there)
		}
	}))
	return there
}
