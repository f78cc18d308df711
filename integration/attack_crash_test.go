package integration

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/filecoin-project/go-data-transfer/v2/transport/graphsync/extension"
	"github.com/ipfs/go-graphsync"
	gsmsg "github.com/ipfs/go-graphsync/message"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"github.com/tollgraph/tollgraph/voucher"
)

// unservedWord is what a child says when its provider serves nobody any more.
const unservedWord = "nobody is served"

// killers are single requests that end a plain provider: by a panic on a
// goroutine that recovers from nothing, or by a lock that it waits for itself.
var killers = map[string]func(t *testing.T, s *shop) gsmsg.GraphSyncRequest{
	"null extension": func(t *testing.T, s *shop) gsmsg.GraphSyncRequest {
		return gsRequest(s.deal, pullMessage(t, 7, false, s.deal), graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: datamodel.Null})
	},
	"null skip": func(t *testing.T, s *shop) gsmsg.GraphSyncRequest {
		return gsRequest(s.deal, pullMessage(t, 7, false, s.deal), graphsync.ExtensionData{Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: datamodel.Null})
	},
	"null list of blocks": func(t *testing.T, s *shop) gsmsg.GraphSyncRequest {
		return gsRequest(s.deal, pullMessage(t, 7, false, s.deal), graphsync.ExtensionData{Name: graphsync.ExtensionDoNotSendCIDs, Data: datamodel.Null})
	},
	"no selector": func(_ *testing.T, s *shop) gsmsg.GraphSyncRequest {
		return gsmsg.NewRequest(graphsync.NewRequestID(), s.deal, nil, 0)
	},
	"cancel extension": func(t *testing.T, s *shop) gsmsg.GraphSyncRequest {
		return gsRequest(s.deal, dtExt(t, message.CancelRequest(7)))
	},
}

// TestAttackKillers sends them. Each ends a plain provider; a seller takes all of
// them and serves on.
func TestAttackKillers(t *testing.T) {
	t.Parallel()
	for name := range killers {
		t.Run("plain/"+name, func(t *testing.T) {
			t.Parallel()
			out, err := inChild(t, "TestPlainKilled", name)
			if dead := err != nil && strings.Contains(out, "panic"); !dead && !strings.Contains(out, unservedWord) {
				t.Errorf("the plain stack stood it: %v\n%s", err, out)
			}
		})
	}
	t.Run("tollgraph", func(t *testing.T) {
		s := newShop(t)
		ctx := within(t, longest)
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
		for name, k := range killers {
			r := newRaider(t, sel.host)
			r.send(ctx, k(t, s))
			if got := r.loot(ctx, s); got.total != 0 {
				t.Errorf("%s: got %+v", name, got)
			}
		}
		honestSale(t, ctx, sel, s.deal, s.dealSize)
	})
}

// TestPlainKilled is the other half of TestAttackKillers.
func TestPlainKilled(t *testing.T) {
	name, is := isChild(t)
	if !is {
		t.Skip("run by TestAttackKillers")
	}
	s := newShop(t)
	p := newPlain(t, s.links(), shopInterval)
	r := newRaider(t, p.host)
	r.send(t.Context(), killers[name](t, s))
	// Served, it takes some milliseconds.
	ctx := within(t, 4*time.Second)
	honest := newRaider(t, p.host)
	q := gsRequest(s.deal, pullMessage(t, 8, false, s.deal))
	honest.send(ctx, q)
	if st := honest.answered(ctx, q.ID()); st == 0 {
		fmt.Println(unservedWord)
	}
	os.Exit(0) // what hangs cannot be stopped
}

// wide is a selector with an integer that does not fit in an int64. Comparing it
// with go-ipld-prime's DeepEqual panics.
func wideSelector(t *testing.T) datamodel.Node {
	t.Helper()
	n, err := qp.BuildMap(basicnode.Prototype.Any, 1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "R", qp.Map(2, func(m datamodel.MapAssembler) {
			qp.MapEntry(m, "l", qp.Map(1, func(m datamodel.MapAssembler) {
				qp.MapEntry(m, "depth", qp.Node(basicnode.NewUint(math.MaxUint64)))
			}))
			qp.MapEntry(m, ":>", qp.Map(0, func(datamodel.MapAssembler) {}))
		}))
	})
	must(t, err)
	return n
}

// nested is n lists in one another.
func nested(t *testing.T, n int) datamodel.Node {
	t.Helper()
	node := datamodel.Node(basicnode.NewInt(1))
	for range n {
		inner := node
		var err error
		node, err = qp.BuildList(basicnode.Prototype.List, 1, func(l datamodel.ListAssembler) { qp.ListEntry(l, qp.Node(inner)) })
		must(t, err)
	}
	return node
}

// malformed are requests and bytes that no honest client sends. The plain stack
// stands them too: its decoders stop at 4 MiB, 1,024 levels and 10 MiB of memory,
// and a selector that does not compile ends its request only.
func malformed(ctx context.Context, t *testing.T, r *raider, s *shop) {
	wide := wideSelector(t)
	v := proposalFor(t, 7, s.deal, wide)
	m, err := message.NewRequest(7, false, true, &v, s.deal, wide)
	must(t, err)
	r.send(ctx, gsmsg.NewRequest(graphsync.NewRequestID(), s.deal, wide, 0, dtExt(t, m)))
	r.send(ctx, gsRequest(s.deal, graphsync.ExtensionData{Name: extension.ExtensionDataTransfer1_1, Data: basicnode.NewUint(math.MaxUint64)}))
	r.send(ctx, gsRequest(s.deal, graphsync.ExtensionData{Name: extension.ExtensionDataTransfer1_1, Data: nested(t, 900)}))
	r.send(ctx, gsmsg.NewRequest(graphsync.NewRequestID(), s.deal, nested(t, 900), 0, pullMessage(t, 8, false, s.deal)))
	r.send(ctx, gsmsg.NewUpdateRequest(graphsync.NewRequestID(), graphsync.ExtensionData{Name: extension.ExtensionDataTransfer1_1, Data: datamodel.Null}))
	for _, raw := range [][]byte{
		append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x0f}, make([]byte, 64)...),       // a length of 512 GiB
		append([]byte{0x80, 0x80, 0x80, 0x02}, make([]byte, 4<<20)...),                // 4 MiB of zeros
		append([]byte{0x90, 0x4e}, []byte(strings.Repeat("\x81", 10_000))...),         // lists, 10,000 deep
		append([]byte{0x8b, 0x01}, []byte("\x9b\xff\xff\xff\xff\xff\xff\xff\xff")...), // a list of 1<<64-1 entries, cut short
		{0x05, 0xa1},
		{},
	} {
		for _, proto := range []string{"/ipfs/graphsync/2.0.0", string(datatransfer.ProtocolDataTransfer1_2), "/tollgraph/payment/1.0.0", voucher.QueryProtocol} {
			r.sendRaw(ctx, proto, raw)
		}
	}
}

// TestAttackMalformed sends them, and takes an honest request or sale for the
// sign of life.
func TestAttackMalformed(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ctx := within(t, longest)
	t.Run("plain", func(t *testing.T) {
		p := newPlain(t, s.links(), shopInterval)
		malformed(ctx, t, newRaider(t, p.host), s)
		honest := newRaider(t, p.host)
		q := gsRequest(s.deal, pullMessage(t, 9, false, s.deal))
		honest.ask(ctx, q)
		if honest.answered(ctx, q.ID()) != graphsync.RequestPaused {
			t.Error("the plain stack does not stand this: say so")
		}
	})
	t.Run("tollgraph", func(t *testing.T) {
		sel := newSeller(t, t.TempDir(), newHost(t, true), s.cars, shopAsk, voucher.OneFIL)
		r := newRaider(t, sel.host)
		malformed(ctx, t, r, s)
		if got := r.loot(ctx, s); got.total != 0 {
			t.Errorf("got %+v", got)
		}
		if n := sel.node.Dropped()["panic"]; n != 0 {
			t.Errorf("%d panics were recovered from", n)
		}
		honestSale(t, ctx, sel, s.deal, s.dealSize)
	})
}
