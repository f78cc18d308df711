package retrievalmarket

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/tollgraph/tollgraph/voucher"
)

// inbound is the end of a stream that is only read.
type inbound struct {
	network.Stream
	io.Reader
}

func (s inbound) Read(b []byte) (int, error)      { return s.Reader.Read(b) }
func (s inbound) SetReadDeadline(time.Time) error { return nil }

// TestSalePayments: payments on a deal's stream that bring nothing are taken from it at a
// bounded rate, and one by which more may be sent lets the next one come at once.
func TestSalePayments(t *testing.T) {
	one, err := testPayment(t).MarshalTuple()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		brings uint64 // attoFIL
		want   int    // in a second
	}{"nothing": {0, 250}, "too little": {1, 250}, "an interval": {100_000, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			p := &Provider{idle: newThrottle(50, 200)}
			p.streams = newProviderStreams(p)
			d := &providerDeal{p: p, inbox: newInbox()}
			d.view.account.Terms = voucher.Terms{Price: 1, Interval: 100_000}
			ctx, cancel := context.WithCancelCause(t.Context())
			r, w := io.Pipe()
			x := &sale{c: p.streams, m: newMessages(inbound{Reader: r}), d: d, cancel: cancel}
			go x.payments(ctx)
			begun, got := time.Now(), 0
			for range 1000 {
				if _, err := w.Write(one); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				d.mu.Lock()
				d.view.account = d.view.account.Pay(d.view.account.Paid.Add(voucher.Atto(c.brings)))
				d.mu.Unlock()
				if d.inbox.take(); time.Since(begun) <= time.Second {
					got++
				}
			}
			w.Close()
			synctest.Wait()
			if got < c.want-2 || got > c.want+2 { // the first interval is lent
				t.Errorf("%s: %d in a second, want %d", name, got, c.want)
			}
		})
	}
}
