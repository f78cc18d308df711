package selectors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/tollgraph/tollgraph/selectors"
)

// memory returns a link system over blocks in memory.
func memory() ipld.LinkSystem {
	blocks := map[datamodel.Link][]byte{}
	ls := cidlink.DefaultLinkSystem()
	ls.StorageReadOpener = func(_ linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		if data, ok := blocks[l]; ok {
			return bytes.NewBuffer(data), nil
		}
		return nil, errors.New("not found")
	}
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l datamodel.Link) error { blocks[l] = buf.Bytes(); return nil }, nil
	}
	selectors.AddReifiers(&ls)
	return ls
}

// A directory with one file of 100,000 bytes: what does which part of it cost?
func ExampleMeasure() {
	ls := memory()
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(i ^ i>>8)
	}
	file, size, err := builder.BuildUnixFSFile(bytes.NewReader(data), "size-10000", &ls)
	if err != nil {
		panic(err)
	}
	link, err := builder.BuildUnixFSDirectoryEntry("report", int64(size), file)
	if err != nil {
		panic(err)
	}
	dir, _, err := builder.BuildUnixFSDirectory([]dagpb.PBLink{link}, &ls)
	if err != nil {
		panic(err)
	}
	last := int64(24_999)
	whole, _ := selectors.Path("report", selectors.ScopeEntity)
	listing, _ := selectors.Path("", selectors.ScopeEntity)
	part, _ := selectors.EntityBytes("report", 5_000, &last)
	for _, sel := range []datamodel.Node{nil, whole, listing, part} {
		c, err := selectors.Measure(context.Background(), ls, dir.(cidlink.Link).Cid, sel, 1000)
		fmt.Println(c.Blocks, "blocks,", c.Bytes, "bytes,", err)
	}
	// Output:
	// 12 blocks, 100544 bytes, <nil>
	// 12 blocks, 100544 bytes, <nil>
	// 1 blocks, 56 bytes, <nil>
	// 5 blocks, 30544 bytes, <nil>
}

func ExampleParseJSON() {
	sel, err := selectors.ParseJSON(`{"R": {"l": {"none": {}}, ":>": {"a": {">": {"@": {}}}}}}`)
	fmt.Println(selectors.Equal(sel, selectors.All()), err)
	_, err = selectors.ParseJSON(`{"R": {"l": {"depth": 9}, ":>": {"|": [{"a": {">": {"@": {}}}}, {"a": {">": {"@": {}}}}]}}}`)
	fmt.Println(err)
	// Output:
	// true <nil>
	// selector refused: two members of a union explore the same step: merge them below one explore
}

func ExampleCanonical() {
	b, err := selectors.Canonical(nil)
	fmt.Printf("%x %v\n", b, err)
	// Output: a16152a2616ca1646e6f6e65a0623a3ea16161a1613ea16140a0 <nil>
}

func ExamplePath() {
	sel, err := selectors.Path("photos/2024", selectors.ScopeEntity)
	fmt.Println(err, selectors.Check(sel, selectors.Limits{MaxPathSegments: 2}))
	_, err = selectors.Path("photos/../secret", selectors.ScopeAll)
	fmt.Println(err)
	// Output:
	// <nil> <nil>
	// path "photos/../secret": ".." names nothing inside a DAG: write the path from the root
}
