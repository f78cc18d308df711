package retrievalmarket

import (
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/ipld/go-ipld-prime/traversal/selector/builder"

	"github.com/tollgraph/tollgraph/selectors"
)

const (
	// maxRun is how many links of a node one gap spans: a selector may name so
	// many.
	maxRun = 1000
	// maxPicked is how many links one gap names one by one. Each takes eleven nodes
	// of a selector, of which selectors.DefaultMaxNodes are allowed; but
	// data-transfer decodes the selector twice for every block, so that above some
	// forty another deal is cheaper.
	maxPicked = 40
	// longRun is from how many links on a run is a gap of its own.
	longRun = 16
)

// run is links of a block that follow each other: from begin to before end.
type run struct{ begin, end int }

// gap is something that is missing, to be bought in a deal of its own: all below
// root, or all below some of its links, or some bytes of the file that it is.
type gap struct {
	root cid.Cid
	runs []run          // of links of root, a dag-pb block that is held
	node datamodel.Node // the selector, where it is no runs; nil for all
}

// selector is what g selects from its root.
func (g gap) selector() datamodel.Node {
	if len(g.runs) == 0 {
		if g.node == nil {
			return selectors.All()
		}
		return g.node
	}
	ssb := builder.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	below := ssb.ExploreFields(func(link builder.ExploreFieldsSpecBuilder) {
		link.Insert("Hash", ssb.ExploreRecursive(selector.RecursionLimitNone(), ssb.ExploreAll(ssb.ExploreRecursiveEdge())))
	})
	links := ssb.ExploreRange(int64(g.runs[0].begin), int64(g.runs[0].end), below)
	if len(g.runs) > 1 {
		links = ssb.ExploreFields(func(link builder.ExploreFieldsSpecBuilder) {
			for _, r := range g.runs {
				for i := r.begin; i < r.end; i++ {
					link.Insert(strconv.Itoa(i), below)
				}
			}
		})
	}
	return ssb.ExploreFields(func(fields builder.ExploreFieldsSpecBuilder) { fields.Insert("Links", links) }).Node()
}

// gapsOf divides the missing links of a dag-pb block among as few gaps as
// selectors can name. They are in the order of the first link of each.
func gapsOf(block cid.Cid, missing []run) (gaps []gap) {
	picked, open := 0, -1 // links in the gap that gathers short runs, and where that is
	for _, r := range missing {
		for ; r.end-r.begin > maxRun; r.begin += maxRun {
			gaps = append(gaps, gap{root: block, runs: []run{{r.begin, r.begin + maxRun}}})
		}
		n := r.end - r.begin
		switch {
		case n >= longRun:
			gaps = append(gaps, gap{root: block, runs: []run{r}})
		case open < 0 || picked+n > maxPicked:
			gaps, open, picked = append(gaps, gap{root: block, runs: []run{r}}), len(gaps), n
		default:
			gaps[open].runs, picked = append(gaps[open].runs, r), picked+n
		}
	}
	return gaps
}
