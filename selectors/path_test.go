package selectors

import (
	"errors"
	"math"
	"strings"
	"testing"
)

const (
	allJSON    = `{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}}}}`
	entityJSON = `{"~":{"as":"unixfs",">":{"|":[{".":{}},{"R":{"l":{"depth":1},":>":{"a":{">":{"@":{}}}}}}]}}}`
)

// TestPathBytes holds Path to the selectors of the trustless gateways.
func TestPathBytes(t *testing.T) {
	for _, c := range []struct {
		path  string
		scope Scope
		want  string
	}{
		{"", ScopeAll, allJSON},
		{"", ScopeEntity, entityJSON},
		{"", ScopeBlock, `{".":{}}`},
		{"a", ScopeAll, `{"~":{"as":"unixfs",">":{"f":{"f>":{"a":` + allJSON + `}}}}}`},
		{"/a//b/", ScopeEntity, `{"~":{"as":"unixfs",">":{"f":{"f>":{"a":{"~":{"as":"unixfs",">":{"f":{"f>":{"b":` + entityJSON + `}}}}}}}}}}`},
		{"0", ScopeBlock, `{"~":{"as":"unixfs",">":{"f":{"f>":{"0":{".":{}}}}}}}`},
		{"ä ö", ScopeBlock, `{"~":{"as":"unixfs",">":{"f":{"f>":{"ä ö":{".":{}}}}}}}`},
	} {
		got, err := Path(c.path, c.scope)
		if err != nil || !Equal(got, must(ParseJSON(c.want))) {
			t.Errorf("Path(%q, %s) is not %s: %v", c.path, c.scope, c.want, err)
		}
	}
}

func TestPathRefused(t *testing.T) {
	for name, path := range map[string]string{
		"parent":    "a/../b",
		"self":      "./a",
		"not UTF-8": "a/\xff",
		"129 names": strings.Repeat("a/", 129),
		"1e6 names": strings.Repeat("a/", 1e6),
		"70 kB":     strings.Repeat("a", 70000),
	} {
		if _, err := Path(path, ScopeAll); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Path("a", 3); err == nil || !strings.Contains(err.Error(), "scope 3") {
		t.Errorf("unknown scope: %v", err)
	}
	for _, scope := range []Scope{ScopeAll, ScopeEntity, ScopeBlock} {
		sel, err := Path(strings.Repeat("name/", DefaultMaxPathSegments), scope)
		if err != nil {
			t.Errorf("128 names, %s: %v", scope, err)
		} else if err := Check(sel, Limits{}); err != nil {
			t.Errorf("128 names, %s: %v", scope, err)
		}
	}
	if _, err := Path(strings.Repeat("a/", 129), ScopeAll); !errors.Is(err, ErrRefused) {
		t.Errorf("129 names: %v", err)
	}
}

func TestScope(t *testing.T) {
	for word, want := range map[string]Scope{"": ScopeAll, "all": ScopeAll, "entity": ScopeEntity, "block": ScopeBlock} {
		if got, err := ParseScope(word); err != nil || got != want {
			t.Errorf("ParseScope(%q) = %v, %v", word, got, err)
		}
		if word != "" && want.String() != word {
			t.Errorf("%d.String() = %q", want, want)
		}
	}
	if _, err := ParseScope("All"); err == nil {
		t.Error("ParseScope takes All")
	}
	if got := Scope(9).String(); got != "scope(9)" {
		t.Errorf("Scope(9) = %q", got)
	}
}

func ptr(v int64) *int64 { return &v }

func TestEntityBytesRange(t *testing.T) {
	for _, c := range []struct {
		from int64
		to   *int64
		want string // of the matcher's subset; "" is refused
	}{
		{5, ptr(9), `{"[":5,"]":10}`},
		{5, ptr(5), `{"[":5,"]":6}`},
		{5, nil, `{"[":5,"]":9223372036854775807}`},
		{5, ptr(-1), `{"[":5,"]":9223372036854775807}`},
		{0, ptr(-3), `{"[":0,"]":-2}`},
		{-10, nil, `{"[":-10,"]":9223372036854775807}`},
		{-10, ptr(-4), `{"[":-10,"]":-3}`},
		{-10, ptr(100), `{"[":-10,"]":101}`},
		{0, ptr(math.MaxInt64), `{"[":0,"]":9223372036854775807}`},
		{math.MinInt64, ptr(math.MinInt64), `{"[":-9223372036854775808,"]":-9223372036854775807}`},
		{5, ptr(4), ""},
		{-4, ptr(-5), ""},
	} {
		got, err := EntityBytes("", c.from, c.to)
		if c.want == "" {
			if err == nil {
				t.Errorf("%d:%d accepted", c.from, *c.to)
			}
			continue
		}
		want := strings.Replace(entityJSON, `{".":{}}`, `{".":{"subset":`+c.want+`}}`, 1)
		if err != nil || !Equal(got, must(ParseJSON(want))) {
			t.Errorf("from %d: not %s: %v", c.from, want, err)
		}
	}
	if !Equal(must(EntityBytes("a", 0, nil)), must(Path("a", ScopeEntity))) {
		t.Error("the whole range is not the entity")
	}
}
