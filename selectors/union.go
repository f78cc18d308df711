package selectors

import (
	"strconv"

	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/traversal/selector"
)

// union checks that the members of a union stay out of each other's way, and
// then each of them.
func (c *checker) union(body datamodel.Node, p place) error {
	if body.Kind() != datamodel.Kind_List {
		return refuse("a union that is no list")
	}
	seen := steps{named: map[string]bool{}}
	if err := seen.union(body); err != nil {
		return err
	}
	for it := body.ListIterator(); !it.Done(); {
		_, m, err := it.Next()
		if err != nil {
			return refuse("read union: %w", err)
		}
		if err := c.check(m, p); err != nil {
			return err
		}
	}
	return nil
}

// steps collects the steps that the members of a union explore.
type steps struct {
	named map[string]bool // by key or index
	all   bool            // one member may explore any step
}

var errOverlap = refuse("two members of a union explore the same step: merge them below one explore")

// name adds one step.
func (s *steps) name(step string) error {
	if s.all || s.named[step] {
		return errOverlap
	}
	s.named[step] = true
	return nil
}

// any adds every step there could be.
func (s *steps) any() error {
	if s.all || len(s.named) > 0 {
		return errOverlap
	}
	s.all = true
	return nil
}

// union adds what the members of a union explore. The nodes it reads were
// weighed, which bounds its work; c.union comes here again for a union within a
// union, which maxNest bounds.
func (s *steps) union(body datamodel.Node) error {
	for it := body.ListIterator(); !it.Done(); {
		_, m, err := it.Next()
		if err != nil {
			return refuse("read union: %w", err)
		}
		if err := s.member(m); err != nil {
			return err
		}
	}
	return nil
}

// member adds what one member explores.
func (s *steps) member(m datamodel.Node) error {
	key, body, err := keyed(m)
	if err != nil {
		return err
	}
	switch key {
	case selector.SelectorKey_Matcher:
		return nil
	case selector.SelectorKey_ExploreUnion:
		if body.Kind() != datamodel.Kind_List {
			return refuse("a union that is no list")
		}
		return s.union(body)
	case selector.SelectorKey_ExploreFields:
		return s.fields(body)
	case selector.SelectorKey_ExploreIndex:
		i, _ := intAt(body, selector.SelectorKey_Index)
		return s.name(strconv.FormatInt(i, 10))
	default: // everything, or what a range, recursion or interpretation finds
		return s.any()
	}
}

func (s *steps) fields(body datamodel.Node) error {
	fields, ok := at(body, selector.SelectorKey_Fields)
	if !ok || fields.Kind() != datamodel.Kind_Map {
		return refuse("fields without a map of them")
	}
	for it := fields.MapIterator(); !it.Done(); {
		k, _, err := it.Next()
		if err != nil {
			return refuse("read fields: %w", err)
		}
		name, err := k.AsString()
		if err != nil {
			return refuse("read field: %w", err)
		}
		if err := s.name(name); err != nil {
			return err
		}
	}
	return nil
}
