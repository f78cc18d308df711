package payment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/filecoin-project/go-address"

	"github.com/tollgraph/tollgraph/voucher"
)

// Rail names this way to pay, in statements and in channel addresses.
const Rail = "on-account/1"

// maxLane is the largest lane, as on chain.
const maxLane = math.MaxInt64

// ErrUnknownLane is wrapped when a channel or a lane is not on record here.
var ErrUnknownLane = errors.New("no such payment channel or lane")

// ChannelAddress returns the f2 address of the channel in which payer pays
// payee. Nothing exists there on chain: it is a hash of the rail's name and
// the two addresses, the same on both sides. The addresses are taken as they are
// written: an f0 and an f1 address of one actor make two channels.
func ChannelAddress(payer, payee address.Address) (address.Address, error) {
	if payer == address.Undef || payee == address.Undef {
		return address.Undef, fmt.Errorf("channel from %q to %q: both sides need an address", payer, payee)
	}
	seed := []byte("tollgraph/" + Rail)
	for _, a := range []address.Address{payer, payee} {
		seed = binary.BigEndian.AppendUint16(seed, uint16(len(a.Bytes())))
		seed = append(seed, a.Bytes()...)
	}
	return address.NewActorAddress(seed)
}

// Channel is a payment channel as one side sees it.
type Channel struct {
	Address address.Address
	Payer   address.Address
	Payee   address.Address
	Total   voucher.Amount // the sum of its lanes: signed at the payer, credited at the payee

	Funds voucher.Amount `json:",omitzero"` // payer: the most that a deal asked to be available

	Line    voucher.Amount `json:",omitzero"` // payee: how much the payer may owe
	OwnLine bool           `json:",omitzero"` // payee: Line was set for this payer, and is not the default
	Settled voucher.Amount `json:",omitzero"` // payee: what the payer paid by other means
	Owed    voucher.Amount `json:",omitzero"` // payee: Total - Settled, zero if prepaid
}

// Lane is one deal's account in a channel.
type Lane struct {
	Lane   uint64
	Nonce  uint64         // of the last voucher; 0 if there is none
	Amount voucher.Amount // of the last voucher, cumulative

	Budget voucher.Amount `json:",omitzero"` // payer: the most that will be signed
}
