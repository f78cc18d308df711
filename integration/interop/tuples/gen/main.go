// Command gen writes what encodes and decodes the messages of package tuples.
package main

import (
	"fmt"
	"os"

	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/tollgraph/tollgraph/integration/interop/tuples"
)

func main() {
	err := cbg.WriteTupleEncodersToFile("cbor_gen.go", "tuples", tuples.Piece{}, tuples.Query{}, tuples.Answer{},
		tuples.Terms{}, tuples.Proposal{}, tuples.Response{}, tuples.Payment{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
