package transport

import (
	"errors"
	"fmt"
)

// The wire format of /ipfs/graphsync/2.0.0. A message is an unsigned varint
// that counts the bytes that follow, and one DAG-CBOR value:
//
//	{"gs2": {                              (every field below may be absent)
//	  "blk": [[prefix, data], …],          prefix: a CID without its digest
//	  "req": [{"id", "ext", "pri", "sel", "root", "type"}, …],
//	  "rsp": [{"ext", "meta", "stat", "reqid"}, …]}}
//
// Keys are written in the order of RFC 7049 (shorter first), as here. Almost
// every byte of a message is block data, so blocks are never copied: the
// encoder hands their bytes to the stream and the decoder returns slices of
// the receive buffer. Selectors and extension values are arbitrary IPLD and
// are left to go-ipld-prime's codec; the rest is read and written here.

// The bounds of an inbound message, beside NetworkConfig.MaxMessageSize. They
// keep the memory that a message decodes to proportional to its size. No
// message that go-graphsync builds comes near any of them.
const (
	// MaxMessageParts bounds the requests, and the responses, of a message.
	MaxMessageParts = 4096
	// MaxMessageBlocks bounds the blocks of a message.
	MaxMessageBlocks = 1 << 16
	// MaxMessageNodes bounds the IPLD nodes in the selectors and extensions of a message, together.
	MaxMessageNodes = 1 << 17
	// MaxMessageDepth bounds nesting, counted from the root of the message. It is the stock codec's bound.
	MaxMessageDepth = 1024
	// MaxCIDLength bounds a CID, in bytes; it matters for identity CIDs only.
	MaxCIDLength = 512
	// MaxDigestLength bounds the digest of a block's CID, in bytes.
	MaxDigestLength = 128
)

// DefaultMaxMessageSize is the largest message that go-graphsync reads, in bytes.
const DefaultMaxMessageSize = 4 << 20

var (
	// ErrMessageLimit is wrapped by the refusal of a message that goes beyond
	// one of the bounds above or NetworkConfig.MaxMessageSize.
	ErrMessageLimit = errors.New("graphsync message exceeds a limit")

	// ErrMessageForm is wrapped by the refusal of two forms that the stock
	// decoder tolerates although the protocol's schema does not: CBOR tags on
	// anything but links, and the schema's long field names ("requests" for "req").
	ErrMessageForm = errors.New("graphsync message is not in the form of its schema")

	// errMalformed is wrapped by the refusal of everything else.
	errMalformed = errors.New("malformed graphsync message")
)

// The major types of CBOR, as the upper three bits of a head.
const (
	majorUint   = 0
	majorNegInt = 1
	majorBytes  = 2
	majorString = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6
	majorSimple = 7
)

// linkTag is the CBOR tag of a CID in DAG-CBOR.
const linkTag = 42

func limitError(what string, got, most uint64) error {
	return fmt.Errorf("%w: %d %s, at most %d", ErrMessageLimit, got, what, most)
}

// appendHead appends the shortest CBOR head of the given major type and argument.
func appendHead(b []byte, major byte, arg uint64) []byte {
	m := major << 5
	switch {
	case arg < 24:
		return append(b, m|byte(arg))
	case arg < 1<<8:
		return append(b, m|24, byte(arg))
	case arg < 1<<16:
		return append(b, m|25, byte(arg>>8), byte(arg))
	case arg < 1<<32:
		return append(b, m|26, byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
	}
	return append(b, m|27, byte(arg>>56), byte(arg>>48), byte(arg>>40), byte(arg>>32),
		byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
}

func appendString(b []byte, s string) []byte {
	return append(appendHead(b, majorString, uint64(len(s))), s...)
}

func appendBytes(b, p []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(p))), p...)
}
