package retrievalmarket

import (
	"sync"
	"time"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/selectors"
	"github.com/tollgraph/tollgraph/voucher"
)

// The second carrier: voucher.DealProtocolV0, one stream for each channel.
//
//	client                                    provider
//	ProposalV0 ─────────────────────────────▶ validation, as for any proposal
//	           ◀─ Accepted, or why not
//	           ◀─ Ongoing, with blocks ─────── up to the limit
//	           ◀─ FundsNeeded ────────────────
//	DealPayment ────────────────────────────▶
//	           … until
//	           ◀─ FundsNeededLastPayment ───── with the last blocks
//	DealPayment ────────────────────────────▶
//	           ◀─ Completed ────────────────── with them if nothing is due
//
// Blocks come in the order of the walk, and the client verifies each against its
// own walk before it takes it. Between nodes that speak voucher.SkipProtocolV0
// each block is sent once and a later channel goes on behind what the client
// holds. A plain peer is sent, or sends, the block of every link, repeats
// included, and all of them are charged; a channel with a plain provider that
// breaks ends the deal, and the next ones are for what is missing then.

const (
	// streamIO is how long one message may take on the wire, and a proposal to
	// come.
	streamIO = time.Minute
	// batchBytes and batchBlocks bound the blocks of one answer, beside the one
	// that goes beyond.
	batchBytes  = 256 << 10
	batchBlocks = 1024
)

// streamIDs gives channels on streams their ids, which rise as those of
// data-transfer do.
type streamIDs struct{ last uint64 }

func (s *streamIDs) next(initiator, responder peer.ID) datatransfer.ChannelID {
	s.last = max(s.last+1, uint64(time.Now().UnixNano()))
	return datatransfer.ChannelID{Initiator: initiator, Responder: responder, ID: datatransfer.TransferID(s.last)}
}

// messages is one stream, written by several goroutines and read by one.
type messages struct {
	network.Stream
	in *voucher.ReaderV0
	mu sync.Mutex // serialises writes
}

func newMessages(s network.Stream) *messages {
	return &messages{Stream: s, in: voucher.NewReaderV0(s)}
}

// write writes one message whole, or resets the stream.
func (m *messages) write(b []byte, err error) error {
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err = m.SetWriteDeadline(time.Now().Add(streamIO)); err == nil {
		_, err = m.Write(b)
	}
	if err != nil {
		_ = m.Reset() // half a message cannot be mended
	}
	return err
}

// interpreted returns a link system that knows UnixFS.
func interpreted(ls ipld.LinkSystem) ipld.LinkSystem {
	selectors.AddReifiers(&ls)
	return ls
}
