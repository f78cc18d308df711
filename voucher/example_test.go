package voucher_test

import (
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/tollgraph/tollgraph/voucher"
)

// A price is given per GiB and charged per byte, rounded up.
func ExampleAsk() {
	price, err := voucher.ParsePricePerGiB("0.01FIL")
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := voucher.Ask{PricePerByte: price, PaymentInterval: voucher.MiB}
	fmt.Println(ask.Validate(), uint64(ask.PricePerByte))
	fmt.Println(ask.PricePerByte.PerGiB().FIL(), "per GiB")
	fmt.Println(ask.Terms().Cost(300 * voucher.MiB).FIL())

	ask.PaymentInterval = 0
	fmt.Println(ask.Validate())
	// Output:
	// <nil> 9313226
	// 0.010000000272564224 FIL per GiB
	// 0.0029296875798528 FIL
	// a price per byte needs a payment interval above zero
}

// What an amount pays for, in whole bytes, once unsealing is paid for.
func ExampleTerms_Covered() {
	terms := voucher.Terms{Unseal: voucher.Atto(100), Price: 3, Interval: voucher.KiB}
	fmt.Println(terms.Cost(10), terms.Covered(voucher.Atto(131)), terms.Covered(voucher.Atto(99)))
	// Output: 130 10 0
}

// A provider that knows the exact size of what was asked for says so: the price
// of the selection is then known before the deal.
func ExampleQueryResponse_PayloadRetrievalPrice() {
	size := 10 * voucher.MiB
	answer := voucher.QueryResponse{Size: voucher.GiB, MinPricePerByte: 2, ExpectedPayloadSize: &size}
	price, known := answer.PayloadRetrievalPrice()
	fmt.Println(price, known, answer.PieceRetrievalPrice())
	// Output: 20971520 true 2147483648
}

// A payment is signed by its payer's key and names nobody: the signer is
// recovered from it.
func ExampleKey_Sign() {
	key, err := voucher.NewKey()
	if err != nil {
		fmt.Println(err)
		return
	}
	channel, _ := address.NewActorAddress([]byte("channel"))
	payment := &voucher.SignedVoucher{ChannelAddr: channel, Lane: 1, Nonce: 1, Amount: big.NewInt(2500)}
	fmt.Println(key.Sign(payment), voucher.Verify(payment, key.Address()))

	payment.Amount = big.NewInt(9999)
	fmt.Println(voucher.Verify(payment, key.Address()) == nil)
	// Output:
	// <nil> <nil>
	// false
}

// A refusal crosses the wire as a code word and words for people.
func ExampleRefusal_Message() {
	message := voucher.RefusedPrice.Message("2 attoFIL per byte offered, 3 asked")
	fmt.Println(message)
	reason, detail, ok := voucher.ParseRefusal(message)
	fmt.Println(reason == voucher.RefusedPrice, detail, ok)
	// Output:
	// refused-price: 2 attoFIL per byte offered, 3 asked
	// true 2 attoFIL per byte offered, 3 asked true
}
