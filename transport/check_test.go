package transport

import (
	"math"
	"testing"
	"time"

	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// TestSameWideNode: map order aside, only equal data is the same, and no node that a
// peer can send makes the comparison panic.
func TestSameWideNode(t *testing.T) {
	pair := func(first, second string) datamodel.Node {
		n, err := qp.BuildMap(basicnode.Prototype.Any, 2, func(m datamodel.MapAssembler) {
			qp.MapEntry(m, first, qp.Int(1))
			qp.MapEntry(m, second, qp.Int(1))
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	wide := func(n uint64) datamodel.Node { return basicnode.NewUint(n) }
	for name, c := range map[string]struct {
		a, b datamodel.Node
		want bool
	}{
		"same":                  {wholeDAG(), wholeDAG(), true},
		"other order":           {pair("a", "b"), pair("b", "a"), true},
		"other key":             {pair("a", "b"), pair("a", "c"), false},
		"wide integers":         {wide(math.MaxUint64), wide(math.MaxUint64), true},
		"other wide integers":   {wide(math.MaxUint64), wide(1 << 63), false},
		"wide and negative":     {wide(math.MaxUint64), basicnode.NewInt(-1), false},
		"int and the same uint": {basicnode.NewInt(7), wide(7), true},
		"not a number":          {basicnode.NewFloat(math.NaN()), basicnode.NewFloat(math.NaN()), true},
		"null":                  {datamodel.Null, datamodel.Null, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sameNode(c.a, c.b); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestWideSelector: a selector with an integer above 1<<63-1 in both of its
// copies is refused, by the rules and not by recovering from a panic.
func TestWideSelector(t *testing.T) {
	sel, err := qp.BuildMap(basicnode.Prototype.Any, 1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "R", qp.Map(2, func(m datamodel.MapAssembler) {
			qp.MapEntry(m, "l", qp.Map(1, func(m datamodel.MapAssembler) {
				qp.MapEntry(m, "depth", qp.Node(basicnode.NewUint(math.MaxUint64)))
			}))
			qp.MapEntry(m, ":>", qp.Map(0, func(datamodel.MapAssembler) {}))
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	n, store := guardedProvider(t, &validator{})
	d := buildDAG(t, store, 10, 4, 1000, nil)
	ctx := within(t, 20*time.Second)
	a := newAttacker(t, n.cfg.Host)
	r := newRequest(d.root, sel, pull(t, 1, false, d.root, sel))
	a.send(t, ctx, r)
	if s, got := a.outcome(ctx, r.ID()); !s.IsFailure() || got != 0 {
		t.Errorf("status %v, %d bytes", s, got)
	}
	if dropped := n.Dropped(); dropped[ReasonPanic] != 0 || dropped[ReasonMalformed] == 0 {
		t.Errorf("dropped %v", dropped)
	}
}
