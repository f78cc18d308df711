package transport

import (
	"context"
	"testing"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-data-transfer/v2/message"
	"github.com/filecoin-project/go-data-transfer/v2/message/types"
	dtnet "github.com/filecoin-project/go-data-transfer/v2/network"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
)

// sentMessages is a data-transfer network that notes what it is given.
type sentMessages struct {
	dtnet.DataTransferNetwork // nil: nothing else is used
	n                         int
}

func (s *sentMessages) SendMessage(context.Context, peer.ID, datatransfer.Message) error {
	s.n++
	return nil
}

// TestNoNews: a response that says what was so before is not sent, every other
// message is.
func TestNoNews(t *testing.T) {
	accepted := datatransfer.ValidationResult{Accepted: true, DataLimit: 5}
	with := accepted
	with.VoucherResult = &datatransfer.TypedVoucher{Voucher: basicnode.NewString("due"), Type: "test"}
	result := func(kind types.MessageType, r datatransfer.ValidationResult, paused bool) datatransfer.Message {
		m, err := message.ValidationResultResponse(kind, 7, r, nil, paused)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	voucherRequest, err := message.VoucherRequest(7, with.VoucherResult)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what string
		m    datatransfer.Message
		sent int
	}{
		{"a raised limit", result(types.VoucherResultMessage, accepted, false), 0},
		{"a raised limit that is still too low", result(types.VoucherResultMessage, accepted, true), 1},
		{"with an answer", result(types.VoucherResultMessage, with, false), 1},
		{"rejected", result(types.VoucherResultMessage, datatransfer.ValidationResult{}, false), 1},
		{"new", result(types.NewMessage, accepted, false), 1},
		{"restarted", result(types.RestartMessage, accepted, false), 1},
		{"complete", result(types.CompleteMessage, accepted, false), 1},
		{"paused", message.UpdateResponse(7, true), 1},
		{"resumed", message.UpdateResponse(7, false), 1},
		{"cancelled", message.CancelResponse(7), 1},
		{"a voucher", voucherRequest, 1},
	} {
		s := &sentMessages{}
		if err := newTransferNet(s, TransferGuard{}).SendMessage(t.Context(), "peer", tc.m); err != nil || s.n != tc.sent {
			t.Errorf("%s: sent %d times, %v", tc.what, s.n, err)
		}
	}
}
