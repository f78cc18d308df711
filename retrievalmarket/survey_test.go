package retrievalmarket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"pgregory.net/rapid"

	"github.com/tollgraph/tollgraph/selectors"
)

// memory is blocks in memory.
type memory map[cid.Cid][]byte

// linkSystem reads m. Every block that is asked for is told to seen.
func (m memory) linkSystem(seen func(cid.Cid)) ipld.LinkSystem {
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(_ linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		c := l.(cidlink.Link).Cid
		seen(c)
		if data, ok := m[c]; ok {
			return bytes.NewBuffer(data), nil
		}
		return nil, errors.New("not held")
	}
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l datamodel.Link) error {
			m[l.(cidlink.Link).Cid] = buf.Bytes()
			return nil
		}, nil
	}
	return withUnixFS(ls)
}

func nobody(cid.Cid) {}

// walked is the order in which a selection is asked for.
func (m memory) walked(t *rapid.T, root cid.Cid, sel datamodel.Node) (order []cid.Cid) {
	ls := m.linkSystem(func(c cid.Cid) { order = append(order, c) })
	if _, err := selectors.Measure(context.Background(), ls, root, sel, 0); err != nil {
		t.Fatal(err)
	}
	return order
}

// buy adds to held what a deal brings from m, and returns how many bytes that
// were, and whether any of them were held already.
func (m memory) buy(t *rapid.T, held memory, root cid.Cid, sel datamodel.Node) (n int, twice bool) {
	_, count, err := selectors.Complete(context.Background(), held.linkSystem(nobody), root, sel, 0)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(map[cid.Cid]bool)
	for i, c := range m.walked(t, root, sel) {
		if !sent[c] && uint64(i) >= count.Links {
			n += len(m[c])
			twice = twice || held[c] != nil
			held[c] = m[c]
		}
		sent[c] = true
	}
	return n, twice
}

// some returns blocks of m of which all that lead to them are held too: some of
// those below root.
func (m memory) some(t *rapid.T, root cid.Cid) memory {
	held := make(memory)
	s := survey{ls: m.linkSystem(nobody)}
	var walk func(cid.Cid)
	walk = func(c cid.Cid) {
		held[c] = m[c]
		if c.Prefix().Codec == cid.Raw {
			return
		}
		node, err := s.decode(c, m[c])
		if err != nil {
			t.Fatal(err)
		}
		links, err := linksOf(node, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if rapid.IntRange(0, 9).Draw(t, "held") < 5 {
				walk(l.cid)
			}
		}
	}
	walk(root)
	return held
}

// TestSurvey: whatever is held of a file, and whatever of it is wanted, the deals
// that a survey comes to bring everything that is missing, and nothing that is
// not.
func TestSurvey(t *testing.T) {
	width := builder.DefaultLinksPerBlock
	t.Cleanup(func() { builder.DefaultLinksPerBlock = width })
	rapid.Check(t, func(t *rapid.T) {
		builder.DefaultLinksPerBlock = rapid.SampledFrom([]int{2, 7, 40, 400}).Draw(t, "width")
		all := make(memory)
		ls := all.linkSystem(nobody)
		content := make([]byte, rapid.IntRange(2, 600).Draw(t, "size"))
		for i := range content {
			content[i] = byte(i>>8) + byte(i*7)
		}
		link, _, err := builder.BuildUnixFSFile(bytes.NewReader(number(content)), "size-9", &ls)
		if err != nil {
			t.Fatal(err)
		}
		root := link.(cidlink.Link).Cid
		held := all.some(t, root)
		size := int64(len(number(content)))
		r := Request{Root: root}
		switch rapid.IntRange(0, 3).Draw(t, "wanted") {
		case 0:
			r.Selector, err = selectors.Path("", selectors.ScopeEntity)
		case 1, 2:
			from := rapid.Int64Range(-size, size-1).Draw(t, "from")
			to := rapid.Int64Range(from, max(-1, size)).Draw(t, "to")
			r.Selector, err = selectors.EntityBytes("", from, &to)
		}
		if err != nil {
			t.Skip(err)
		}
		missing, here := 0, Bytes(0)
		for c := range distinct(all.walked(t, root, r.Selector)) {
			if held[c] == nil {
				missing += len(all[c])
			} else {
				here += Bytes(len(all[c]))
			}
		}
		plain := rapid.Bool().Draw(t, "plain")
		gaps, counted, err := gapsIn(context.Background(), held.linkSystem(nobody), r, plain)
		if err != nil {
			t.Fatal(err)
		}
		if plain {
			all.buyPlain(t, held, gaps, missing)
			return
		}
		if len(gaps) > 0 && counted != here {
			t.Fatalf("%d bytes are held, %d counted", here, counted)
		}
		got := 0
		for _, g := range append(gaps, gap{root: root, node: orAll(r.Selector)}) {
			if err := selectors.Check(g.selector(), selectors.Limits{}); err != nil {
				t.Fatal(err)
			}
			n, twice := all.buy(t, held, g.root, g.selector())
			if got += n; twice {
				t.Fatalf("%+v buys again what is held", g)
			}
		}
		if got != missing {
			t.Fatalf("%d bytes were missing, %d bought", missing, got)
		}
	})
}

// buyPlain buys gaps of which nothing can be left out: what is missing comes once,
// and of what is held no more than the block at the root of a gap.
func (m memory) buyPlain(t *rapid.T, held memory, gaps []gap, missing int) {
	got := 0
	for _, g := range gaps {
		if err := selectors.Check(g.selector(), selectors.Limits{}); err != nil {
			t.Fatal(err)
		}
		for i, c := range m.walked(t, g.root, g.selector()) {
			switch {
			case held[c] == nil:
				got += len(m[c])
				held[c] = m[c]
			case i != 0 || len(g.runs) == 0:
				t.Fatalf("%+v brings %s again", g, c)
			case len(g.runs) == 1 && g.runs[0].end == g.runs[0].begin+1 && len(gaps) == 1:
				t.Fatalf("%+v brings its root again for one link", g)
			}
		}
	}
	if got != missing {
		t.Fatalf("%d bytes were missing, %d bought", missing, got)
	}
}

func orAll(sel datamodel.Node) datamodel.Node {
	if sel == nil {
		return selectors.All()
	}
	return sel
}

// number makes content of which no nine bytes are the same.
func number(content []byte) []byte {
	var out bytes.Buffer
	for i, b := range content {
		fmt.Fprintf(&out, "%08d%c", i, 'a'+b%26)
	}
	return out.Bytes()
}

func distinct(order []cid.Cid) map[cid.Cid]bool {
	set := make(map[cid.Cid]bool)
	for _, c := range order {
		set[c] = true
	}
	return set
}

// TestGapsOf: many gaps in one block are divided among few deals, and no selector
// is larger than providers allow.
func TestGapsOf(t *testing.T) {
	var alternate []run
	for i := range 500 {
		alternate = append(alternate, run{2 * i, 2*i + 1})
	}
	c := cid.NewCidV1(cid.DagProtobuf, []byte{0, 0})
	for name, tc := range map[string]struct {
		missing []run
		deals   int
		links   int
	}{
		"one link":       {[]run{{3, 4}}, 1, 1},
		"two runs":       {[]run{{3, 4}, {6, 9}}, 1, 4},
		"every other":    {alternate, 13, 500},
		"a long one":     {[]run{{0, 2500}}, 3, 2500},
		"long and short": {[]run{{1, 2}, {4, 40}, {50, 51}}, 2, 38},
	} {
		gaps, links := gapsOf(c, tc.missing), 0
		for _, g := range gaps {
			for _, r := range g.runs {
				links += r.end - r.begin
			}
			if err := selectors.Check(g.selector(), selectors.Limits{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(gaps) != tc.deals || links != tc.links {
			t.Errorf("%s: %d deals for %d links, want %d for %d", name, len(gaps), links, tc.deals, tc.links)
		}
	}
}
