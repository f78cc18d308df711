package transport

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	dtgs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
)

// TestCloseWithoutRequest: a channel that has no request is closed in bounded time,
// also where the caller has no deadline, as one who handles a peer's message has
// not. The plain transport waits for ever.
func TestCloseWithoutRequest(t *testing.T) {
	h, links := nodeHost(t), newMemStore().links()
	plain := dtgs.NewTransport(h.ID(), gsimpl.New(t.Context(), gsnet.NewFromLibp2pHost(h), links))
	if err := plain.SetEventHandler(struct{ datatransfer.EventsHandler }{}); err != nil {
		t.Fatal(err)
	}
	chid := datatransfer.ChannelID{Initiator: "them", Responder: h.ID(), ID: 1}
	if err := plain.UseStore(chid, links); err != nil {
		t.Fatal(err)
	}
	guarded := WrapTransport(plain, nil)
	synctest.Test(t, func(t *testing.T) { // time passes when all wait
		ctx, cancel := context.WithTimeout(t.Context(), 100*closeTimeout)
		defer cancel()
		if err := plain.CloseChannel(ctx, chid); ctx.Err() == nil {
			t.Errorf("the plain transport returns by itself: %v", err)
		}
		if err := guarded.CloseChannel(context.Background(), chid); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closed with %v", err)
		}
	})
}
