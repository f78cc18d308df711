package transport

import (
	"bytes"
	"errors"
	"fmt"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/transport/graphsync/extension"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A Reason is why something from a peer was not let through. Reasons are the
// keys of the statistics.
type Reason string

// The reasons.
const (
	ReasonMalformed   Reason = "malformed"    // a part is missing, null or undecodable
	ReasonExtension   Reason = "extension"    // an extension that is not served
	ReasonNoTransfer  Reason = "no-transfer"  // no data-transfer message, or one that is not a pull
	ReasonMismatch    Reason = "mismatch"     // root or selector differ from the data-transfer message
	ReasonLive        Reason = "live"         // the channel already has a live request
	ReasonBound       Reason = "bound"        // goes beyond what its channel may be sent
	ReasonSkip        Reason = "skip"         // asks for links it claimed to hold before
	ReasonDuplicate   Reason = "duplicate"    // the request id is in use
	ReasonBusy        Reason = "busy"         // too many live requests of one peer
	ReasonRate        Reason = "rate"         // too many requests per second or message
	ReasonNotOwner    Reason = "not-owner"    // cancels or updates a request that is not the peer's
	ReasonUpdate      Reason = "update"       // an update that is not a voucher
	ReasonResent      Reason = "resent"       // had too much sent again
	ReasonEndless     Reason = "endless"      // follows links to what it has been sent, without end
	ReasonNotAdmitted Reason = "not-admitted" // refused by GuardConfig.Admit
	ReasonPanic       Reason = "panic"        // handling it panicked
	ReasonTransfer    Reason = "transfer"     // a data-transfer message that may not come this way
)

// A Refusal is the error for something that was not let through. Its text is
// for this node's log: graphsync tells the peer only that the request failed.
type Refusal struct {
	Reason Reason
	Detail string
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused (%s): %s", r.Reason, r.Detail) }

func refuse(why Reason, format string, args ...any) *Refusal {
	return &Refusal{why, fmt.Sprintf(format, args...)}
}

// reasonOf returns the reason of a refusal, or other.
func reasonOf(err error, other Reason) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return other
}

// Incoming is a request from a peer for data, checked: the graphsync request
// and the data-transfer message in it agree.
type Incoming struct {
	ID        graphsync.RequestID
	Channel   datatransfer.ChannelID // Initiator is the peer that sent it
	Restart   bool
	Root      cid.Cid
	Selector  datamodel.Node
	SkipLinks int64 // ≥ 0
}

// maxDedupKey is the longest deduplication key let through, in bytes. The one
// that data-transfer uses has about 150.
const maxDedupKey = 512

// named is the part of a graphsync request that lists its extensions.
type named interface {
	ExtensionNames() []graphsync.ExtensionName
}

// examine checks a request from p to self. It is pure.
//
// Graphsync serves the request's root and selector while data-transfer
// validates those of its own message, and any data-transfer message at all
// makes a request valid. So: exactly one message, a pull that is new or a
// restart, for the same root and the same selector, and no extension that could
// change what is counted.
func examine(self, p peer.ID, req graphsync.RequestData) (Incoming, error) {
	if err := checkExtensions(req); err != nil {
		return Incoming{}, err
	}
	skip, err := skipLinks(req)
	if err != nil {
		return Incoming{}, err
	}
	msg, err := pullMessage(req)
	if err != nil {
		return Incoming{}, err
	}
	in := Incoming{
		ID:        req.ID(),
		Channel:   datatransfer.ChannelID{ID: msg.TransferID(), Initiator: p, Responder: self},
		Restart:   msg.IsRestart(),
		Root:      req.Root(),
		Selector:  req.Selector(),
		SkipLinks: skip,
	}
	return in, checkSame(in, msg)
}

// checkExtensions refuses unknown and null extensions.
func checkExtensions(req graphsync.RequestData) error {
	if n, ok := req.(named); ok {
		for _, name := range n.ExtensionNames() {
			switch name {
			case extension.ExtensionDataTransfer1_1, graphsync.ExtensionDeDupByKey, graphsync.ExtensionsDoNotSendFirstBlocks:
			default:
				return refuse(ReasonExtension, "extension %.64q is not served", string(name))
			}
			if v, _ := req.Extension(name); isNull(v) {
				return refuse(ReasonMalformed, "extension %q is null", string(name))
			}
		}
	}
	// Also for a request that does not list its extensions.
	if _, has := req.Extension(graphsync.ExtensionDoNotSendCIDs); has {
		return refuse(ReasonExtension, "extension %q is not served", string(graphsync.ExtensionDoNotSendCIDs))
	}
	key, has := req.Extension(graphsync.ExtensionDeDupByKey)
	if !has {
		return nil
	}
	if isNull(key) {
		return refuse(ReasonMalformed, "deduplication key is null")
	}
	if s, err := key.AsString(); err != nil || len(s) > maxDedupKey {
		return refuse(ReasonMalformed, "deduplication key is not a string of at most %d bytes", maxDedupKey)
	}
	return nil
}

// isNull says that n cannot be read: it is absent or IPLD null.
func isNull(n datamodel.Node) bool { return n == nil || n.IsNull() || n.IsAbsent() }

// skipLinks returns how many links req asks to leave out.
func skipLinks(req graphsync.RequestData) (int64, error) {
	n, has := req.Extension(graphsync.ExtensionsDoNotSendFirstBlocks)
	if !has {
		return 0, nil
	}
	if isNull(n) {
		return 0, refuse(ReasonMalformed, "number of links to skip is null")
	}
	skip, err := n.AsInt()
	if err != nil || skip < 0 {
		return 0, refuse(ReasonMalformed, "number of links to skip is not a natural number")
	}
	return skip, nil
}

// pullMessage returns the data-transfer message of req if it opens or restarts
// a pull.
func pullMessage(req extension.GsExtended) (datatransfer.Request, error) {
	m, err := transferRequest(req)
	if err != nil {
		return nil, err
	}
	if !m.IsNew() && !m.IsRestart() || m.IsCancel() || m.IsUpdate() {
		return nil, refuse(ReasonNoTransfer, "data-transfer message neither opens nor restarts a channel")
	}
	if !m.IsPull() {
		return nil, refuse(ReasonNoTransfer, "data-transfer message is a push")
	}
	return m, nil
}

// transferRequest returns the data-transfer request in an extension of req.
func transferRequest(req extension.GsExtended) (datatransfer.Request, error) {
	n, has := req.Extension(extension.ExtensionDataTransfer1_1)
	if !has {
		return nil, refuse(ReasonNoTransfer, "no data-transfer message")
	}
	if isNull(n) {
		return nil, refuse(ReasonMalformed, "data-transfer message is null")
	}
	msg, err := extension.GetTransferData(req, []graphsync.ExtensionName{extension.ExtensionDataTransfer1_1})
	if err != nil || msg == nil {
		return nil, refuse(ReasonMalformed, "data-transfer message: %v", err)
	}
	m, ok := msg.(datatransfer.Request)
	if !ok || !msg.IsRequest() {
		return nil, refuse(ReasonNoTransfer, "data-transfer message is a response")
	}
	return m, nil
}

// checkSame refuses a request whose root or selector is not that of its
// data-transfer message.
func checkSame(in Incoming, msg datatransfer.Request) error {
	if !in.Root.Defined() || isNull(in.Selector) {
		return refuse(ReasonMalformed, "request has no root or no selector")
	}
	if !msg.BaseCid().Equals(in.Root) {
		return refuse(ReasonMismatch, "asks for root %s with a message for %s", in.Root, msg.BaseCid())
	}
	sel, err := msg.Selector()
	if err != nil || isNull(sel) {
		return refuse(ReasonMalformed, "data-transfer message has no selector")
	}
	if !sameNode(sel, in.Selector) {
		return refuse(ReasonMismatch, "selector differs from the one in the message")
	}
	if _, err := selector.ParseSelector(in.Selector); err != nil {
		return refuse(ReasonMalformed, "selector: %v", err)
	}
	if v, err := msg.Voucher(); err != nil || v == nil {
		return refuse(ReasonMalformed, "data-transfer message has no voucher")
	}
	return nil
}

// sameNode says whether a and b are the same data, map order aside. It compares
// their canonical bytes: datamodel.DeepEqual panics on integers above 1<<63-1,
// which any peer may send.
func sameNode(a, b datamodel.Node) bool {
	x, err := ipld.Encode(a, dagcbor.Encode)
	if err != nil {
		return false
	}
	y, err := ipld.Encode(b, dagcbor.Encode)
	return err == nil && bytes.Equal(x, y)
}
