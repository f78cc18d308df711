package voucher

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
)

func newKey(t testing.TB) Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKeyAddress: a private key and its address as other Filecoin wallets
// publish them.
func TestKeyAddress(t *testing.T) {
	secret := unhex(t, "f15716d3b003b304b8055d9cc62e6b9c869d56cc930c3858d4d7c31f5f53f14a")
	k, err := KeyFromBytes(secret)
	if err != nil {
		t.Fatal(err)
	}
	want, err := address.NewFromString("f1d2xrzcslx7xlbbylc5c3d5lvandqw4iwl6epxba")
	if err != nil {
		t.Fatal(err)
	}
	if k.Address() != want {
		t.Errorf("address %s, want %s", k.Address(), want)
	}
	if !bytes.Equal(k.Bytes(), secret) {
		t.Errorf("bytes %x, want %x", k.Bytes(), secret)
	}
	k.Bytes()[0], secret[1] = 0, 0
	if !bytes.HasPrefix(k.Bytes(), []byte{0xf1, 0x57}) {
		t.Error("a key shares memory with its caller")
	}
}

func TestKeyFromBytesRefuses(t *testing.T) {
	order := "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	for name, secret := range map[string][]byte{
		"none": nil, "short": make([]byte, 31), "long": make([]byte, 33), "zero": make([]byte, 32),
		"order": unhex(t, order), "above the order": bytes.Repeat([]byte{0xff}, 32),
	} {
		if _, err := KeyFromBytes(secret); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, want ErrKey", name, err)
		}
	}
	last := unhex(t, order)
	last[31]--
	if _, err := KeyFromBytes(last); err != nil {
		t.Errorf("order-1: %v", err)
	}
}

// TestKeySecret: no verb prints the secret, wherever the key sits.
func TestKeySecret(t *testing.T) {
	k, err := KeyFromBytes(bytes.Repeat([]byte{0xab}, 32))
	if err != nil {
		t.Fatal(err)
	}
	in := struct{ k Key }{k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, s := range []string{fmt.Sprintf(verb, k), fmt.Sprintf(verb, in), fmt.Sprintf(verb, &in)} {
			if strings.Contains(s, "abab") || strings.Contains(s, "171 171") || strings.Contains(s, "0xab, 0xab") {
				t.Errorf("%s prints the secret: %s", verb, s)
			}
		}
	}
	if got := k.String(); got != "key of "+k.Address().String() {
		t.Error(got)
	}
}

func TestZeroKey(t *testing.T) {
	var k Key
	if k.Bytes() != nil || k.Address() != address.Undef || k.SignBytes([]byte("x")) != nil {
		t.Error("the zero key is something")
	}
	if err := k.Sign(payment(t, nil)); !errors.Is(err, ErrKey) {
		t.Errorf("sign: %v", err)
	}
	if k.Equal(newKey(t)) || !k.Equal(Key{}) || newKey(t).Equal(newKey(t)) {
		t.Error("Equal")
	}
}

func TestSignVerify(t *testing.T) {
	k := newKey(t)
	v := payment(t, nil)
	if err := k.Sign(v); err != nil {
		t.Fatal(err)
	}
	if v.Signature.Type != crypto.SigTypeSecp256k1 || len(v.Signature.Data) != SignatureSize {
		t.Errorf("signature %+v", v.Signature)
	}
	if err := Verify(v, k.Address()); err != nil {
		t.Error(err)
	}
	if got, err := Signer(v); err != nil || got != k.Address() {
		t.Errorf("signer %s, %v", got, err)
	}
	if err := Verify(v, newKey(t).Address()); !errors.Is(err, ErrSignature) {
		t.Errorf("another's address: %v", err)
	}
	if err := Verify(v, address.Undef); !errors.Is(err, ErrSignature) {
		t.Errorf("no address: %v", err)
	}
	if err := k.Sign(v); err != nil { // the old signature is not part of what is signed
		t.Fatal(err)
	}
	if err := Verify(v, k.Address()); err != nil {
		t.Error(err)
	}
}

// TestForged: whatever is changed in a signed voucher, it is no longer signed.
func TestForged(t *testing.T) {
	k := newKey(t)
	for name, forge := range map[string]func(v *SignedVoucher){
		"channel":  func(v *SignedVoucher) { v.ChannelAddr = addr(t, "0064") },
		"lock min": func(v *SignedVoucher) { v.TimeLockMin = 1 },
		"lock max": func(v *SignedVoucher) { v.TimeLockMax = abi.ChainEpoch(1) },
		"secret":   func(v *SignedVoucher) { v.SecretHash = []byte{1} },
		"extra":    func(v *SignedVoucher) { v.Extra = &paych.ModVerifyParams{Actor: addr(t, "0064")} },
		"lane":     func(v *SignedVoucher) { v.Lane++ },
		"nonce":    func(v *SignedVoucher) { v.Nonce++ },
		"amount":   func(v *SignedVoucher) { v.Amount = big.NewInt(2097153) },
		"settle":   func(v *SignedVoucher) { v.MinSettleHeight = 1 },
		"merges":   func(v *SignedVoucher) { v.Merges = []paych.Merge{{}} },
		"R":        func(v *SignedVoucher) { v.Signature.Data[3] ^= 1 },
		"S":        func(v *SignedVoucher) { v.Signature.Data[40] ^= 1 },
		"V":        func(v *SignedVoucher) { v.Signature.Data[64] ^= 1 },
		"V of 4":   func(v *SignedVoucher) { v.Signature.Data[64] = 4 },
		"V of 27":  func(v *SignedVoucher) { v.Signature.Data[64] += 27 },
		"zero":     func(v *SignedVoucher) { v.Signature.Data = make([]byte, 65) },
		"ones":     func(v *SignedVoucher) { v.Signature.Data = bytes.Repeat([]byte{0xff}, 65) },
		"short":    func(v *SignedVoucher) { v.Signature.Data = v.Signature.Data[:64] },
		"long":     func(v *SignedVoucher) { v.Signature.Data = append(v.Signature.Data, 0) },
		"empty":    func(v *SignedVoucher) { v.Signature.Data = nil },
		"BLS":      func(v *SignedVoucher) { v.Signature.Type = crypto.SigTypeBLS },
		"Eth":      func(v *SignedVoucher) { v.Signature.Type = crypto.SigTypeDelegated },
		"unknown":  func(v *SignedVoucher) { v.Signature.Type = 9 },
		"unsigned": func(v *SignedVoucher) { v.Signature = nil },
	} {
		v := payment(t, nil)
		if err := k.Sign(v); err != nil {
			t.Fatal(err)
		}
		forge(v)
		if err := Verify(v, k.Address()); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
}

// TestSignRefuses: what has no encoding is not signed and not verified, and does
// not panic.
func TestSignRefuses(t *testing.T) {
	k := newKey(t)
	nowhere := payment(t, signature(1))
	nowhere.ChannelAddr = address.Undef
	merges := payment(t, signature(1))
	merges.Merges = make([]paych.Merge, 8193)
	for name, v := range map[string]*SignedVoucher{"nil": nil, "no channel": nowhere, "merges": merges} {
		if err := k.Sign(v); err == nil {
			t.Errorf("%s: signed", name)
		}
		if _, err := Signer(v); err == nil {
			t.Errorf("%s: has a signer", name)
		}
	}
	if !bytes.Equal(nowhere.Signature.Data, signature(1).Data) {
		t.Error("a voucher that was not signed has another signature")
	}
	if err := k.Sign(&SignedVoucher{ChannelAddr: addr(t, channelHex)}); err != nil {
		t.Errorf("nil amount: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	k, v := newKey(b), payment(b, nil)
	for b.Loop() {
		if err := k.Sign(v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	k, v := newKey(b), payment(b, nil)
	if err := k.Sign(v); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Verify(v, k.Address()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestForeignVoucher: a voucher that another implementation published, signed,
// is read, is that of the address that it names, and is written as it was.
func TestForeignVoucher(t *testing.T) {
	const signed = "8b5501b34e96153a8503929a7b44afcac9c5394891d944000040f6000049000de0b6b3a764000000805842013f5942d53d84b276" +
		"bd02b1aa87904687f4561ac11b600ce8eda6e6dc586769ba5f6541816cafa84ea0af1a9e6ca5846c01f69dc16c6255693980b76cf6facaf301"
	n, err := UnmarshalNode(unhex(t, signed))
	if err != nil {
		t.Fatal(err)
	}
	v, err := DecodeSignedVoucher(n)
	if err != nil {
		t.Fatal(err)
	}
	if v.Amount.String() != OneFIL.String() || v.ChannelAddr.String() != "f1wnhjmfj2qubzfgt3isx4vsofhfejdwkeqgqzr4y" {
		t.Errorf("read %+v", v)
	}
	from, err := address.NewFromString("f1xgb73oc3s3sengf5ghvb5jzty5ftokodkibtmfa")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := Signer(v)
	if err != nil || signer != from {
		t.Errorf("signer %s, %v; want %s", signer, err, from)
	}
	back, err := marshal(EncodeSignedVoucher(v))
	if err != nil || hex.EncodeToString(back) != signed {
		t.Errorf("written as %x, %v", back, err)
	}
}
