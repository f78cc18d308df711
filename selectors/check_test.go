package selectors

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

const stopAt = `{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}},"!":{"/":{"/":"bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"}}}}`

// json decodes without any check.
func json(s string) datamodel.Node {
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := dagjson.Decode(nb, strings.NewReader(s)); err != nil {
		panic(err)
	}
	return nb.Build()
}

func TestCheckPasses(t *testing.T) {
	for _, s := range []string{
		allJSON, entityJSON, stopAt, `{".":{}}`, `{"a":{">":{".":{}}}}`,
		`{"R":{"l":{"none":{}},":>":{"|":[{".":{}},{"a":{">":{"@":{}}}}]}}}`,
		`{"R":{"l":{"none":{}},":>":{"|":[{"a":{">":{"@":{}}}},{".":{}}]}}}`,
		`{"R":{"l":{"depth":1024},":>":{"f":{"f>":{"next":{"@":{}}}}}}}`,
		`{"R":{"l":{"depth":7},":>":{"|":[{"f":{"f>":{"Parents":{"a":{">":{"@":{}}}}}}},{"f":{"f>":{"Messages":{"a":{">":{".":{}}}}}}}]}}}`,
		`{"f":{"f>":{"Links":{"|":[{".":{}},{"f":{"f>":{"0":{"f":{"f>":{"Hash":` + allJSON + `}}}}}}]}}}}`,
		`{"~":{"as":"unixfs-preload",">":{".":{}}}}`,
		`{"i":{"i":3,">":{".":{}}}}`, `{"r":{"^":0,"$":100,">":` + allJSON + `}}`,
		`{"|":[{"i":{"i":3,">":{".":{}}}},{"i":{"i":4,">":{".":{}}}}]}`,
		`{"R":{"l":{"depth":5},":>":{"f":{"f>":{"a":{"@":{}},"b":` + allJSON + `}}}}}`,
		`{".":{"subset":{"[":-5,"]":-1}}}`,
		`{"|":[]}`,
	} {
		if err := Check(json(s), Limits{}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := Check(nil, Limits{}); err != nil {
		t.Errorf("nil: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	for s, why := range map[string]string{
		`{}`:                                    "map of one entry",
		`[]`:                                    "map of one entry",
		`"a"`:                                   "map of one entry",
		`{"x":{}}`:                              "no kind of selector",
		`{"&":{}}`:                              "no kind of selector",
		`{".":{},"a":{}}`:                       "map of one entry",
		`{".":[]}`:                              "must be a map",
		`{".":{"subset":{"[":9,"]":3}}}`:        "less than or equal",
		`{"a":{}}`:                              "without a",
		`{"a":3}`:                               "without a",
		`{"f":{"f>":[]}}`:                       "without a map",
		`{"@":{}}`:                              "outside a recursion",
		`{"a":{">":{"@":{}}}}`:                  "outside a recursion",
		`{"R":{"l":{"none":{}},":>":{".":{}}}}`: "explore everything",
		`{"R":{"l":{"depth":5},":>":{".":{}}}}`: "at least one ExploreRecursiveEdge",
		`{"R":{"l":{"depth":5},":>":{"@":{}}}}`: "without a step",
		`{"R":{"l":{"depth":5},":>":{"|":[{"@":{}},{".":{}}]}}}`:                                "without a step",
		`{"R":{"l":{"depth":5},":>":{"~":{"as":"unixfs",">":{"@":{}}}}}}`:                       "without a step",
		`{"R":{"l":{"depth":1025},":>":{"a":{">":{"@":{}}}}}}`:                                  "above 1024",
		`{"R":{"l":{"depth":-1},":>":{"a":{">":{"@":{}}}}}}`:                                    "above 1024",
		`{"R":{"l":{"depth":"1"},":>":{"a":{">":{"@":{}}}}}}`:                                   "no number",
		`{"R":{"l":{"some":1},":>":{"a":{">":{"@":{}}}}}}`:                                      "no limit",
		`{"R":{":>":{"a":{">":{"@":{}}}}}}`:                                                     "without a limit",
		`{"R":{"l":{"depth":1}}}`:                                                               "without a sequence",
		`{"R":{"l":{"none":{}},":>":{"f":{"f>":{"next":{"@":{}}}}}}}`:                           "explore everything",
		`{"R":{"l":{"none":{}},":>":{"a":{">":{"a":{">":{"@":{}}}}}}}}`:                         "explore everything",
		`{"R":{"l":{"none":{}},":>":{"|":[{"a":{">":{"@":{}}}}]}}}`:                             "explore everything",
		`{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}},"!":{"x":3}}}`:                         "condition",
		`{"~":{"as":"hamt",">":{".":{}}}}`:                                                      "only unixfs",
		`{"~":{">":{".":{}}}}`:                                                                  "'as' field",
		`{"i":{"i":-1,">":{".":{}}}}`:                                                           "negative",
		`{"r":{"^":0,"$":9223372036854775807,">":{".":{}}}}`:                                    "more than 2048 nodes",
		`{"r":{"^":-9223372036854775808,"$":9223372036854775807,">":{".":{}}}}`:                 "negative",
		`{"r":{"^":5,"$":5,">":{".":{}}}}`:                                                      "empty",
		`{"r":{"$":5,">":{".":{}}}}`:                                                            "without a start",
		`{"|":{}}`:                                                                              "no list",
		`{"|":[{"f":{"f>":{"a":{".":{}}}}},{"f":{"f>":{"a":{".":{}}}}}]}`:                       "same step",
		`{"|":[{"f":{"f>":{"3":{".":{}}}}},{"i":{"i":3,">":{".":{}}}}]}`:                        "same step",
		`{"|":[{"i":{"i":3,">":{".":{}}}},{"a":{">":{".":{}}}}]}`:                               "same step",
		`{"|":[{"|":[{"a":{">":{".":{}}}}]},{"|":[{"a":{">":{".":{}}}}]}]}`:                     "same step",
		`{"|":[` + allJSON + `,` + allJSON + `]}`:                                               "same step",
		`{"R":{"l":{"depth":9},":>":{"|":[{"a":{">":{"@":{}}}},{"a":{">":{"@":{}}}}]}}}`:        "same step",
		`{"R":{"l":{"depth":9},":>":{"f":{"f>":{"a":{"|":[{"@":{}},{"a":{">":{"@":{}}}}]}}}}}}`: "same step",
	} {
		err := Check(json(s), Limits{})
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", s, err, why)
		}
	}
}

// nest wraps a matcher n times.
func nest(n int, wrap func(datamodel.Node) datamodel.Node) datamodel.Node {
	sel := json(`{".":{}}`)
	for range n {
		sel = wrap(sel)
	}
	return sel
}

func single(key string, v datamodel.Node) datamodel.Node {
	return must(qp.BuildMap(basicnode.Prototype.Any, 1, func(ma datamodel.MapAssembler) { qp.MapEntry(ma, key, qp.Node(v)) }))
}

// TestCheckHostile holds Check to its time on what peers could send to hurt.
func TestCheckHostile(t *testing.T) {
	matcher := json(`{".":{}}`)
	wide := must(qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
		for range 1 << 20 {
			qp.ListEntry(la, qp.Node(matcher))
		}
	}))
	fields := must(qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		for i := range 1 << 18 {
			qp.MapEntry(ma, fmt.Sprint(i), qp.Node(matcher))
		}
	}))
	ranges := nest(200, func(n datamodel.Node) datamodel.Node {
		return single("r", must(qp.BuildMap(basicnode.Prototype.Any, 3, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "^", qp.Int(0))
			qp.MapEntry(ma, "$", qp.Int(2000))
			qp.MapEntry(ma, ">", qp.Node(n))
		})))
	})
	for name, sel := range map[string]datamodel.Node{
		"union of 1 Mi members": single("|", wide),
		"256 Ki fields":         single("f", single("f>", fields)),
		"10 MiB name":           single(strings.Repeat("x", 10<<20), matcher),
		"10 MiB of bytes":       single("a", basicnode.NewBytes(make([]byte, 10<<20))),
		"100,000 explores deep": nest(100_000, func(n datamodel.Node) datamodel.Node { return single("a", single(">", n)) }),
		"100,000 unions deep": nest(100_000, func(n datamodel.Node) datamodel.Node {
			return single("|", must(qp.BuildList(basicnode.Prototype.Any, 1, func(la datamodel.ListAssembler) { qp.ListEntry(la, qp.Node(n)) })))
		}),
		"200 ranges of 2,000":    ranges,
		"a list nested in a key": single("f", single("f>", single("a", wide))),
	} {
		start := time.Now()
		err := Check(sel, Limits{})
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		if !errors.Is(err, ErrRefused) || len(err.Error()) > 500 {
			t.Errorf("%s: %.500v", name, err)
		}
	}
}

func TestCheckLimits(t *testing.T) {
	chain := json(`{"R":{"l":{"depth":50},":>":{"f":{"f>":{"next":{"@":{}}}}}}}`)
	path := must(Path("a/b/c", ScopeBlock))
	for _, c := range []struct {
		name string
		sel  datamodel.Node
		l    Limits
		ok   bool
	}{
		{"depth 50 of 50", chain, Limits{MaxRecursionDepth: 50}, true},
		{"depth 50 of 49", chain, Limits{MaxRecursionDepth: 49}, false},
		{"all whatever the depth", All(), Limits{MaxRecursionDepth: 1}, true},
		{"26 bytes of 26", All(), Limits{MaxSelectorBytes: 26}, true},
		{"26 bytes of 25", All(), Limits{MaxSelectorBytes: 25}, false},
		{"8 nodes of 8", All(), Limits{MaxNodes: 8}, true},
		{"8 nodes of 7", All(), Limits{MaxNodes: 7}, false},
		{"3 names of 3", path, Limits{MaxPathSegments: 3}, true},
		{"3 names of 2", path, Limits{MaxPathSegments: 2}, false},
		{"wide range", json(`{"r":{"^":0,"$":5000,">":{".":{}}}}`), Limits{MaxNodes: 6000}, true},
		{"two wide ranges", json(`{"r":{"^":0,"$":5000,">":{"r":{"^":0,"$":5000,">":{".":{}}}}}}`), Limits{MaxNodes: 6000}, false},
		{"deep", Depth(1 << 40), Limits{MaxRecursionDepth: math.MaxInt64}, true},
	} {
		if err := Check(c.sel, c.l); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestParseJSONRefused(t *testing.T) {
	for _, s := range []string{"", "null", "{", `{"a":{">":{".":{}}}} x`, `{"@":{}}`, strings.Repeat("[", 70000), strings.Repeat("[", 60000), `{".":{}}` + strings.Repeat(" ", 1<<20)} {
		if _, err := ParseJSON(s); !errors.Is(err, ErrRefused) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}
