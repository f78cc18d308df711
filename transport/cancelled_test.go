package transport

import (
	"io"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// TestCancelledChannel: a peer cancels its channel in a message of data-transfer's own
// while its request is served. data-transfer forgets the channel, and with it the
// limit; graphsync hears nothing of it. The request ends all the same.
func TestCancelledChannel(t *testing.T) {
	const leaf, limit = 1000, 3000
	ctx := within(t, 20*time.Second)
	source := newMemStore()
	d := buildDAG(t, source, 1, 20, leaf, nil)
	reached, goOn := make(chan struct{}), make(chan struct{})
	n := newTestNode(t, nodeHost(t), nil)
	err := n.Transfers().RegisterVoucherType(testType, &validator{pull: func(datatransfer.ChannelID) (datatransfer.ValidationResult, error) {
		return datatransfer.ValidationResult{Accepted: true, DataLimit: limit, RequiresFinalization: true}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	err = n.Transfers().RegisterTransportConfigurer(testType, func(datatransfer.ChannelID, datatransfer.TypedVoucher) []datatransfer.TransportOption {
		ls := source.links()
		read := ls.StorageReadOpener
		ls.StorageReadOpener = func(lc ipld.LinkContext, l ipld.Link) (io.Reader, error) {
			if l.(cidlink.Link).Cid == d.leaves[1] {
				close(reached)
				<-goOn
			}
			return read(lc, l)
		}
		return []datatransfer.TransportOption{UseStore(ls)}
	})
	if err != nil {
		t.Fatal(err)
	}
	w, a := watch(t, n.Transfers()), newAttacker(t, n.cfg.Host)
	r := gsmsg.NewRequest(graphsync.NewRequestID(), d.root, wholeDAG(), 0, pull(t, 1, false, d.root, wholeDAG()))
	a.send(t, ctx, r)
	<-reached
	s := n.Meter.table.get(r.ID())
	out, err := a.host.NewStream(ctx, a.to, datatransfer.ProtocolDataTransfer1_2)
	if err == nil {
		err = message.CancelRequest(1).ToNet(out)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, ctx, "not cancelled", func(e seen) bool { return e.status == datatransfer.Cancelled })
	n.transport.work.Wait() // data-transfer has let go
	close(goOn)
	if !await(ctx, []*served{s}) {
		t.Error("the request goes on")
	}
	if got := s.meter.progress().Sent; got > limit+leaf {
		t.Errorf("%d bytes served, the limit was %d", got, limit)
	}
}
