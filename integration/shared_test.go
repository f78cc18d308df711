package integration

import (
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// TestSharedBlocks buys files at once that are made of the same few blocks, each
// many times over. Graphsync's messages carry the blocks of all requests
// together, and its requestor takes a repeated link for one whose block has come
// again where another request's copy is in the message: a client that counted
// what it is handed paid for blocks twice.
func TestSharedBlocks(t *testing.T) {
	t.Parallel()
	const files, chunk = 6, 2 << 10
	r := mrand.New(mrand.NewPCG(1, 2))
	patterns := make([][]byte, 24)
	for i := range patterns {
		patterns[i] = make([]byte, chunk)
		for j := range patterns[i] {
			patterns[i][j] = byte(r.Uint32())
		}
	}
	type goods struct {
		root cid.Cid
		size uint64
	}
	var sold []goods
	var cars []string
	for i := range files {
		var data []byte
		for range 900 {
			data = append(data, patterns[r.IntN(len(patterns))]...)
		}
		dir := t.TempDir()
		src, car := filepath.Join(dir, fmt.Sprint(i)), filepath.Join(dir, "data.car")
		must(t, os.WriteFile(src, data, 0o600))
		made, err := piece.Create(t.Context(), car, []string{src}, piece.CreateOptions{ChunkSize: chunk})
		must(t, err)
		cars, sold = append(cars, car), append(sold, goods{made.Root, made.Bytes})
	}
	s := newSeller(t, t.TempDir(), newHost(t, true), cars, voucher.Ask{PricePerByte: 3, PaymentInterval: 8 << 10}, voucher.OneFIL)
	b := newBuyer(t, t.TempDir())
	ctx := within(t, longest)
	var all sync.WaitGroup
	for _, g := range sold {
		all.Go(func() {
			d, err := b.Get(ctx, market.Request{Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: g.root, Budget: voucher.OneFIL, AtRisk: risk(0)})
			if err != nil || uint64(d.TotalReceived) != g.size || d.FundsSpent != voucher.Atto(3*g.size) {
				t.Errorf("%d bytes for %s, want %d for %d: %v", d.TotalReceived, d.FundsSpent, g.size, 3*g.size, err)
			}
		})
	}
	all.Wait()
}
