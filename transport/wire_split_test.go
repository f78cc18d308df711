package transport

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"pgregory.net/rapid"
)

// story is what a receiver learns from messages, in order: per response its
// links, each with the block that came with it, its extensions and its status.
type story map[graphsync.RequestID]string

func tell(messages []gsmsg.GraphSyncMessage) story {
	s := make(story)
	status := make(story)
	for _, m := range messages {
		data := make(map[cid.Cid]string)
		for _, b := range m.Blocks() {
			data[b.Cid()] = fmt.Sprintf("%x", b.RawData())
		}
		for _, r := range m.Responses() {
			id := r.RequestID()
			s[id] += describeExtensions(r)
			seen := make(map[cid.Cid]bool)
			r.Metadata().Iterate(func(c cid.Cid, a graphsync.LinkAction) {
				block := ""
				if a == graphsync.LinkActionPresent && !seen[c] {
					block, seen[c] = data[c], true
				}
				s[id] += fmt.Sprintf(" %s:%s:%s", c, a, block)
			})
			status[id] = fmt.Sprint(r.Status())
		}
		for _, r := range m.Requests() {
			s[r.ID()] += describe(gsmsg.NewMessage(map[graphsync.RequestID]gsmsg.GraphSyncRequest{r.ID(): r}, nil, nil))
		}
	}
	for id, last := range status {
		s[id] += " ends " + last
	}
	return s
}

func TestSplitLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t, 4)
		size := rapid.IntRange(1, 3000).Draw(t, "size")
		parts := splitMessage(m, size)
		want, got := tell([]gsmsg.GraphSyncMessage{m}), tell(parts)
		if len(want) != len(got) {
			t.Fatalf("%d requests and responses, want %d", len(got), len(want))
		}
		for id := range want {
			if want[id] != got[id] {
				t.Fatalf("got  %s\nwant %s", got[id], want[id])
			}
		}
	})
}

// TestSplitSend sends more links at once than a message may hold.
func TestSplitSend(t *testing.T) {
	const links, most = 3000, 32 << 10
	synctest.Test(t, func(t *testing.T) {
		id := graphsync.NewRequestID()
		var meta []gsmsg.GraphSyncLinkMetadatum
		for i := range links {
			meta = append(meta, gsmsg.GraphSyncLinkMetadatum{
				Link: numbered(i, 10).Blocks()[0].Cid(), Action: graphsync.LinkActionDuplicateNotSent})
		}
		m := gsmsg.NewMessage(nil, map[graphsync.RequestID]gsmsg.GraphSyncResponse{
			id: gsmsg.NewResponse(id, graphsync.RequestCompletedFull, meta)}, nil)
		var got []gsmsg.GraphSyncMessage
		r := &recorder{gate: func(m gsmsg.GraphSyncMessage) { got = append(got, m) }}
		_, _, far := receiving(NetworkConfig{MaxMessageSize: most}, r)
		s := &fastSender{net: NewNetwork(nil, NetworkConfig{MaxMessageSize: most}).(*fastNetwork), s: streamOver{far}, stall: 1 << 40}
		if err := s.SendMsg(context.Background(), m); err != nil {
			t.Fatal(err)
		}
		_ = far.Close()
		synctest.Wait()
		if want := tell([]gsmsg.GraphSyncMessage{m})[id]; tell(got)[id] != want {
			t.Error("the parts do not mean what the whole does")
		}
		if len(got) < links*40/most || len(got) > links*120/most {
			t.Errorf("%d parts", len(got))
		}
	})
}
