package voucher

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	cid "github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// readResponseV0 reads a whole response, and that nothing is behind it.
func readResponseV0(r io.Reader) (ResponseV0, error) {
	in := NewReaderV0(r)
	d, n, err := in.Response()
	if err != nil {
		return ResponseV0{}, err
	}
	out := ResponseV0{DealResponse: d}
	for range n {
		b, err := in.Block()
		if err != nil {
			return ResponseV0{}, err
		}
		out.Blocks = append(out.Blocks, b)
	}
	if _, err := in.Block(); err != io.EOF {
		return ResponseV0{}, errors.New("one block more than there are")
	}
	return out, nil
}

func sameV0(a, b ProposalV0) bool {
	return a.Once == b.Once && a.Skip == b.Skip && same(a.DealProposal, b.DealProposal)
}

// TestVectorsV0 holds the codec to the tuples of the network of its time, byte
// for byte and both ways.
func TestVectorsV0(t *testing.T) {
	c := hello(t)
	piece := proposal(t, DefaultSelector())
	piece.Params.PieceCID = &c
	terms := "4200021a001000001a00100000"
	for want, p := range map[string]ProposalV0{
		"83" + helloLink + "0185f6f6" + terms:                        {DealProposal: proposal(t, nil)},
		"83" + helloLink + "0185" + exploreAll + helloLink + terms:   {DealProposal: piece},
		"84" + helloLink + "0185f6f6" + terms + "00":                 {DealProposal: proposal(t, nil), Once: true},
		"84" + helloLink + "0185f6f6" + terms + "1903e8":             {DealProposal: proposal(t, nil), Once: true, Skip: 1000},
		"83" + helloLink + "0085f6f6400000":                          {DealProposal: DealProposal{PayloadCID: c}},
		"84" + helloLink + maxUint + "85f6f640" + "0000" + maxUint:   {DealProposal: DealProposal{PayloadCID: c, ID: ^DealID(0)}, Once: true, Skip: ^uint64(0)},
		"83" + helloLink + "0085f6f6" + maxPrice + maxUint + maxUint: {DealProposal: DealProposal{PayloadCID: c, Params: Params{PricePerByte: ^Price(0), PaymentInterval: MaxBytes, PaymentIntervalIncrease: MaxBytes}}},
	} {
		got, err := p.MarshalCBOR()
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("proposal\n got %x, %v\nwant %s", got, err, want)
		}
		back, err := NewReaderV0(openStream{bytes.NewReader(unhex(t, want))}).Proposal()
		if err != nil || !sameV0(back, p) {
			t.Errorf("proposal %s\n got %+v, %v\nwant %+v", want, back, err, p)
		}
	}
	block := Block{unhex(t, "01551220"), []byte("hello")}
	text := "66" + hex.EncodeToString([]byte("sorry!"))
	for want, r := range map[string]ResponseV0{
		"850601406080":           {DealResponse: DealResponse{Status: DealStatusAccepted, ID: 1}},
		"85080140" + text + "80": {DealResponse: DealResponse{Status: DealStatusRejected, ID: 1, Message: "sorry!"}},
		"850901440020000060818244015512204568656c6c6f":                 {DealResponse{Status: DealStatusFundsNeeded, ID: 1, PaymentOwed: Atto(2097152)}, []Block{block}},
		"850a01406082" + strings.Repeat("8244015512204568656c6c6f", 2): {DealResponse{Status: DealStatusOngoing, ID: 1}, []Block{block, block}},
		"850b014200056080": {DealResponse: DealResponse{Status: DealStatusFundsNeededLastPayment, ID: 1, PaymentOwed: Atto(5)}},
		"850c01406080":     {DealResponse: DealResponse{Status: DealStatusCompleted, ID: 1}},
		"850d01406080":     {DealResponse: DealResponse{Status: DealStatusDealNotFound, ID: 1}},
		"850f01406080":     {DealResponse: DealResponse{Status: DealStatusErrored, ID: 1}},
		"851001406080":     {DealResponse: DealResponse{Status: DealStatusBlocksComplete, ID: 1}},
		"851101406080":     {DealResponse: DealResponse{Status: DealStatusFinalizing, ID: 1}},
	} {
		got, err := r.MarshalCBOR()
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("response\n got %x, %v\nwant %s", got, err, want)
		}
		back, err := readResponseV0(openStream{bytes.NewReader(unhex(t, want))})
		if err != nil || !equalResponse(back, r) {
			t.Errorf("response %s\n got %+v, %v\nwant %+v", want, back, err, r)
		}
	}
	failed, err := readResponseV0(bytes.NewReader(unhex(t, "850701406080")))
	if err != nil || failed.Status != DealStatusErrored {
		t.Errorf("failed is read as %+v, %v", failed, err)
	}
	cancelled, err := ResponseV0{DealResponse: DealResponse{Status: DealStatusCancelled, ID: 1}}.MarshalCBOR()
	if err != nil || hex.EncodeToString(cancelled) != "850f01406080" {
		t.Errorf("cancelled is said as %x, %v", cancelled, err)
	}
	pay := DealPayment{ID: 1, PaymentChannel: addr(t, channelHex), PaymentVoucher: payment(t, signature(1))}
	want := "830155" + channelHex + voucherHex + "584201" + strings.Repeat("aa", 65)
	if got, err := pay.MarshalTuple(); err != nil || hex.EncodeToString(got) != want {
		t.Errorf("payment\n got %x, %v\nwant %s", got, err, want)
	}
	if got, err := NewReaderV0(openStream{bytes.NewReader(unhex(t, want))}).Payment(); err != nil || !same(got, pay) {
		t.Errorf("payment is read as %+v, %v", got, err)
	}
}

func equalResponse(a, b ResponseV0) bool {
	if a.DealResponse != b.DealResponse || len(a.Blocks) != len(b.Blocks) {
		return false
	}
	for i := range a.Blocks {
		if !bytes.Equal(a.Blocks[i].Prefix, b.Blocks[i].Prefix) || !bytes.Equal(a.Blocks[i].Data, b.Blocks[i].Data) {
			return false
		}
	}
	return true
}

// TestRoundTripsV0: whatever can be said arrives as it was said, however it is
// cut on the way, and one message does not take from the next.
func TestRoundTripsV0(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := ProposalV0{DealProposal: genProposal().Draw(t, "proposal")}
		p.Params.UnsealPrice = Amount{}
		if p.Once = rapid.Bool().Draw(t, "once"); p.Once {
			p.Skip = genWord().Draw(t, "skip")
		}
		pay := DealPayment{ID: p.ID, PaymentChannel: genAddress().Draw(t, "channel"), PaymentVoucher: genVoucher().Draw(t, "voucher")}
		if s := pay.PaymentVoucher.Signature; s != nil && s.Data == nil {
			s.Data = []byte{}
		}
		first, err := p.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		second, err := pay.MarshalTuple()
		if err != nil {
			t.Fatal(err)
		}
		in := NewReaderV0(iotest.OneByteReader(bytes.NewReader(append(first, second...))))
		if got, err := in.Proposal(); err != nil || !sameV0(got, p) {
			t.Fatalf("%x is %+v, %v, want %+v", first, got, err, p)
		}
		if got, err := in.Payment(); err != nil || !same(got, pay) {
			t.Fatalf("%x is %+v, %v, want %+v", second, got, err, pay)
		}
		if _, err := in.Payment(); !errors.Is(err, io.EOF) {
			t.Fatalf("behind the last message: %v", err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		r := ResponseV0{DealResponse: DealResponse{
			Status: rapid.SampledFrom([]DealStatus{DealStatusAccepted, DealStatusOngoing, DealStatusCompleted, DealStatusErrored}).Draw(t, "status"),
			ID:     DealID(genWord().Draw(t, "id")), PaymentOwed: genAmount().Draw(t, "owed"), Message: genText().Draw(t, "message"),
		}}
		data := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 300), rapid.Just(make([]byte, 70000)), rapid.Just([]byte{}))
		for range rapid.IntRange(0, 30).Draw(t, "blocks") {
			r.Blocks = append(r.Blocks, BlockOf(genCID().Draw(t, "cid"), data.Draw(t, "data")))
		}
		b, err := r.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := readResponseV0(iotest.HalfReader(bytes.NewReader(b))); err != nil || !equalResponse(back, r) {
			t.Fatalf("%x is %+v, %v", b, back, err)
		}
	})
}

// TestLimitsV0: what is just within is taken, what is just beyond is not, and
// not by allocating for it.
func TestLimitsV0(t *testing.T) {
	c := hello(t)
	largest := ResponseV0{DealResponse: DealResponse{Status: DealStatusOngoing}, Blocks: []Block{BlockOf(c, make([]byte, MaxBlockV0))}}
	b, err := largest.MarshalCBOR()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := readResponseV0(bytes.NewReader(b)); err != nil || len(back.Blocks[0].Data) != MaxBlockV0 {
		t.Errorf("largest block: %v", err)
	}
	largest.Blocks[0].Data = make([]byte, MaxBlockV0+1)
	if _, err := largest.MarshalCBOR(); err == nil {
		t.Error("a block above the limit was written")
	}
	if _, err := (ResponseV0{DealResponse: largest.DealResponse, Blocks: make([]Block, MaxBlocksV0+1)}).MarshalCBOR(); err == nil {
		t.Error("more blocks than the limit were written")
	}
	if _, err := (ResponseV0{DealResponse: DealResponse{Status: DealStatusUnsealing}}).MarshalCBOR(); err == nil {
		t.Error("a status without a number was written")
	}
	priced := ProposalV0{DealProposal: DealProposal{PayloadCID: c, Params: Params{UnsealPrice: Atto(1)}}}
	if _, err := priced.MarshalCBOR(); err == nil {
		t.Error("an unseal price was dropped")
	}
	for _, bad := range []struct {
		hex  string
		want error
	}{
		{"", io.EOF}, {"85", io.ErrUnexpectedEOF}, {"850601", io.ErrUnexpectedEOF}, {"8506014060", io.ErrUnexpectedEOF},
		{"84060140" + "60", ErrMalformed}, {"86060140608000", ErrTooLarge}, {"a0", ErrMalformed}, {"850001406080", ErrMalformed},
		{"851201406080", ErrMalformed}, {"85060140607f", ErrMalformed}, {"8506014060a0", ErrMalformed},
		{"8506014060" + "992001", ErrTooLarge}, {"85060140609b7fffffffffffffff", ErrTooLarge},
		{"850a01406081", io.ErrUnexpectedEOF}, {"850a0140608180", ErrMalformed}, {"850a01406081" + "8345", ErrTooLarge},
		{"850a01406081" + "8244", io.ErrUnexpectedEOF}, {"850a01406081" + "8261", io.ErrUnexpectedEOF}, {"850a01406081" + "826161", ErrMalformed},
		{"850a01406081" + "825841", io.ErrUnexpectedEOF}, {"850a01406081" + "825851", ErrTooLarge},
		{"850a01406081" + "8244015512205a00200001", io.ErrUnexpectedEOF}, {"850a01406081" + "8244015512205a7fffffff", ErrTooLarge},
		{"850601580203006080", ErrMalformed}, // an amount with a sign
	} {
		if got, err := readResponseV0(bytes.NewReader(unhex(t, bad.hex))); !errors.Is(err, bad.want) {
			t.Errorf("%s: %+v, %v, want %v", bad.hex, got, err, bad.want)
		}
	}
	over := "850a01406081" + "8244015512205a00200001" + strings.Repeat("00", MaxBlockV0+1)
	if _, err := readResponseV0(bytes.NewReader(unhex(t, over))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a block of one byte too many: %v", err)
	}
	in := NewReaderV0(bytes.NewReader(unhex(t, "850a014060818244015512204568656c6c6f850c01406080")))
	if _, _, err := in.Response(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.Response(); err == nil {
		t.Error("a response was read over the blocks of the last one")
	}
}

// TestBlockVerify: only the block itself passes.
func TestBlockVerify(t *testing.T) {
	c := hello(t)
	v0 := cid.NewCidV0(c.Hash())
	pb := cid.NewCidV1(cid.DagProtobuf, c.Hash())
	for name, bad := range map[string]Block{
		"other data": BlockOf(c, []byte("hellO")), "no data": BlockOf(c, nil), "cut": BlockOf(c, []byte("hell")),
		"other codec": BlockOf(pb, []byte("hello")), "other version": BlockOf(v0, []byte("hello")), "no prefix": {nil, []byte("hello")},
		"identity": {unhex(t, "01550005"), []byte("hello")}, "other hash": {unhex(t, "01551320"), []byte("hello")},
	} {
		if err := bad.Verify(c); !errors.Is(err, ErrWrongBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, good := range []cid.Cid{c, pb, v0} {
		if err := BlockOf(good, []byte("hello")).Verify(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func FuzzProposalV0(f *testing.F) {
	f.Add(unhex(f, "84"+helloLink+"0185f6f64200021a001000001a001000001903e8"))
	fuzz(f, UnmarshalProposalV0, ProposalV0.MarshalCBOR, false)
}

func FuzzDealPaymentV0(f *testing.F) {
	f.Add(unhex(f, "830155"+channelHex+voucherHex+"f6"))
	fuzz(f, UnmarshalDealPaymentV0, DealPayment.MarshalTuple, true)
}

// FuzzResponseV0: a hostile provider's stream is read within its limits, and what
// is taken can be said again and is then the same.
func FuzzResponseV0(f *testing.F) {
	for _, s := range []string{"850601406080", "850901440020000060818244015512204568656c6c6f", "8507014060818240" + "40", "85060140609b7fffffffffffffff"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readResponseV0(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%x: %v", b, err)
			}
			return
		}
		written, err := r.MarshalCBOR()
		if err != nil {
			t.Fatalf("%x is taken as %+v, which has no form: %v", b, r, err)
		}
		if again, err := readResponseV0(bytes.NewReader(written)); err != nil || !equalResponse(again, r) {
			t.Fatalf("%x is written as %x, read as %+v, %v", b, written, again, err)
		}
	})
}
