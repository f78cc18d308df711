package transport

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	"github.com/libp2p/go-libp2p/core/network"
)

// TestMessagesKeepTheirOrder: a message counts as sent when it is written, but no
// other of its channel leaves before the peer has taken it in. Those of other
// channels do not wait.
func TestMessagesKeepTheirOrder(t *testing.T) {
	ctx := within(t, 20*time.Second)
	here, there := nodeHost(t), nodeHost(t)
	read, takenIn := make(chan struct{}, 8), make(chan struct{})
	there.SetStreamHandler(datatransfer.ProtocolDataTransfer1_2, func(s network.Stream) {
		_, _ = io.Copy(io.Discard, s)
		read <- struct{}{}
		<-takenIn
		_ = s.Close()
	})
	connect(t, here, there)
	net := newTransferNet(dtnet.NewFromLibp2pHost(WrapHost(here, HostGuard{}).plain()), TransferGuard{})
	t.Cleanup(net.sends.close)
	send := func(ctx context.Context, transfer datatransfer.TransferID, paused bool) error {
		m, err := message.CompleteResponse(transfer, true, paused, nil)
		if err != nil {
			t.Fatal(err)
		}
		return net.SendMessage(ctx, there.ID(), m)
	}
	if err := send(ctx, 7, true); err != nil {
		t.Fatal(err)
	}
	<-read
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond) // nothing tells of what is not sent
	defer cancel()
	if err := send(soon, 7, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second message of a channel did not wait for the first: %v", err)
	}
	if err := send(ctx, 8, true); err != nil {
		t.Errorf("a message of another channel: %v", err)
	}
	<-read
	close(takenIn)
	if err := send(ctx, 7, false); err != nil {
		t.Fatal(err)
	}
	<-read
}
