package selectors

import (
	"strings"

	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// ParseJSON reads a selector written in DAG-JSON, such as
//
//	{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}}}}
//
// and checks it with the default Limits. Errors wrap ErrRefused.
func ParseJSON(s string) (datamodel.Node, error) {
	if len(s) > DefaultMaxSelectorBytes {
		return nil, refuse("%d bytes of JSON, at most %d are read", len(s), DefaultMaxSelectorBytes)
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := dagjson.Decode(nb, strings.NewReader(s)); err != nil {
		return nil, refuse("read JSON: %w", err)
	}
	sel := nb.Build()
	if sel.IsNull() {
		return nil, refuse("JSON null is no selector: leave it out to select everything")
	}
	if err := Check(sel, Limits{}); err != nil {
		return nil, err
	}
	return sel, nil
}
