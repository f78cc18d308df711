package transport

import (
	"context"
	"testing"
	"time"

	gsmsg "github.com/ipfs/go-graphsync/message"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// errorRecorder passes on the first error it is told.
type errorRecorder struct {
	*recorder
	errs chan error
}

func (r errorRecorder) ReceiveError(_ peer.ID, err error) {
	select {
	case r.errs <- err:
	default:
	}
}

// TestStallsOverTCP checks on real sockets what the tests in virtual time
// check on pipes: that a reader and a writer give up on a peer that stands still.
func TestStallsOverTCP(t *testing.T) {
	from, to := newTestHost(t), newTestHost(t)
	introduce(from, to)
	free := make(chan struct{})
	r := errorRecorder{&recorder{gate: func(gsmsg.GraphSyncMessage) { <-free }}, make(chan error, 1)}
	NewNetwork(to, NetworkConfig{ReadAhead: -1, StallTimeout: 200 * time.Millisecond}).SetDelegate(r)
	ctx := testContext(t, 30*time.Second)

	sender, err := NewNetwork(from, NetworkConfig{}).NewMessageSender(ctx, to.ID(),
		gsnet.MessageSenderOpts{SendTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for ; sent < 100; sent++ {
		if err = sender.SendMsg(context.Background(), numbered(sent, 1<<20)); err != nil {
			break
		}
	}
	// The muxer takes up to 16 MiB that nobody reads, the sockets a few more.
	if !isTimeout(err) || sent > 40 {
		t.Errorf("%d MiB sent to a receiver that takes one, then %v", sent, err)
	}
	close(free)
	_ = sender.Reset()
	<-r.errs

	s, err := from.NewStream(ctx, to.ID(), gsnet.ProtocolGraphsync_2_0_0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(framed(t, numbered(1, 1000))[:500]); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-r.errs:
		if !isTimeout(err) {
			t.Errorf("half a message: %v", err)
		}
	case <-ctx.Done():
		t.Error("half a message was waited for without end")
	}
}
