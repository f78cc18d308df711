package integration

import (
	"context"
	"errors"
	"sync"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// unsealedAtOnce are goods that take no time to unseal.
type unsealedAtOnce struct{ *randomGoods }

func (unsealedAtOnce) Unseal(context.Context, cid.Cid) error { return nil }

// raises notes what data-transfer records of a channel behind the first limit that lets
// it go on.
type raises struct {
	market.Transfers
	next chan datatransfer.EventCode // what comes then

	mu     sync.Mutex
	raised map[datatransfer.ChannelID]bool // guarded by mu
	vain   int                             // guarded by mu; how often a channel was told that was not there
}

func (r *raises) UpdateValidationStatus(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.ValidationResult) error {
	err := r.Transfers.UpdateValidationStatus(ctx, chid, v)
	if errors.Is(err, datatransfer.ErrChannelNotFound) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.vain++
	}
	return err
}

func (r *raises) event(ev datatransfer.Event, st datatransfer.ChannelState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raised, before := r.raised[st.ChannelID()]
	switch {
	case raised:
		r.raised[st.ChannelID()] = false
		r.next <- ev.Code
	case !before && ev.Code == datatransfer.SetDataLimit && st.DataLimit() > 1:
		r.raised[st.ChannelID()] = true
	}
}

// TestUnsealedAtOnce: a piece that is unsealed before data-transfer has opened the
// channel is sold without waiting: what the channel is told then finds it open and
// paused, and resumes it.
func TestUnsealedAtOnce(t *testing.T) {
	t.Parallel()
	const deals = 20
	goods := newGoods()
	for i := range deals {
		goods.add(t, uint64(i), true, []int{100})
	}
	told := &raises{next: make(chan datatransfer.EventCode, deals), raised: make(map[datatransfer.ChannelID]bool)}
	s := newSeller(t, t.TempDir(), newHost(t, true), nil, defaultAsk, voucher.OneFIL, func(c *market.ProviderConfig) {
		told.Transfers = c.Transfers
		c.Transfers, c.Pieces = told, unsealedAtOnce{goods}
	})
	t.Cleanup(s.node.Transfers().SubscribeToEvents(told.event))
	b := newBuyer(t, t.TempDir())
	for root := range goods.pieces {
		id, err := b.Retrieve(t.Context(), market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Budget: voucher.OneFIL})
		must(t, err)
		if _, err := b.Wait(within(t, longest), id); err != nil {
			t.Fatal(err)
		}
	}
	for range deals {
		select {
		case code := <-told.next:
			if code != datatransfer.ResumeResponder {
				t.Errorf("a channel was let go on, and then came %s", datatransfer.Events[code])
			}
		case <-within(t, longest).Done():
			t.Fatal("a channel was not let go on")
		}
	}
	untilEnded(t, s.Provider)
	told.mu.Lock()
	defer told.mu.Unlock()
	if told.vain != 0 {
		t.Errorf("%d times a channel was told that was not there yet", told.vain)
	}
}
