package validation

import (
	"errors"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/tollgraph/tollgraph/revalidator"
	"github.com/tollgraph/tollgraph/voucher"
)

// stubBook opens everything with one grant, or fails as it is told.
type stubBook struct {
	grant Grant
	err   error
	panic bool
}

func (b stubBook) Offer(peer.ID, voucher.DealProposal) (Offer, error) {
	if b.panic {
		panic("book")
	}
	return Offer{}, nil
}

func (b stubBook) Open(_ datatransfer.ChannelID, p voucher.DealProposal) (Grant, voucher.DealResponse, error) {
	return b.grant, voucher.DealResponse{Status: voucher.DealStatusAccepted, ID: p.ID}, b.err
}

func (b stubBook) Restart(_ datatransfer.ChannelID, p voucher.DealProposal, _ voucher.Bytes) (Grant, voucher.DealResponse, error) {
	return b.grant, voucher.DealResponse{Status: voucher.DealStatusAccepted, ID: p.ID}, b.err
}

// TestResult pins the translation into data-transfer's words, where a limit of
// 0 means none.
func TestResult(t *testing.T) {
	for name, tc := range map[string]struct {
		grant Grant
		want  datatransfer.ValidationResult
	}{
		"limit":             {Grant{Verdict: revalidator.Verdict{Limit: 100, Settle: true}}, datatransfer.ValidationResult{Accepted: true, DataLimit: 100, RequiresFinalization: true}},
		"free":              {Grant{Verdict: revalidator.Verdict{Limit: voucher.MaxBytes}}, datatransfer.ValidationResult{Accepted: true}},
		"held":              {Grant{Verdict: revalidator.Verdict{Settle: true}}, datatransfer.ValidationResult{Accepted: true, ForcePause: true, DataLimit: 1, RequiresFinalization: true}},
		"later channel":     {Grant{Verdict: revalidator.Verdict{Limit: 100}, Offset: 60}, datatransfer.ValidationResult{Accepted: true, DataLimit: 40}},
		"nothing left":      {Grant{Verdict: revalidator.Verdict{Limit: 100}, Offset: 100}, datatransfer.ValidationResult{Accepted: true, ForcePause: true, DataLimit: 1}},
		"beyond":            {Grant{Verdict: revalidator.Verdict{Limit: 100}, Offset: 130}, datatransfer.ValidationResult{Accepted: true, ForcePause: true, DataLimit: 1}},
		"probe":             {Grant{Verdict: revalidator.Verdict{Limit: 100}, Probe: true}, datatransfer.ValidationResult{Accepted: true, DataLimit: 1}},
		"free is no probe":  {Grant{Verdict: revalidator.Verdict{Limit: voucher.MaxBytes}, Probe: true}, datatransfer.ValidationResult{Accepted: true}},
		"free with offset":  {Grant{Verdict: revalidator.Verdict{Limit: voucher.MaxBytes}, Offset: 9}, datatransfer.ValidationResult{Accepted: true}},
		"held is no probe":  {Grant{Verdict: revalidator.Verdict{}, Probe: true}, datatransfer.ValidationResult{Accepted: true, ForcePause: true, DataLimit: 1}},
		"settled, unpaused": {Grant{Verdict: revalidator.Verdict{Limit: 7}}, datatransfer.ValidationResult{Accepted: true, DataLimit: 7}},
	} {
		got, err := Result(tc.grant, nil, voucher.Maps)
		if err != nil || !got.Equals(tc.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, tc.want)
		}
	}
}

func proposalNode(t *testing.T) (voucher.DealProposal, datamodel.Node) {
	t.Helper()
	p := voucher.DealProposal{PayloadCID: testCID(t, "root"), ID: 7}
	n, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return p, n
}

// TestRefusalsCrossTheWire: each refusal arrives as its code and reason.
func TestRefusalsCrossTheWire(t *testing.T) {
	p, node := proposalNode(t)
	for r := voucher.RefusedPrice; r <= voucher.RefusedPeer; r++ {
		v := Validator{Book: stubBook{err: r}}
		got, err := v.ValidatePull(datatransfer.ChannelID{}, "", node, p.PayloadCID, nil)
		if err != nil || got.Accepted || got.VoucherResult == nil {
			t.Fatalf("%v: %+v, %v", r, got, err)
		}
		reply, err := voucher.DecodeDealResponse(got.VoucherResult.Voucher)
		if err != nil {
			t.Fatal(err)
		}
		code, _, ok := voucher.ParseRefusal(reply.Message)
		want := voucher.DealStatusRejected
		if r == voucher.RefusedContent {
			want = voucher.DealStatusDealNotFound
		}
		if !ok || code != r || reply.Status != want || reply.ID != 7 {
			t.Errorf("%v came as %v %+v", r, code, reply)
		}
	}
}

func TestValidator(t *testing.T) {
	p, node := proposalNode(t)
	if _, err := (Validator{}).ValidatePush(datatransfer.ChannelID{}, "", node, p.PayloadCID, nil); !errors.Is(err, ErrPush) {
		t.Errorf("push: %v", err)
	}
	ok, err := Validator{Book: stubBook{grant: Grant{Verdict: revalidator.Verdict{Limit: 5}}}}.ValidatePull(datatransfer.ChannelID{}, "", node, p.PayloadCID, nil)
	if err != nil || !ok.Accepted || ok.DataLimit != 5 || ok.VoucherResult == nil {
		t.Errorf("accepted: %+v, %v", ok, err)
	}
	for name, bad := range map[string]datamodel.Node{"nil": nil, "null": datamodel.Null, "text": basicnode.NewString("x")} {
		got, err := Validator{Book: stubBook{}}.ValidatePull(datatransfer.ChannelID{}, "", bad, p.PayloadCID, nil)
		if err != nil || got.Accepted {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := (Validator{Book: stubBook{panic: true}}).ValidatePull(datatransfer.ChannelID{}, "", node, p.PayloadCID, nil); err == nil || got.Accepted {
		t.Errorf("a panic became %+v, %v", got, err)
	}
}
