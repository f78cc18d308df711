package integration

import (
	"crypto/rand"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// reached is closed when a channel of s has come so far by the given count.
func (s site) reached(t *testing.T, count func(datatransfer.ChannelState) uint64, bytes int) <-chan struct{} {
	t.Helper()
	there := make(chan struct{})
	tell := once(func() { close(there) })
	t.Cleanup(s.transfers.SubscribeToEvents(func(_ datatransfer.Event, st datatransfer.ChannelState) {
		if count(st) >= uint64(bytes) {
			tell()
		}
	}))
	return there
}

// TestRestartBehindALoss: what a provider wrote to a connection before it broke
// is lost, and the connection is there again before the client, a plain stack,
// restarts the channel. A provider that went on with the old response behind the
// gap would look malicious to the client, which would fail the channel for good.
func TestRestartBehindALoss(t *testing.T) {
	t.Parallel()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(t, err)
	seller, shelf := homemadeOn(t, hiddenHost(t, key), true)
	buyer, _ := homemade(t, false)
	const name = "program/one/1"
	newTrade(t, seller.transfers, name, nil)
	mine := newTrade(t, buyer.transfers, name, nil)
	root, size := shelf.fill(t, 48, 1)
	network, addr := proxyTo(t, seller.host)
	ctx := within(t, longest)
	must(t, buyer.host.Connect(ctx, addr))

	const first, lost = 16, 1 // blocks, besides the root; more than a stream's window would not be written
	shelf.shutAfter(1 + first)
	arrived := buyer.reached(t, datatransfer.ChannelState.Received, first<<16)
	written := seller.reached(t, datatransfer.ChannelState.Sent, (first+lost)<<16)
	chid, ended, err := mine.open(ctx, buyer, false, seller.host.ID(), root)
	must(t, err)
	happens(t, arrived, "what was sent arrived")
	network.silence(true)
	shelf.shutAfter(lost)
	happens(t, written, "what is lost was written")
	network.cut()
	network.silence(false)
	reconnect(t, buyer, addr)
	shelf.shutAfter(0)
	select { // time for a provider that would go on
	case st := <-ended:
		t.Fatalf("the channel is %s: %s", st.Status(), st.Message())
	case <-time.After(2 * time.Second):
	}
	must(t, buyer.transfers.RestartDataTransferChannel(ctx, chid))
	select {
	case st := <-ended:
		if st.Status() != datatransfer.Completed || st.Received() != uint64(size) {
			t.Errorf("%s: %s, %d bytes of %d", st.Status(), st.Message(), st.Received(), size)
		}
	case <-ctx.Done():
		t.Error("the restarted channel does not end")
	}
}

// reconnect connects again to a peer that cannot know yet that it was cut off.
func reconnect(t *testing.T, s site, addr peer.AddrInfo) {
	t.Helper()
	for _, c := range s.host.Network().ConnsToPeer(addr.ID) {
		_ = c.Close() // the proxy has
	}
	s.host.Peerstore().AddAddrs(addr.ID, addr.Addrs, peerstore.PermanentAddrTTL)
	must(t, s.host.Connect(within(t, longest), addr))
}

// happens waits for what must happen soon.
func happens(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("not in time: %s", what)
	}
}
