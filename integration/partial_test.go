package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// entries is how many files there are in a sharded directory.
const entries = 1200

// entry is the path of one. Names are so long that the directory does not fit in
// one block.
func entry(i int) string { return fmt.Sprintf("many/entry-%04d-%s.txt", i, strings.Repeat("long", 48)) }

// makeTree packs a folder with a sharded directory, a file of some chunks, and a
// nested one.
func makeTree(t *testing.T) (car string, root cid.Cid) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "tree")
	write := func(name string, size int) {
		path := filepath.Join(src, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i*7 + len(name) + i>>8)
		}
		must(t, os.WriteFile(path, data, 0o600))
	}
	write("big file.bin", 5<<20)
	write("a/b/c/deep.txt", 1234)
	write("empty", 0)
	for i := range entries {
		write(entry(i), 50+i%7)
	}
	car = filepath.Join(t.TempDir(), "tree.car")
	res, err := piece.Create(t.Context(), car, []string{src}, piece.CreateOptions{})
	must(t, err)
	return car, res.Root
}

// TestPartial: exactly the blocks of the selection cross the wire, as many as
// the dry run says.
func TestPartial(t *testing.T) {
	t.Parallel()
	car, root := makeTree(t)
	s := newSeller(t, t.TempDir(), newHost(t, true), []string{car}, defaultAsk, voucher.OneFIL)
	info, _ := s.pieces.Find(root, nil)
	path := func(p string) datamodel.Node {
		sel, err := selectors.Path(p, selectors.ScopeAll)
		must(t, err)
		return sel
	}
	for name, sel := range map[string]datamodel.Node{
		"file":          path("big file.bin"),
		"nested":        path("a/b/c/deep.txt"),
		"sharded entry": path(entry(921)),
		"directory":     path("a"),
		"depth 1":       selectors.Depth(1),
		"depth 6":       selectors.Depth(6),
		"whole":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			want, err := selectors.Measure(t.Context(), goods{s.pieces}.LinkSystem(info.ID), root, sel, 1<<20)
			must(t, err)
			if name == "sharded entry" && want.Blocks < 4 { // the root, two shards and the file
				t.Errorf("%d blocks: the directory is not sharded", want.Blocks)
			}
			b := newBuyer(t, t.TempDir())
			got, err := b.Get(within(t, longest), market.Request{
				Provider: market.RetrievalPeer{AddrInfo: s.addr()}, Root: root, Selector: sel, Budget: voucher.OneFIL,
			})
			must(t, err)
			if uint64(got.TotalReceived) != want.Bytes || uint64(got.Expected) != want.Bytes || got.FundsSpent != defaultAsk.PricePerByte.Of(voucher.Bytes(want.Bytes)) {
				t.Errorf("%d bytes received, %d quoted, %s paid; the dry run counts %d", got.TotalReceived, got.Expected, got.FundsSpent, want.Bytes)
			}
			p, err := piece.OpenPartial(b.stores.path(root), root)
			must(t, err)
			defer p.Close()
			// An empty block costs nothing and cannot be carried: every store knows it.
			if got := p.Blocks(); got != want.Blocks && (got+1 != want.Blocks || name != "whole" && name != "depth 6") {
				t.Errorf("%d blocks, the dry run counts %d", p.Blocks(), want.Blocks)
			}
		})
	}
}
