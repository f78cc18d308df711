package voucher

import (
	"errors"
	"fmt"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// What a signed voucher may hold at most. No payment that we accept holds any
// of these at all.
const (
	maxSecretHash = 256  // bytes; a hash has 32
	maxExtraData  = 8192 // bytes
	maxMerges     = 256
)

// EncodeSignedVoucher returns v as it is on the wire: a tuple of eleven. It is
// the same as v.MarshalCBOR, but it refuses amounts that are no Amount.
func EncodeSignedVoucher(v *SignedVoucher) (datamodel.Node, error) {
	w := writer{what: "voucher"}
	w.address("ChannelAddr", v.ChannelAddr)
	w.int("TimeLockMin", int64(v.TimeLockMin))
	w.int("TimeLockMax", int64(v.TimeLockMax))
	w.bytes("SecretHash", v.SecretHash, maxSecretHash)
	writeExtra(&w, v.Extra)
	w.uint("Lane", v.Lane)
	w.uint("Nonce", v.Nonce)
	amount, err := AmountFromBig(v.Amount.Int)
	if err != nil {
		w.fail("Amount", err)
	}
	w.amount("Amount", amount)
	w.int("MinSettleHeight", int64(v.MinSettleHeight))
	writeMerges(&w, v.Merges)
	writeSignature(&w, v.Signature)
	return w.asTuple()
}

// DecodeSignedVoucher reads a voucher from the tuple n and checks no signature:
// see Verify. Time locks, secrets, extras and merges are kept for the caller to
// refuse. The voucher shares no memory with n. The error wraps ErrMalformed.
func DecodeSignedVoucher(n datamodel.Node) (*SignedVoucher, error) {
	r := readTuple("voucher", n, "ChannelAddr", "TimeLockMin", "TimeLockMax", "SecretHash", "Extra",
		"Lane", "Nonce", "Amount", "MinSettleHeight", "Merges", "Signature")
	v := &SignedVoucher{
		ChannelAddr: r.address("ChannelAddr"),
		TimeLockMin: abi.ChainEpoch(r.int("TimeLockMin")), TimeLockMax: abi.ChainEpoch(r.int("TimeLockMax")),
		SecretHash: r.bytes("SecretHash", maxSecretHash),
		Extra:      readExtra(r),
		Lane:       r.uint("Lane"), Nonce: r.uint("Nonce"),
		Amount:          big.Int{Int: r.amount("Amount").Big()},
		MinSettleHeight: abi.ChainEpoch(r.int("MinSettleHeight")),
		Merges:          readMerges(r),
		Signature:       readSignature(r),
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	return v, nil
}

func writeExtra(w *writer, x *paych.ModVerifyParams) {
	if x == nil {
		w.node("Extra", datamodel.Null)
		return
	}
	extra := writer{what: "voucher.Extra"}
	extra.address("Actor", x.Actor)
	extra.uint("Method", uint64(x.Method))
	extra.bytes("Data", x.Data, maxExtraData)
	n, err := extra.asTuple()
	w.sub("Extra", n, err)
}

func readExtra(r *reader) *paych.ModVerifyParams {
	if r.null("Extra") || r.err != nil {
		return nil
	}
	x := readTuple("voucher.Extra", r.fields["Extra"], "Actor", "Method", "Data")
	extra := &paych.ModVerifyParams{
		Actor: x.address("Actor"), Method: abi.MethodNum(x.uint("Method")), Data: x.bytes("Data", maxExtraData),
	}
	if err := x.finish(); err != nil {
		r.fail("Extra", err)
	}
	return extra
}

func writeMerges(w *writer, merges []paych.Merge) {
	if len(merges) > maxMerges {
		w.fail("Merges", fmt.Errorf("%d lanes, %d at most", len(merges), maxMerges))
		return
	}
	list := make([]datamodel.Node, len(merges))
	for i, m := range merges {
		merge := writer{what: "voucher.Merges"}
		merge.uint("Lane", m.Lane)
		merge.uint("Nonce", m.Nonce)
		n, err := merge.asTuple()
		if err != nil {
			w.fail("Merges", err)
			return
		}
		list[i] = n
	}
	n, err := listNode(list)
	w.sub("Merges", n, err)
}

func readMerges(r *reader) []paych.Merge {
	n := r.get("Merges", datamodel.Kind_List)
	if n == nil || n.Length() == 0 {
		return nil
	}
	if n.Length() > maxMerges {
		r.fail("Merges", fmt.Errorf("%d lanes, %d at most", n.Length(), maxMerges))
		return nil
	}
	var merges []paych.Merge
	for it := n.ListIterator(); !it.Done(); {
		_, e, err := it.Next()
		if err != nil {
			r.fail("Merges", err)
			return nil
		}
		m := readTuple("voucher.Merges", e, "Lane", "Nonce")
		merges = append(merges, paych.Merge{Lane: m.uint("Lane"), Nonce: m.uint("Nonce")})
		if err := m.finish(); err != nil {
			r.fail("Merges", err)
			return nil
		}
	}
	return merges
}

func writeSignature(w *writer, s *crypto.Signature) {
	if s == nil {
		w.node("Signature", datamodel.Null)
		return
	}
	if !signatureType(s.Type) || len(s.Data) >= crypto.SignatureMaxLength {
		w.fail("Signature", fmt.Errorf("type %d with %d bytes", s.Type, len(s.Data)))
		return
	}
	w.node("Signature", basicnode.NewBytes(append([]byte{byte(s.Type)}, s.Data...)))
}

func readSignature(r *reader) *crypto.Signature {
	if r.null("Signature") || r.err != nil {
		return nil
	}
	b := r.bytes("Signature", crypto.SignatureMaxLength)
	if len(b) == 0 {
		r.fail("Signature", errors.New("empty"))
		return nil
	}
	if !signatureType(crypto.SigType(b[0])) {
		r.fail("Signature", fmt.Errorf("type %d is unknown", b[0]))
		return nil
	}
	return &crypto.Signature{Type: crypto.SigType(b[0]), Data: b[1:]}
}

func signatureType(t crypto.SigType) bool {
	return t == crypto.SigTypeSecp256k1 || t == crypto.SigTypeBLS || t == crypto.SigTypeDelegated
}
