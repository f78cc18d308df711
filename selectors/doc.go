// Package selectors is what is bought: which part of which DAG, and whether
// that is bounded.
//
// The one idea: a selection is a root CID and an IPLD selector, and everything
// that the two sides must agree on follows from those two alone. Path and its
// like write a selection down in one canonical form. Check decides at the gate
// whether a peer's selector can be worked on at all. Measure walks it over a
// store exactly the way go-graphsync does and tells, before a byte is sold, how
// many blocks and bytes will cross the wire; Complete tells how much of it a
// store holds already; Target tells whether a path leads anywhere.
//
//	path, scope ──▶ Path ─┐                      ┌─▶ Measure   what it will cost
//	JSON ─────▶ ParseJSON ┼─▶ selector ─▶ Check ─┤
//	wire ─────────────────┘    (nil: All)        └─▶ Complete  what is held
//
// A selector is a datamodel.Node, and a nil one (or an IPLD null, which is what
// nil becomes on the wire) means All wherever this package takes one.
//
// The package opens nothing and starts no goroutine: blocks are read through
// the ipld.LinkSystem that the caller gives. All functions may be called
// concurrently.
//
// Selectors made by Path and EntityBytes interpret UnixFS while they walk. The
// link systems on both sides must know how: see AddReifiers.
package selectors
