package voucher

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Refusal says why a provider will not deal, or not go on with a deal. It is
// an error: wrap it with the numbers, find it with errors.As or errors.Is. Its
// values and code words are on the wire and on disk: append only.
type Refusal uint8

// The reasons.
const (
	RefusedPrice       Refusal = iota + 1 // the price offered is below the ask
	RefusedInterval                       // the payment interval or its increase is above the ask, or zero
	RefusedUnsealPrice                    // the price offered for unsealing is below the ask
	RefusedSelector                       // the selector is not the one proposed, or not bounded
	RefusedContent                        // the provider does not have it
	RefusedBusy                           // too many deals; try again later
	RefusedRoot                           // the transfer's root is not the proposal's
	RefusedResume                         // the deal cannot be resumed; propose a new one
	RefusedPayment                        // a payment is not good
	RefusedCredit                         // the payer has no credit left
	RefusedInternal                       // the provider's own fault
	RefusedTerms                          // the proposal is malformed
	RefusedPeer                           // the provider does not deal with this peer
)

var refusals = [...]struct{ word, text string }{
	RefusedPrice:       {"price", "price per byte below the ask"},
	RefusedInterval:    {"interval", "payment interval not within the ask"},
	RefusedUnsealPrice: {"unseal-price", "unseal price below the ask"},
	RefusedSelector:    {"selector", "selector not accepted"},
	RefusedContent:     {"content", "content not here"},
	RefusedBusy:        {"busy", "busy, try again later"},
	RefusedRoot:        {"root", "root of the transfer is not the one proposed"},
	RefusedResume:      {"resume", "deal cannot be resumed, propose a new one"},
	RefusedPayment:     {"payment", "payment not accepted"},
	RefusedCredit:      {"credit", "no credit left"},
	RefusedInternal:    {"internal", "internal error of the provider"},
	RefusedTerms:       {"terms", "proposal malformed"},
	RefusedPeer:        {"peer", "peer not served"},
}

// refusedPrefix begins every code word, so that free text of other
// implementations is not taken for one.
const refusedPrefix = "refused-"

// Error says the reason in words, without numbers.
func (r Refusal) Error() string {
	if r.known() {
		return "refused: " + refusals[r].text
	}
	return "refused: reason " + strconv.Itoa(int(r))
}

// Message returns what a DealResponse says for r: the code word, a colon, and
// detail, which is cut to what fits. The detail may be empty.
func (r Refusal) Message(detail string) string {
	word := "internal"
	if r.known() {
		word = refusals[r].word
	}
	message := refusedPrefix + word + ": " + strings.ToValidUTF8(detail, "?")
	if len(message) <= MaxMessage {
		return message
	}
	cut := MaxMessage
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut]
}

// ParseRefusal reads what Message wrote: the reason and the detail. It returns
// false if message does not begin with a code word known here, as that of a
// peer of another make does; the message is then for people only.
func ParseRefusal(message string) (Refusal, string, bool) {
	rest, ok := strings.CutPrefix(message, refusedPrefix)
	word, detail, found := strings.Cut(rest, ":")
	if !ok || !found {
		return 0, "", false
	}
	for r := RefusedPrice; r.known(); r++ {
		if refusals[r].word == word {
			return r, strings.TrimPrefix(detail, " "), true
		}
	}
	return 0, "", false
}

func (r Refusal) known() bool { return r > 0 && int(r) < len(refusals) }
