package voucher

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ipld/go-ipld-prime/datamodel"
)

// fuzz feeds decode with anything. What it takes must be written again, and
// what is written must be taken and be the same: no two forms of one message,
// no value that only one side can hold. stable says that the decoder takes
// nothing but what is written, up to the order of keys, so that the length must
// stay; a selector may hold floats of several lengths.
func fuzz[T any](f *testing.F, decode func([]byte) (T, error), encode func(T) ([]byte, error), stable bool) {
	for _, v := range vectors(f) {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%x: %v does not wrap ErrMalformed", b, err)
			}
			return
		}
		written, err := encode(m)
		if err != nil {
			t.Fatalf("%x is taken as %+v, which has no form: %v", b, m, err)
		}
		if stable && len(written) != len(b) {
			t.Fatalf("%x is written as %x", b, written)
		}
		again, err := decode(written)
		if err != nil {
			t.Fatalf("%x is not taken: %v", written, err)
		}
		twice, err := encode(again)
		if err != nil || !bytes.Equal(twice, written) {
			t.Fatalf("%x is written as %x, %v", written, twice, err)
		}
	})
}

func onNode[T message](m T) ([]byte, error) { return marshal(m.Encode()) }

func FuzzDealProposal(f *testing.F) {
	fuzz(f, nodeDecoder(DecodeDealProposal), onNode[DealProposal], false)
}

func FuzzDealResponse(f *testing.F) {
	fuzz(f, nodeDecoder(DecodeDealResponse), onNode[DealResponse], true)
}

func FuzzDealPayment(f *testing.F) {
	fuzz(f, nodeDecoder(DecodeDealPayment), func(p DealPayment) ([]byte, error) {
		if _, err := Signer(p.PaymentVoucher); err != nil && !errors.Is(err, ErrSignature) {
			return nil, err // what is decoded has a form to be signed
		}
		return onNode(p)
	}, true)
}

func FuzzQuery(f *testing.F) { fuzz(f, UnmarshalQuery, Query.MarshalCBORMap, false) }

func FuzzQueryV0(f *testing.F) { fuzz(f, UnmarshalQueryV0, Query.MarshalTuple, true) }

func FuzzQueryResponse(f *testing.F) {
	fuzz(f, UnmarshalQueryResponse, QueryResponse.MarshalCBORMap, false)
}

func FuzzQueryResponseV0(f *testing.F) {
	f.Add(unhex(f, "8800001903f84300e8074200021a001000001a0010000060"))
	fuzz(f, UnmarshalQueryResponseV0, QueryResponse.MarshalTuple, false)
}

func nodeDecoder[T any](decode func(datamodel.Node) (T, error)) func([]byte) (T, error) {
	return func(b []byte) (T, error) {
		n, err := UnmarshalNode(b)
		if err != nil {
			return *new(T), err
		}
		return decode(n)
	}
}

// FuzzReadMessage: what the decoder takes, the stream reader has delimited to
// the byte, whatever comes behind it.
func FuzzReadMessage(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const atMost = 4096
		item, err := ReadMessage(bytes.NewReader(b), atMost)
		if err == nil && (len(item) > atMost || !bytes.HasPrefix(b, item)) {
			t.Fatalf("%x of %x", item, b)
		}
		if _, bad := UnmarshalNode(b); bad == nil && len(b) <= atMost && (err != nil || len(item) != len(b)) {
			t.Fatalf("%x, %v of %x, which is one item", item, err, b)
		}
	})
}

// FuzzAmountText: text for people and for machines reads to what is written.
func FuzzAmountText(f *testing.F) {
	for _, s := range []string{"0", "0.01FIL", "5 nanoFIL", "2500atto", "1.5milli", "340282366920938463463374607431768211455atto", "1e3FIL", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAmount(s); err == nil {
			if back, err := ParseAmount(a.FIL()); err != nil || back != a {
				t.Fatalf("%q is %s, reads as %s, %v", s, a.FIL(), back, err)
			}
		} else if !errors.Is(err, ErrAmount) {
			t.Fatalf("%q: %v", s, err)
		}
		var a, back Amount
		if err := a.UnmarshalText([]byte(s)); err == nil {
			if err := back.UnmarshalText([]byte(a.String())); err != nil || back != a {
				t.Fatalf("%q is %s, reads as %s, %v", s, a, back, err)
			}
		}
		if p, err := ParsePricePerGiB(s); err == nil && p.PerGiB().IsZero() != (p == 0) {
			t.Fatalf("%q is %d", s, p)
		}
		if b, err := ParseBytes(s); err != nil && !errors.Is(err, ErrBytes) {
			t.Fatalf("%q: %d, %v", s, b, err)
		}
	})
}
