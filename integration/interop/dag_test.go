package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multihash"

	"github.com/tollgraph/tollgraph/piece"
)

// blocks is a store in memory. It may be used concurrently.
type blocks struct {
	mu   sync.Mutex
	all  map[string][]byte // guarded by mu
	gate *gate             // guarded by mu; what reads pass
}

// gate lets so many bytes through and then holds the reader until it is
// released. A nil gate is open.
type gate struct {
	mu       sync.Mutex
	left     int64 // guarded by mu
	reached  chan struct{}
	released chan struct{}
	release  func()
}

func newGate(t testing.TB, bytes uint64) *gate {
	g := &gate{left: int64(bytes), reached: make(chan struct{}), released: make(chan struct{})}
	g.release = sync.OnceFunc(func() { close(g.released) })
	t.Cleanup(g.release)
	return g
}

// pass waits at the gate with n bytes, at most until ctx ends.
func (g *gate) pass(ctx context.Context, n int) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	before := g.left
	g.left -= int64(n)
	shut := g.left <= 0
	g.mu.Unlock()
	if !shut {
		return nil
	}
	if before > 0 {
		close(g.reached)
	}
	select {
	case <-g.released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newBlocks() *blocks { return &blocks{all: make(map[string][]byte)} }

var errNotHeld = errors.New("block not held")

func (b *blocks) links() ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.TrustedStorage = false
	ls.StorageReadOpener = func(c ipld.LinkContext, l datamodel.Link) (io.Reader, error) {
		b.mu.Lock()
		data, ok := b.all[l.Binary()]
		g := b.gate
		b.mu.Unlock()
		if !ok {
			return nil, errNotHeld
		}
		if err := g.pass(c.Ctx, len(data)); err != nil {
			return nil, err
		}
		return bytes.NewReader(data), nil
	}
	ls.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l datamodel.Link) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.all[l.Binary()] = bytes.Clone(buf.Bytes())
			return nil
		}, nil
	}
	return ls
}

// size is the sum of the blocks held.
func (b *blocks) size() (n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, data := range b.all {
		n += uint64(len(data))
	}
	return n
}

// chain is a DAG of blocks of exactly the given sizes, each linking to the
// next, so that every walk reads them in that order. The last is a raw block.
type chain struct {
	*blocks
	root cid.Cid
}

func newChain(t testing.TB, sizes ...int) chain {
	t.Helper()
	c := chain{blocks: newBlocks()}
	ls := c.links()
	random := rand.NewChaCha8([32]byte{byte(len(sizes)), byte(sizes[0])})
	var next datamodel.Link
	for i := len(sizes) - 1; i >= 0; i-- {
		proto := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32}}
		data := make([]byte, sizes[i])
		_, _ = random.Read(data) // never fails
		var node datamodel.Node = basicnode.NewBytes(data)
		if next != nil {
			proto.Codec = cid.DagCBOR
			node = linkedNode(t, data, next)
		}
		var err error
		next, err = ls.Store(ipld.LinkContext{Ctx: context.Background()}, proto, node)
		must(t, err)
	}
	c.root = next.(cidlink.Link).Cid
	return c
}

// linkedNode is {"d": bytes, "n": link}, of as many bytes as data has.
func linkedNode(t testing.TB, data []byte, next datamodel.Link) datamodel.Node {
	t.Helper()
	for fit := len(data); fit > 0; fit-- {
		n := mapOf(t, []string{"d", "n"}, []datamodel.Node{basicnode.NewBytes(data[:fit]), basicnode.NewLink(next)})
		if len(marshal(t, n)) == len(data) {
			return n
		}
	}
	t.Fatalf("no block of %d bytes holds a link", len(data))
	return nil
}

// car writes the chain as a piece and returns its path.
func (c chain) car(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chain.car")
	f, err := os.Create(path)
	must(t, err)
	_, _, err = piece.WriteCAR(t.Context(), c.links(), c.root, nil, f)
	must(t, err)
	must(t, f.Close())
	return path
}

// times is n blocks of one size.
func times(n, size int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
