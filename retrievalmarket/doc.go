// Package retrievalmarket is the deals: who buys what from whom, how far each
// deal is, and what of it is on disk. Client buys, Provider sells.
//
// A deal rides on channels: of go-data-transfer, or streams of the first
// retrieval protocol (see carrier.go). The proposal opens the first; a channel
// that breaks is replaced by another that carries the same proposal, and the
// deal's account goes on where it stood.
// Money state is ours and durable; data-transfer's state is only progress.
//
//	ask → proposal → validation → transfer ⇄ interval, payment → completion
//
// Both sides run one goroutine per live deal. It owns the deal, takes events
// from an inbox that merges them, and keeps one order of duty: decide with the
// pure Deal.step and revalidator.Account, persist, then send or raise a limit.
// What should be is compared with what is on every event and on a tick, so
// that no lost event can wedge a deal.
//
// The names RetrievalClient, RetrievalProvider, RetrievalClientNode and so on
// are those of the Filecoin retrieval market; ARCHITECTURE.md says where a
// signature differs and why.
package retrievalmarket
