// Package interop proves that the market speaks with the existing network: the
// same bytes as go-retrieval-types, and deals with a plain client and a plain
// provider that know nothing of it.
//
// It is a module of its own, so that what it compares with is no dependency of
// the project.
package interop
