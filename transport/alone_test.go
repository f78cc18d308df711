package transport

import (
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// TestChannelsAlone: a channel is sent, and counts, its own blocks, also those that
// another channel of its peer, which stands at its limit, was sent before: with the same
// deduplication key and without one graphsync would leave them out, and the second
// channel would go beyond its limit by as much.
func TestChannelsAlone(t *testing.T) {
	for name, keys := range map[string][]graphsync.ExtensionData{
		"no key":   nil,
		"same key": {{Name: graphsync.ExtensionDeDupByKey, Data: basicnode.NewString("both")}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 30*time.Second)
			n, d, a := limitedProvider(t)
			w, all := watch(t, n.Transfers()), wholeDAG()
			var ends [2]Progress
			for i := range ends {
				id := datatransfer.TransferID(i + 1)
				a.send(t, ctx, newRequest(d.root, all, append(keys, pull(t, id, false, d.root, all))...))
				e := w.until(t, ctx, "no pause", func(e seen) bool { return e.code == datatransfer.DataLimitExceeded && e.chid.ID == id })
				ends[i] = mustProgress(t, n, e.chid)
			}
			if ends[1].High != ends[0].High || ends[1].Sent != ends[0].Sent {
				t.Errorf("the second channel stops at link %d with %d bytes sent, the first at %d with %d", ends[1].High, ends[1].Sent, ends[0].High, ends[0].Sent)
			}
		})
	}
}
