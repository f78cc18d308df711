package selectors

import (
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/traversal/selector"
)

// checker applies the rules of Check to the parts of one selector. What is
// merely malformed it leaves to the compiler; it looks for what compiles and
// must not run, and for what must not even be compiled (a range allocates its
// width). Its recursion is bounded by maxNest.
type checker struct {
	limits Limits
	spare  int // indices that ranges may still name
}

// place is where in the selector a part is found.
type place struct {
	segments int  // steps on the way to it, up to the first recursion
	turn     int  // steps since the innermost recursion began
	inside   bool // there is such a recursion
}

// step returns the place one step down from p.
func (p place) step() place {
	if p.inside {
		p.turn++
	} else {
		p.segments++
	}
	return p
}

// keyed returns the one key of the keyed unions that selectors are made of.
func keyed(n datamodel.Node) (key string, body datamodel.Node, err error) {
	if n.Kind() != datamodel.Kind_Map || n.Length() != 1 {
		return "", nil, refuse("each of its parts must be a map of one entry")
	}
	k, body, err := n.MapIterator().Next()
	if err != nil {
		return "", nil, refuse("read part: %w", err)
	}
	key, err = k.AsString()
	if err != nil {
		return "", nil, refuse("read key: %w", err)
	}
	return key, body, nil
}

// check applies the rules to n and everything in it.
func (c *checker) check(n datamodel.Node, p place) error {
	if p.segments > c.limits.MaxPathSegments {
		return tooLong(p.segments, c.limits.MaxPathSegments)
	}
	key, body, err := keyed(n)
	if err != nil {
		return err
	}
	switch key {
	case selector.SelectorKey_Matcher:
		return nil
	case selector.SelectorKey_ExploreRecursiveEdge:
		return checkEdge(p)
	case selector.SelectorKey_ExploreAll:
		return c.next(body, p.step())
	case selector.SelectorKey_ExploreFields:
		return c.fields(body, p.step())
	case selector.SelectorKey_ExploreIndex:
		if i, ok := intAt(body, selector.SelectorKey_Index); ok && i < 0 {
			return refuse("index %d is negative", i)
		}
		return c.next(body, p.step())
	case selector.SelectorKey_ExploreRange:
		if err := c.width(body); err != nil {
			return err
		}
		return c.next(body, p.step())
	case selector.SelectorKey_ExploreInterpretAs:
		if as, ok := stringAt(body, selector.SelectorKey_As); ok && as != "unixfs" && as != "unixfs-preload" {
			return refuse("it interprets data as %q: only unixfs is known", as)
		}
		return c.next(body, p)
	case selector.SelectorKey_ExploreRecursive:
		return c.recursive(body, p)
	case selector.SelectorKey_ExploreUnion:
		return c.union(body, p)
	default:
		return refuse("%q is no kind of selector", key)
	}
}

// checkEdge refuses the way back to a recursion's start where it would be taken
// without having gone anywhere: it means nothing, and explored it is a panic of
// the traversal library.
func checkEdge(p place) error {
	if !p.inside {
		return refuse("a recursion edge outside a recursion")
	}
	if p.turn == 0 {
		return refuse("a recursion that turns without a step: put an explore between its start and its edge")
	}
	return nil
}

// next checks the selector that body hands on to.
func (c *checker) next(body datamodel.Node, p place) error {
	n, ok := at(body, selector.SelectorKey_Next)
	if !ok {
		return refuse("an explore without a %q", selector.SelectorKey_Next)
	}
	return c.check(n, p)
}

func (c *checker) fields(body datamodel.Node, p place) error {
	fields, ok := at(body, selector.SelectorKey_Fields)
	if !ok || fields.Kind() != datamodel.Kind_Map {
		return refuse("fields without a map of them")
	}
	for it := fields.MapIterator(); !it.Done(); {
		_, n, err := it.Next()
		if err != nil {
			return refuse("read fields: %w", err)
		}
		if err := c.check(n, p); err != nil {
			return err
		}
	}
	return nil
}

// width takes what a range names from what may still be named: compiling it
// allocates that much, and every list or map it meets is asked for each index.
func (c *checker) width(body datamodel.Node) error {
	start, ok1 := intAt(body, selector.SelectorKey_Start)
	end, ok2 := intAt(body, selector.SelectorKey_End)
	switch {
	case !ok1 || !ok2:
		return refuse("a range without a start or an end")
	case start < 0 || end <= start:
		return refuse("the range from %d to %d is empty or negative", start, end)
	case end-start > int64(c.spare):
		return refuse("the range from %d to %d makes it more than %d nodes", start, end, c.limits.MaxNodes)
	}
	c.spare -= int(end - start)
	return nil
}

func (c *checker) recursive(body datamodel.Node, p place) error {
	limit, ok := at(body, selector.SelectorKey_Limit)
	if !ok {
		return refuse("a recursion without a limit")
	}
	sequence, ok := at(body, selector.SelectorKey_Sequence)
	if !ok {
		return refuse("a recursion without a sequence")
	}
	key, bound, err := keyed(limit)
	if err != nil {
		return err
	}
	switch key {
	case selector.SelectorKey_LimitNone:
		if !exploresAll(sequence) {
			return refuse("a recursion without a depth: give it one of at most %d, or explore everything", c.limits.MaxRecursionDepth)
		}
	case selector.SelectorKey_LimitDepth:
		depth, err := bound.AsInt()
		if err != nil || depth < 0 || depth > c.limits.MaxRecursionDepth {
			return refuse("the depth of a recursion is above %d or no number", c.limits.MaxRecursionDepth)
		}
	default:
		return refuse("%q is no limit of a recursion", key)
	}
	return c.check(sequence, place{segments: p.segments, inside: true})
}

// exploresAll reports whether the sequence of a recursion is one of those that
// visit every node: explore all, alone or united with a plain matcher.
func exploresAll(sequence datamodel.Node) bool {
	key, body, err := keyed(sequence)
	if err != nil {
		return false
	}
	switch key {
	case selector.SelectorKey_ExploreAll:
		next, ok := at(body, selector.SelectorKey_Next)
		if !ok {
			return false
		}
		key, _, err = keyed(next)
		return err == nil && key == selector.SelectorKey_ExploreRecursiveEdge
	case selector.SelectorKey_ExploreUnion:
		return body.Kind() == datamodel.Kind_List && body.Length() == 2 &&
			(pair(body, 0, 1) || pair(body, 1, 0))
	default:
		return false
	}
}

// pair reports whether members i and j of a union are a plain matcher and the
// exploration of everything.
func pair(union datamodel.Node, i, j int64) bool {
	m, err := union.LookupByIndex(i)
	if err != nil {
		return false
	}
	key, body, err := keyed(m)
	if err != nil || key != selector.SelectorKey_Matcher || body.Kind() != datamodel.Kind_Map || body.Length() != 0 {
		return false
	}
	all, err := union.LookupByIndex(j)
	if err != nil {
		return false
	}
	key, _, err = keyed(all)
	return err == nil && key == selector.SelectorKey_ExploreAll && exploresAll(all)
}

// at returns the entry of a map.
func at(n datamodel.Node, key string) (datamodel.Node, bool) {
	if n.Kind() != datamodel.Kind_Map {
		return nil, false
	}
	v, err := n.LookupByString(key)
	return v, err == nil && v != nil
}

func intAt(n datamodel.Node, key string) (int64, bool) {
	v, ok := at(n, key)
	if !ok {
		return 0, false
	}
	i, err := v.AsInt()
	return i, err == nil
}

func stringAt(n datamodel.Node, key string) (string, bool) {
	v, ok := at(n, key)
	if !ok {
		return "", false
	}
	s, err := v.AsString()
	return s, err == nil
}
