// Package voucher is what is said in a paid retrieval: the units, the
// messages, their one codec, and the signatures on payments.
//
// The wire forms are those of the Filecoin retrieval protocol as it rides on
// go-data-transfer (RetrievalDealProposal/1 and its answers, and the query
// protocol /fil/retrieval/qry). The package is pure: it has no clock, opens
// nothing and starts no goroutine.
//
// Every number, text and list from a peer is bounded here, in the decoders:
// what they return can always be encoded again. Selectors are carried, not
// looked into; bounding them is for package selectors.
package voucher
