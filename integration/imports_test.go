package integration

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tollgraph/tollgraph/"

// rooms are the packages and what each may import of the others.
var rooms = map[string]struct {
	ours   []string
	reason string
}{
	"voucher":           {nil, "the units and messages are the bottom of everything"},
	"selectors":         {nil, "what is bought can be told without money"},
	"transport":         {nil, "it can be read without knowing that money exists"},
	"piece":             {nil, "the goods know nothing of the market"},
	"payment":           {[]string{"voucher"}, "a rail knows payments, not deals"},
	"revalidator":       {[]string{"voucher"}, "the account is bytes against money and nothing else"},
	"validation":        {[]string{"voucher", "selectors", "revalidator"}, "declare an interface here instead"},
	"retrievalmarket":   {[]string{"voucher", "selectors", "revalidator", "validation"}, "it sees transport, payment and piece through interfaces of its own"},
	"cmd/tollgraph":     {[]string{"voucher", "selectors", "transport", "piece", "payment", "retrievalmarket"}, "wiring has no business with the account or the gate"},
	"examples/provider": {[]string{"voucher", "transport", "piece", "payment", "retrievalmarket"}, "a program needs no more to sell"},
	"examples/client":   {[]string{"voucher", "transport", "piece", "payment", "retrievalmarket"}, "a program needs no more to buy"},
}

// stacks are the rooms that build a data-transfer stack.
var stacks = []string{"transport", "examples/provider", "examples/client"}

// banned are imports that one room may not have, or with "*" all but those
// named in except. A name with a slash at its end is a prefix.
var banned = []struct {
	room, path, reason string
	except             []string
}{
	{"revalidator", "time", "the account has no clock", nil},
	{"revalidator", "context", "the account does no IO", nil},
	{"revalidator", "sync", "an account is a value", nil},
	{"revalidator", "sync/", "an account is a value", nil},
	{"revalidator", "log", "the account does no IO", nil},
	{"revalidator", "log/", "the account does no IO", nil},
	{"revalidator", "os", "the account does no IO", nil},
	{"revalidator", "os/", "the account does no IO", nil},
	{"voucher", "time", "what is said does not depend on when", nil},
	{"voucher", "os", "codecs open nothing", nil},
	{"selectors", "os", "blocks are read through a link system", nil},
	{"*", "github.com/ipfs/go-graphsync", "only transport may know it", stacks},
	{"*", "github.com/ipfs/go-graphsync/", "only transport may know it", stacks},
	{"*", "github.com/filecoin-project/go-data-transfer/v2/", "only transport may know more than its root types", stacks},
	{"*", "testing", "production code carries no tests", nil},
	{"*", "github.com/stretchr/testify/", "production code carries no tests", nil},
	{"*", "pgregory.net/rapid", "production code carries no tests", nil},
	{"*", "go.uber.org/goleak", "production code carries no tests", nil},
}

// TestImports keeps the layers of ARCHITECTURE.md.
func TestImports(t *testing.T) {
	for room, rule := range rooms {
		imports := importsOf(t, room)
		for _, path := range imports {
			if name, ours := strings.CutPrefix(path, module); ours && !slices.Contains(rule.ours, name) {
				t.Errorf("%s imports %s: %s", room, name, rule.reason)
			}
		}
		for _, b := range banned {
			if b.room != room && (b.room != "*" || slices.Contains(b.except, room)) {
				continue
			}
			for _, path := range imports {
				if path == b.path || strings.HasSuffix(b.path, "/") && strings.HasPrefix(path, b.path) {
					t.Errorf("%s imports %s: %s", room, path, b.reason)
				}
			}
		}
	}
}

// TestRoomsAreListed: no package is without rules, but what holds only tests
// and the proof.
func TestRoomsAreListed(t *testing.T) {
	for _, pkg := range listed(t, "{{.ImportPath}}", "./...") {
		room := strings.TrimPrefix(pkg, module)
		if _, ok := rooms[room]; !ok && room != "examples" && room != "integration" && !strings.HasPrefix(room, "integration/") {
			t.Errorf("%s is in no row of rooms: say what it may import", room)
		}
	}
}

// TestRevalidatorIsPure: the account needs nothing but units and arithmetic of
// the standard library.
func TestRevalidatorIsPure(t *testing.T) {
	for _, path := range importsOf(t, "revalidator") {
		first, _, _ := strings.Cut(path, "/")
		if path != module+"voucher" && strings.Contains(first, ".") {
			t.Errorf("revalidator imports %s: it may import voucher and the standard library", path)
		}
	}
}

// TestNoDrawers: every package has a name that says what it is about.
func TestNoDrawers(t *testing.T) {
	for _, name := range []string{"internal", "pkg", "util", "utils", "shared", "types", "impl", "mock", "mocks", "common"} {
		if _, err := os.Stat("../" + name); err == nil {
			t.Errorf("there is a folder %s: name a package after its subject", name)
		}
	}
}

// importsOf returns what the production code of a room imports.
func importsOf(t *testing.T, room string) []string {
	t.Helper()
	return listed(t, `{{join .Imports "\n"}}`, "./"+room)
}

// listed returns the lines that go list says of packages of the module.
func listed(t *testing.T, format, packages string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", format, packages)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", packages, err)
	}
	return strings.Fields(string(out))
}
