package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

// randomDAG is one thing that is sold: a block, or a tree of lists over blocks.
type randomDAG struct {
	root   cid.Cid
	size   uint64 // of its different blocks
	blocks int
	sealed bool
	seen   map[cid.Cid]bool // while it is made
}

// randomGoods are DAGs in memory, each a piece by itself, and what every client
// is asked for each. They are filled before they are sold.
type randomGoods struct {
	all    map[cid.Cid][]byte
	pieces map[cid.Cid]randomDAG

	mu   sync.Mutex
	asks map[askKey]voucher.Ask // guarded by mu
}

type askKey struct {
	from peer.ID
	root cid.Cid
}

func newGoods() *randomGoods {
	return &randomGoods{all: make(map[cid.Cid][]byte), pieces: make(map[cid.Cid]randomDAG), asks: make(map[askKey]voucher.Ask)}
}

// put keeps a block of dag.
func (g *randomGoods) put(t testing.TB, dag *randomDAG, codec uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.Prefix{Version: 1, Codec: codec, MhType: multihash.SHA2_256, MhLength: -1}.Sum(data)
	must(t, err)
	if !dag.seen[c] {
		dag.seen[c], g.all[c] = true, data
		dag.size += uint64(len(data))
		dag.blocks++
	}
	return c
}

// add makes a DAG whose leaves have the given sizes. mark is in its
// blocks, where they have room. Some leaves are linked twice.
func (g *randomGoods) add(t testing.TB, mark uint64, sealed bool, sizes []int) randomDAG {
	t.Helper()
	r := rand.New(rand.NewPCG(mark, 1))
	noise := rand.NewChaCha8([32]byte{byte(mark), byte(mark >> 8), byte(mark >> 16), 1})
	dag := randomDAG{sealed: sealed, seen: make(map[cid.Cid]bool)}
	dups := 1 + r.IntN(16)
	var level []cid.Cid
	for i, size := range sizes {
		data := make([]byte, size)
		_, _ = noise.Read(data) // never fails
		if size >= 16 {
			binary.BigEndian.PutUint64(data, mark)
			binary.BigEndian.PutUint64(data[8:], uint64(i))
		}
		level = append(level, g.put(t, &dag, cid.Raw, data))
		if len(sizes) > 1 && r.IntN(dups) == 0 {
			level = append(level, level[r.IntN(len(level))])
		}
	}
	for first := len(sizes) != 1; first || len(level) > 1; first = false {
		var up []cid.Cid
		for len(up) == 0 || len(level) > 0 {
			n := min(len(level), 4+r.IntN(120))
			up, level = append(up, g.list(t, &dag, mark, level[:n])), level[n:]
		}
		level = up
	}
	dag.root, dag.seen = level[0], nil
	g.pieces[dag.root] = dag
	return dag
}

// list is a block of links.
func (g *randomGoods) list(t testing.TB, dag *randomDAG, mark uint64, links []cid.Cid) cid.Cid {
	t.Helper()
	n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(links)+1), func(l datamodel.ListAssembler) {
		qp.ListEntry(l, qp.Int(int64(mark&math.MaxInt64)))
		for _, c := range links {
			qp.ListEntry(l, qp.Link(cidlink.Link{Cid: c}))
		}
	})
	must(t, err)
	var buf bytes.Buffer
	must(t, dagcbor.Encode(n, &buf))
	return g.put(t, dag, cid.DagCBOR, buf.Bytes())
}

// random makes a DAG of random shape, at most 6 MiB.
func (g *randomGoods) random(t testing.TB, mark uint64, r *rand.Rand) randomDAG {
	t.Helper()
	block := logUniform(r, 1, 2<<20)
	blocks := logUniform(r, 1, min(1500, max(1, (6<<20)/block)))
	sizes := make([]int, blocks)
	for i := range sizes {
		sizes[i] = 1 + r.IntN(2*block)
		sizes[i] = min(sizes[i], 2<<20)
	}
	switch r.IntN(12) {
	case 0: // a list of nothing
		sizes = nil
	case 1:
		sizes[0] = 0
	}
	return g.add(t, mark, r.IntN(3) == 0, sizes)
}

// logUniform draws from lo to hi, as often from each doubling.
func logUniform(r *rand.Rand, lo, hi int) int {
	x := math.Log(float64(lo)) + r.Float64()*(math.Log(float64(hi)+1)-math.Log(float64(lo)))
	return min(hi, max(lo, int(math.Exp(x))))
}

// charge sets what one client is asked for one DAG from now on.
func (g *randomGoods) charge(from peer.ID, root cid.Cid, ask voucher.Ask) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asks[askKey{from, root}] = ask
}

func (g *randomGoods) price(in market.PricingInput) voucher.Ask {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asks[askKey{in.Client, in.Payload.PayloadCID}]
}

// sell makes a provider sell g.
func (g *randomGoods) sell(c *market.ProviderConfig) { c.Pieces, c.Pricing = g, g.price }

func (g *randomGoods) Find(payload cid.Cid, want *cid.Cid) (market.Piece, bool) {
	dag, ok := g.pieces[payload]
	if !ok || want != nil && *want != payload {
		return market.Piece{}, false
	}
	return market.Piece{ID: payload, Size: voucher.Bytes(dag.size), Sealed: dag.sealed}, true
}

func (g *randomGoods) LinkSystem(cid.Cid) ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = true
	ls.StorageReadOpener = func(_ ipld.LinkContext, l datamodel.Link) (io.Reader, error) {
		link, ok := l.(cidlink.Link)
		data, held := g.all[link.Cid]
		if !ok || !held {
			return nil, fmt.Errorf("no block %s", l)
		}
		return bytes.NewBuffer(data), nil
	}
	return ls
}

func (g *randomGoods) BlockSize(c cid.Cid) (uint64, bool) {
	data, ok := g.all[c]
	return uint64(len(data)), ok
}

// Unseal takes a moment.
func (g *randomGoods) Unseal(ctx context.Context, _ cid.Cid) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
