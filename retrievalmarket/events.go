package retrievalmarket

import (
	datatransfer "github.com/filecoin-project/go-data-transfer/v2"

	"github.com/tollgraph/tollgraph/voucher"
)

// noteKind is what an event on a channel means to its deal.
type noteKind uint8

const (
	noteNone     noteKind = iota
	noteProgress          // bytes moved
	noteAccepted          // the provider took the proposal
	noteStopped           // the provider's side stands still
	noteResumed           // or goes on
	noteVoucher           // provider: a payment came
	noteReply             // client: a DealResponse came
	noteEnded             // no more bytes will move
	noteClosed            // the channel completed
	noteLost              // the channel is gone: failed, cancelled, disconnected
	noteFault             // client: the provider sent what it must not; no other channel helps
)

// channelNote is what happened on a channel. That of a data-transfer channel is
// copied out of the snapshot that came with an event, which is not kept: it
// holds every voucher of the channel.
type channelNote struct {
	kind    noteKind
	chid    datatransfer.ChannelID
	queued  voucher.Bytes // provider: by the carrier's own count
	reason  string
	err     error                     // noteFault
	voucher datatransfer.TypedVoucher // noteVoucher, noteReply
}

// clientNote reads an event on a channel that this node opened.
//
//	event                        note
//	Accept, Restart              accepted
//	DataReceivedProgress         progress
//	PauseResponder               stopped      ResumeResponder     resumed
//	NewVoucherResult             reply
//	FinishTransfer               ended
//	status Completed             closed       Failed, Cancelled   lost
//	Disconnected, ReceiveDataError, SendDataError, RequestCancelled   ignored: see watch
func clientNote(ev datatransfer.Event, st datatransfer.ChannelState) channelNote {
	n := channelNote{chid: st.ChannelID()}
	if finalNote(&n, st) {
		return n
	}
	switch ev.Code {
	case datatransfer.Accept, datatransfer.Restart:
		n.kind = noteAccepted
	case datatransfer.DataReceivedProgress:
		n.kind = noteProgress
	case datatransfer.PauseResponder:
		n.kind = noteStopped
	case datatransfer.ResumeResponder:
		n.kind = noteResumed
	case datatransfer.NewVoucherResult:
		n.kind = noteReply
		if results := st.VoucherResults(); len(results) > 0 {
			n.voucher = results[len(results)-1]
		}
	case datatransfer.FinishTransfer:
		n.kind = noteEnded
	}
	return n
}

// providerNote reads an event on a channel that a client opened.
//
//	event                        note
//	DataQueuedProgress           progress
//	DataLimitExceeded            stopped
//	TransferInitiated, Restart   resumed
//	NewVoucher                   voucher
//	BeginFinalizing, Complete    ended
//	status Completed             closed       Failed, Cancelled   lost
func providerNote(ev datatransfer.Event, st datatransfer.ChannelState) channelNote {
	n := channelNote{chid: st.ChannelID(), queued: voucher.Bytes(st.Queued())}
	switch ev.Code {
	case datatransfer.NewVoucher: // before the status: the last one may come late
		n.kind = noteVoucher
		if vouchers := st.Vouchers(); len(vouchers) > 0 {
			n.voucher = vouchers[len(vouchers)-1]
		}
		return n
	case datatransfer.BeginFinalizing, datatransfer.Complete:
		n.kind = noteEnded
		return n
	}
	if finalNote(&n, st) {
		return n
	}
	switch ev.Code {
	case datatransfer.DataQueuedProgress:
		n.kind = noteProgress
	case datatransfer.DataLimitExceeded:
		n.kind = noteStopped
	case datatransfer.TransferInitiated, datatransfer.Restart:
		n.kind = noteResumed
	}
	return n
}

// finalNote reads the states after which a channel does nothing more.
func finalNote(n *channelNote, st datatransfer.ChannelState) bool {
	switch st.Status() {
	case datatransfer.Completed:
		n.kind = noteClosed
	case datatransfer.Failed, datatransfer.Cancelled, datatransfer.Failing, datatransfer.Cancelling:
		n.kind, n.reason = noteLost, st.Message()
	default:
		return false
	}
	return true
}
