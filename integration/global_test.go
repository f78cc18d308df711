package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// global is what belongs to the process that a library is in: a name of a package
// whose use changes something for everybody. A name with a star is a prefix.
var global = map[string][]string{
	"github.com/prometheus/client_golang/prometheus":          {"MustRegister", "Register", "Unregister", "DefaultRegisterer", "DefaultGatherer"},
	"github.com/prometheus/client_golang/prometheus/promauto": {"*"},
	"go.opentelemetry.io/otel":                                {"Set*"},
	"github.com/ipfs/go-log/v2":                               {"*"},
	"github.com/ipld/go-ipld-prime/multicodec":                {"Register*"},
	"log/slog":      {"SetDefault", "SetLogLoggerLevel"},
	"log":           {"*"},
	"flag":          {"*"},
	"expvar":        {"*"},
	"net/http":      {"Handle", "HandleFunc", "Default*", "ListenAndServe*"},
	"os":            {"Setenv", "Unsetenv", "Chdir", "Exit", "Stdin", "Stdout", "Stderr", "Args"},
	"os/signal":     {"*"},
	"runtime/debug": {"Set*"},
}

// TestNothingGlobal: a program may have as many nodes as it likes. No room runs
// code by being imported, keeps state beside its values, or changes what belongs
// to the process.
func TestNothingGlobal(t *testing.T) {
	for room := range rooms {
		if strings.HasPrefix(room, "cmd/") || strings.HasPrefix(room, "examples/") {
			continue // programs
		}
		for _, what := range globals(t, filepath.Join("..", room)) {
			t.Error(what)
		}
	}
}

// TestGlobalsAreSeen: what the test above looks for, it finds.
func TestGlobalsAreSeen(t *testing.T) {
	want := []string{"func init", "seen is assigned", "counts is assigned", "count is assigned", "escaped is referred to", "lock is of a type that changes",
		"changed is cleared", "registry is of a type that changes", "SetDefault of log/slog", "Setenv of os"}
	got := globals(t, filepath.Join("testdata", "global"))
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, w) }) {
			t.Errorf("%q is not found in %q", w, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d findings, want %d: %q", len(got), len(want), got)
	}
}

// globals says what the production code in a folder has of global state.
func globals(t *testing.T, dir string) (found []string) {
	t.Helper()
	fset, files := token.NewFileSet(), []*ast.File(nil)
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	must(t, err)
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			must(t, err)
			files = append(files, f)
		}
	}
	// Without the packages that it imports nothing has its type, but every name has
	// its place.
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)}
	conf := types.Config{Error: func(error) {}}
	pkg, _ := conf.Check(dir, fset, files, info) // fails for want of imports
	g := &globalFinder{fset: fset, info: info, scope: pkg.Scope()}
	for _, f := range files {
		ast.Inspect(f, g.visit)
	}
	return g.found
}

type globalFinder struct {
	fset  *token.FileSet
	info  *types.Info
	scope *types.Scope
	found []string
}

func (g *globalFinder) note(at ast.Node, what string) {
	g.found = append(g.found, g.fset.Position(at.Pos()).String()+": "+what)
}

func (g *globalFinder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Recv == nil && n.Name.Name == "init" {
			g.note(n, "func init")
		}
	case *ast.ValueSpec:
		g.declared(n)
	case *ast.AssignStmt:
		for _, to := range n.Lhs {
			g.changed(to, "is assigned")
		}
	case *ast.IncDecStmt:
		g.changed(n.X, "is assigned")
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			g.changed(n.X, "is referred to")
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") {
			g.changed(n.Args[0], "is cleared")
		}
	case *ast.SelectorExpr:
		g.used(n)
	}
	return true
}

// changed notes a variable of the package that is at the root of what changes.
func (g *globalFinder) changed(e ast.Expr, how string) {
	for {
		switch x := e.(type) {
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.Ident:
			if v, ok := g.info.Uses[x].(*types.Var); ok && v.Parent() == g.scope {
				g.note(x, x.Name+" "+how)
			}
			return
		default:
			return
		}
	}
}

// declared notes a variable of the package that is made to change: a lock, a
// counter, a channel. A pool has no state that anybody sees.
func (g *globalFinder) declared(spec *ast.ValueSpec) {
	if len(spec.Names) == 0 || g.info.Defs[spec.Names[0]] == nil || g.info.Defs[spec.Names[0]].Parent() != g.scope {
		return
	}
	changes := false
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ChanType:
			changes = true
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			changes = changes || ok && (x.Name == "sync" && n.Sel.Name != "Pool" || x.Name == "atomic" || n.Sel.Name == "NewRegistry")
		}
		return true
	}
	if spec.Type != nil {
		ast.Inspect(spec.Type, look)
	}
	for _, v := range spec.Values {
		ast.Inspect(v, look)
	}
	if changes {
		g.note(spec, spec.Names[0].Name+" is of a type that changes")
	}
}

// used notes the use of what belongs to the process.
func (g *globalFinder) used(sel *ast.SelectorExpr) {
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return
	}
	name, ok := g.info.Uses[x].(*types.PkgName)
	if !ok {
		return
	}
	for _, banned := range global[name.Imported().Path()] {
		if prefix, all := strings.CutSuffix(banned, "*"); banned == sel.Sel.Name || all && strings.HasPrefix(sel.Sel.Name, prefix) {
			g.note(sel, sel.Sel.Name+" of "+name.Imported().Path())
		}
	}
}
