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
// bounded rate, and one after which more is paid lets the next one come at once.
func TestSalePayments(t *testing.T) {
	one, err := testPayment(t).MarshalTuple()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		brings bool
		want   int // in a second
	}{"nothing": {false, 250}, "something": {true, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			p := &Provider{idle: newThrottle(50, 200)}
			p.streams = newProviderStreams(p)
			d := &providerDeal{p: p, inbox: newInbox()}
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
				if c.brings {
					d.mu.Lock()
					d.view.account = d.view.account.Pay(d.view.account.Paid.Add(voucher.Atto(1)))
					d.mu.Unlock()
				}
				if d.inbox.take(); time.Since(begun) <= time.Second {
					got++
				}
			}
			w.Close()
			synctest.Wait()
			if got < c.want-1 || got > c.want+1 {
				t.Errorf("%s: %d in a second, want %d", name, got, c.want)
			}
		})
	}
}
