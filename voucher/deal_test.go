package voucher

import "testing"

// TestDealStatus: the numbers are on the wire.
func TestDealStatus(t *testing.T) {
	for s, want := range map[DealStatus]string{
		0: "New", 1: "Unsealing", 2: "Unsealed", 3: "WaitForAcceptance", 4: "PaymentChannelCreating",
		5: "PaymentChannelAddingFunds", 6: "Accepted", 7: "FundsNeededUnseal", 8: "Failing", 9: "Rejected",
		10: "FundsNeeded", 11: "SendFunds", 12: "SendFundsLastPayment", 13: "Ongoing", 14: "FundsNeededLastPayment",
		15: "Completed", 16: "DealNotFound", 17: "Errored", 18: "BlocksComplete", 19: "Finalizing", 20: "Completing",
		21: "CheckComplete", 22: "CheckFunds", 23: "InsufficientFunds", 24: "PaymentChannelAllocatingLane",
		25: "Cancelling", 26: "Cancelled", 27: "RetryLegacy", 28: "WaitForAcceptanceLegacy",
		29: "ClientWaitingForLastBlocks", 30: "PaymentChannelAddingInitialFunds", 31: "Erroring", 32: "Rejecting",
		33: "DealNotFoundCleanup", 34: "FinalizingBlockstore", 35: "DealStatus(35)", 1 << 63: "DealStatus(9223372036854775808)",
	} {
		if s.String() != want {
			t.Errorf("%d is %s, want %s", uint64(s), s, want)
		}
	}
	for s, want := range map[DealStatus]uint64{
		DealStatusAccepted: 6, DealStatusFundsNeededUnseal: 7, DealStatusRejected: 9, DealStatusFundsNeeded: 10,
		DealStatusFundsNeededLastPayment: 14, DealStatusCompleted: 15, DealStatusDealNotFound: 16, DealStatusErrored: 17,
		DealStatusCancelled: 26, DealStatusFinalizingBlockstore: 34,
	} {
		if uint64(s) != want {
			t.Errorf("%s is %d, want %d", s, uint64(s), want)
		}
	}
}

func TestQueryStatus(t *testing.T) {
	for got, want := range map[string]string{
		QueryResponseAvailable.String(): "available", QueryResponseUnavailable.String(): "unavailable",
		QueryResponseError.String(): "error", QueryResponseStatus(3).String(): "3", QueryItemUnknown.String(): "unknown",
		QueryItemStatus(1 << 63).String(): "9223372036854775808",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestRetrievalPrice(t *testing.T) {
	q := QueryResponse{Size: 1000, MinPricePerByte: 3, UnsealPrice: Atto(7)}
	if got := q.PieceRetrievalPrice(); got != Atto(3007) {
		t.Errorf("piece costs %s", got)
	}
	if got, ok := q.PayloadRetrievalPrice(); ok || !got.IsZero() {
		t.Errorf("payload of unknown size costs %s", got)
	}
	q.ExpectedPayloadSize = ptr(Bytes(0))
	if got, ok := q.PayloadRetrievalPrice(); !ok || got != Atto(7) {
		t.Errorf("empty payload costs %s, %v", got, ok)
	}
	q.ExpectedPayloadSize = ptr(Bytes(10))
	if got, ok := q.PayloadRetrievalPrice(); !ok || got != Atto(37) {
		t.Errorf("payload costs %s, %v", got, ok)
	}
	q = QueryResponse{Size: MaxBytes, MinPricePerByte: Price(MaxBytes), UnsealPrice: MaxAmount}
	if got := q.PieceRetrievalPrice(); got != MaxAmount {
		t.Errorf("the dearest piece costs %s", got)
	}
}

func TestAskValidate(t *testing.T) {
	for _, c := range []struct {
		ask  Ask
		want error
	}{
		{Ask{}, nil}, {Ask{UnsealPrice: Atto(1)}, nil}, {Ask{PaymentIntervalIncrease: 1}, nil},
		{Ask{PricePerByte: 1, PaymentInterval: 1}, nil}, {Ask{PricePerByte: 1}, ErrNoInterval},
		{Ask{PricePerByte: 1, PaymentIntervalIncrease: 1}, ErrNoInterval},
	} {
		if err := c.ask.Validate(); err != c.want {
			t.Errorf("%+v: %v, want %v", c.ask, err, c.want)
		}
	}
}
