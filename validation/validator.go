package validation

import (
	"errors"
	"fmt"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// Grant is what a book gives a channel of a deal that it accepted.
type Grant struct {
	Verdict revalidator.Verdict
	// Offset is how many of the deal's bytes were moved by earlier channels
	// before the point at which this one starts.
	Offset voucher.Bytes
	// Ahead is by how much data-transfer's count of the channel is ahead of the
	// deal's.
	Ahead voucher.Bytes
	// Probe says that Offset is not known before the first block: the channel
	// runs for one block and then waits for the verdict.
	Probe bool
	// Queued is how many bytes the channel had queued, by data-transfer's count,
	// when it was restarted. A Probe begins there.
	Queued voucher.Bytes
}

// May returns how many bytes the channel may have queued in all before it stops
// behind the block that reaches it: 0 holds the channel, voucher.MaxBytes frees
// it.
func (g Grant) May() voucher.Bytes {
	switch {
	case g.Verdict.Limit == voucher.MaxBytes:
		return voucher.MaxBytes
	case g.Verdict.Limit <= g.Offset:
		return 0
	case g.Probe:
		return g.Queued.Add(1)
	}
	return (g.Verdict.Limit - g.Offset).Add(g.Ahead)
}

// Book is where accepted deals are opened. Its methods run on graphsync's one
// response goroutine, under a lock of data-transfer's: they must answer from
// memory and must not call a data-transfer manager.
type Book interface {
	// Offer returns what holds for a client and a proposal, or an error that
	// wraps a voucher.Refusal: the content is not there, or the provider is
	// busy.
	Offer(from peer.ID, p voucher.DealProposal) (Offer, error)
	// Open begins a deal, or continues the one that the same client began with
	// the same proposal, on channel chid.
	Open(chid datatransfer.ChannelID, p voucher.DealProposal) (Grant, voucher.DealResponse, error)
	// Restart is Open for a channel that data-transfer restarts.
	Restart(chid datatransfer.ChannelID, p voucher.DealProposal, queued voucher.Bytes) (Grant, voucher.DealResponse, error)
}

// Validator is go-data-transfer's RequestValidator over a Book, for the proposals
// of one form, which it answers in that form. It never blocks, and never panics:
// what does is turned into a refusal.
type Validator struct {
	Book Book
	Form voucher.Form
}

var _ datatransfer.RequestValidator = Validator{}

// ErrPush is what every push is refused with: a provider sells, it does not
// take.
var ErrPush = errors.New("pushes are not accepted")

// ValidatePush refuses.
func (Validator) ValidatePush(datatransfer.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (datatransfer.ValidationResult, error) {
	return datatransfer.ValidationResult{}, ErrPush
}

// ValidatePull decides whether the deal that vouch proposes may begin.
func (v Validator) ValidatePull(chid datatransfer.ChannelID, from peer.ID, vouch datamodel.Node, root cid.Cid, sel datamodel.Node) (_ datatransfer.ValidationResult, err error) {
	defer recovered(&err)
	p, err := v.Form.DecodeProposal(vouch)
	if err != nil {
		return v.refuse(0, fmt.Errorf("%w: %w", voucher.RefusedTerms, err))
	}
	grant, reply, err := Accept(v.Book, chid, from, p, root, sel)
	if err != nil {
		return v.refuse(p.ID, err)
	}
	return Result(grant, &reply, v.Form)
}

// Accept opens the deal that p proposes in b, or continues it, on channel chid,
// if it may begin. root and sel are what the channel itself asks for. The error
// wraps a voucher.Refusal: see Refusal.
func Accept(b Book, chid datatransfer.ChannelID, from peer.ID, p voucher.DealProposal, root cid.Cid, sel datamodel.Node) (Grant, voucher.DealResponse, error) {
	offer, err := b.Offer(from, p)
	if err != nil {
		return Grant{}, voucher.DealResponse{}, err
	}
	if err := Check(offer, p, root, sel); err != nil {
		return Grant{}, voucher.DealResponse{}, err
	}
	return b.Open(chid, p)
}

// ValidateRestart decides whether a channel that broke may go on.
func (v Validator) ValidateRestart(chid datatransfer.ChannelID, st datatransfer.ChannelState) (_ datatransfer.ValidationResult, err error) {
	defer recovered(&err)
	p, err := v.Form.DecodeProposal(st.Voucher().Voucher)
	if err != nil {
		return v.refuse(0, fmt.Errorf("%w: %w", voucher.RefusedTerms, err))
	}
	grant, reply, err := v.Book.Restart(chid, p, voucher.Bytes(st.Queued()))
	if err != nil {
		return v.refuse(p.ID, err)
	}
	return Result(grant, &reply, v.Form)
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: validation panicked: %v", voucher.RefusedInternal, r)
	}
}

// refuse turns err into the answer that crosses the wire: a rejection with the
// refusal's code and its reason.
func (v Validator) refuse(id voucher.DealID, err error) (datatransfer.ValidationResult, error) {
	reply := Refusal(id, err)
	result, encErr := Reply(&reply, v.Form)
	return datatransfer.ValidationResult{VoucherResult: result}, encErr
}

// Reply returns r as a voucher result, nil for nil.
func Reply(r *voucher.DealResponse, form voucher.Form) (*datatransfer.TypedVoucher, error) {
	if r == nil {
		return nil, nil
	}
	node, err := form.EncodeResponse(*r)
	if err != nil {
		return nil, err
	}
	return &datatransfer.TypedVoucher{Voucher: node, Type: datatransfer.TypeIdentifier(form.ResponseType())}, nil
}

// Refusal returns the response that tells a client why. Content that is not
// there has a status of its own on the wire; everything else is Rejected.
func Refusal(id voucher.DealID, err error) voucher.DealResponse {
	code := voucher.RefusedInternal
	errors.As(err, &code)
	status := voucher.DealStatusRejected
	if code == voucher.RefusedContent {
		status = voucher.DealStatusDealNotFound
	}
	return voucher.DealResponse{Status: status, ID: id, Message: code.Message(err.Error())}
}

// Result says a grant in go-data-transfer's words, where a DataLimit of 0
// means none and counts what this channel queued. reply, if not nil, goes with
// it.
func Result(g Grant, reply *voucher.DealResponse, form voucher.Form) (r datatransfer.ValidationResult, err error) {
	if r.VoucherResult, err = Reply(reply, form); err != nil {
		return datatransfer.ValidationResult{}, err
	}
	r.Accepted, r.RequiresFinalization = true, g.Verdict.Settle
	switch may := g.May(); may {
	case voucher.MaxBytes:
	case 0:
		r.ForcePause, r.DataLimit = true, 1
	default:
		r.DataLimit = uint64(may)
	}
	return r, nil
}
