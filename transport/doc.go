// Package transport is the stack under the market: a libp2p host, graphsync and
// go-data-transfer, assembled, guarded and measurable.
//
// The one idea: the two libraries are used unchanged, and everything that is
// unsafe or slow about them for paid serving is put right by wrappers around
// their interfaces. New puts all of them together; a program that already runs
// its own stack can put the same wrappers around what it has.
//
//	host.Host ──WrapHost──▶ gsnet.GraphSyncNetwork ──WrapNetwork──▶ graphsync
//	                                                                   │
//	datatransfer.Manager ◀──WrapManager── manager ◀─WrapTransport─ WrapExchange
//	                                        │
//	                        WrapTransferNetwork, WriteBehind
//
// WrapHost keeps idle streams alive. WrapNetwork drops what graphsync must
// never see. WrapExchange admits only requests that carry a data-transfer pull
// for exactly the root and selector they ask for, counts every block, and makes
// pausing and resuming safe. WrapTransport and WrapManager take the deadlocks
// and panics out of data-transfer. WriteBehind keeps its records in memory and
// writes them to disk in the background: they are a cache of progress, never of
// money.
//
// Nothing is served by default: the node's own link system is empty, and each
// channel gets its store with UseStore.
//
// The package does not know that money exists. It imports nothing of ours.
package transport
