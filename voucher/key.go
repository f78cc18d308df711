package voucher

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	fcrypto "github.com/filecoin-project/go-crypto"
	"github.com/filecoin-project/go-state-types/crypto"
	"golang.org/x/crypto/blake2b"
)

// SignatureSize is the length of a recoverable secp256k1 signature: R, S, V.
const SignatureSize = 65

// ErrSignature is wrapped by every error that says a voucher is not signed as
// it must be.
var ErrSignature = errors.New("no good signature")

// ErrKey is wrapped by every error that says a key is none.
var ErrKey = errors.New("not a secp256k1 private key")

// Key is a secp256k1 private key. The zero Key signs nothing. A Key is
// immutable and safe for concurrent use, and it does not print its secret.
// Compare keys with Equal.
type Key struct {
	secret func() []byte // the bytes, not to be changed; a closure, for fmt prints whatever else it meets
	addr   address.Address
}

// NewKey returns a fresh key from the system's source of randomness.
func NewKey() (Key, error) {
	secret, err := fcrypto.GenerateKey()
	if err != nil {
		return Key{}, fmt.Errorf("new key: %w", err)
	}
	return KeyFromBytes(secret)
}

// KeyFromBytes returns the key whose Bytes are secret, which it copies. The
// error wraps ErrKey.
func KeyFromBytes(secret []byte) (Key, error) {
	if len(secret) != fcrypto.PrivateKeyBytes {
		return Key{}, fmt.Errorf("%d bytes instead of %d: %w", len(secret), fcrypto.PrivateKeyBytes, ErrKey)
	}
	// Signing is the library's only check of a key that does not panic.
	probe := sha256.Sum256(nil)
	if _, err := fcrypto.Sign(secret, probe[:]); err != nil {
		return Key{}, fmt.Errorf("zero or above the order of the group: %w", ErrKey)
	}
	addr, err := address.NewSecp256k1Address(fcrypto.PublicKey(secret))
	if err != nil {
		return Key{}, fmt.Errorf("address of key: %w", err)
	}
	own := bytes.Clone(secret)
	return Key{func() []byte { return own }, addr}, nil
}

// Bytes returns the 32 secret bytes of k in a slice that the caller owns; nil
// for the zero Key.
func (k Key) Bytes() []byte {
	if k.secret == nil {
		return nil
	}
	return bytes.Clone(k.secret())
}

// Address returns the f1 address of k, Undef for the zero Key.
func (k Key) Address() address.Address { return k.addr }

// Equal reports in constant time whether k and o are the same key.
func (k Key) Equal(o Key) bool { return subtle.ConstantTimeCompare(k.Bytes(), o.Bytes()) == 1 }

// String returns the address of k, never the secret.
func (k Key) String() string { return "key of " + k.addr.String() }

// SignBytes returns the signature of message as Filecoin signs: the 65 bytes
// R, S, V over its blake2b-256 hash. It is nil for the zero Key.
func (k Key) SignBytes(message []byte) []byte {
	if k.secret == nil {
		return nil
	}
	digest := blake2b.Sum256(message)
	sig, err := fcrypto.Sign(k.secret(), digest[:])
	if err != nil {
		panic("voucher: a key that was checked does not sign: " + err.Error())
	}
	return sig
}

// Sign sets the Signature of v to k's over its SigningBytes. The error wraps
// ErrKey for the zero Key; else v cannot be encoded, and is unchanged.
func (k Key) Sign(v *SignedVoucher) error {
	if k.secret == nil {
		return fmt.Errorf("sign voucher with the zero key: %w", ErrKey)
	}
	message, err := signingBytes(v)
	if err != nil {
		return fmt.Errorf("sign voucher: %w", err)
	}
	v.Signature = &crypto.Signature{Type: crypto.SigTypeSecp256k1, Data: k.SignBytes(message)}
	return nil
}

// Signer returns the f1 address that signed v. Any well-formed signature has a
// signer: whether it is the right one is for the caller to compare, or for
// Verify. The error wraps ErrSignature if the signature is missing, malformed or
// not secp256k1; else v cannot be encoded.
func Signer(v *SignedVoucher) (address.Address, error) {
	message, err := signingBytes(v)
	if err != nil {
		return address.Undef, fmt.Errorf("signer of voucher: %w", err)
	}
	if v.Signature == nil {
		return address.Undef, fmt.Errorf("voucher is not signed: %w", ErrSignature)
	}
	if v.Signature.Type != crypto.SigTypeSecp256k1 {
		return address.Undef, fmt.Errorf("voucher has a signature of type %d, only secp256k1 (%d) is taken: %w",
			v.Signature.Type, crypto.SigTypeSecp256k1, ErrSignature)
	}
	return SignerOfBytes(message, v.Signature.Data)
}

// Verify returns nil if v is signed by from, an f1 address. The error is that
// of Signer, or wraps ErrSignature if another key signed.
func Verify(v *SignedVoucher, from address.Address) error {
	signer, err := Signer(v)
	if err != nil {
		return err
	}
	if signer != from {
		return fmt.Errorf("voucher is signed by %s instead of %s: %w", signer, from, ErrSignature)
	}
	return nil
}

// SignerOfBytes returns the f1 address whose key signed message (see SignBytes).
// The error wraps ErrSignature.
func SignerOfBytes(message, sig []byte) (address.Address, error) {
	if len(sig) != SignatureSize {
		return address.Undef, fmt.Errorf("signature of %d bytes instead of %d: %w", len(sig), SignatureSize, ErrSignature)
	}
	digest := blake2b.Sum256(message)
	public, err := fcrypto.EcRecover(digest[:], sig)
	if err != nil {
		return address.Undef, fmt.Errorf("malformed signature (%w): %w", err, ErrSignature)
	}
	addr, err := address.NewSecp256k1Address(public)
	if err != nil {
		return address.Undef, fmt.Errorf("address of signer: %w", err)
	}
	return addr, nil
}

// signingBytes is v.SigningBytes for a v that may be nil or hold a nil Amount.
func signingBytes(v *SignedVoucher) ([]byte, error) {
	if v == nil {
		return nil, errors.New("there is no voucher")
	}
	if v.ChannelAddr == address.Undef {
		return nil, errors.New("voucher names no payment channel: set ChannelAddr")
	}
	b, err := v.SigningBytes()
	if err != nil {
		return nil, fmt.Errorf("encode voucher: %w", err)
	}
	return b, nil
}
