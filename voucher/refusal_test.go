package voucher

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestRefusals: numbers and code words are on the wire and on disk, and never
// change.
func TestRefusals(t *testing.T) {
	frozen := []string{
		1: "refused-price", "refused-interval", "refused-unseal-price", "refused-selector", "refused-content", "refused-busy",
		"refused-root", "refused-resume", "refused-payment", "refused-credit", "refused-internal", "refused-terms", "refused-peer",
	}
	if RefusedPrice != 1 || RefusedPeer != 13 || len(refusals) != len(frozen) {
		t.Errorf("RefusedPrice %d, RefusedPeer %d, %d reasons", RefusedPrice, RefusedPeer, len(refusals)-1)
	}
	for r := RefusedPrice; r <= RefusedPeer; r++ {
		if got, want := r.Message("why: so"), frozen[r]+": why: so"; got != want {
			t.Errorf("%d: %q, want %q", r, got, want)
		}
		if got, detail, ok := ParseRefusal(r.Message("why: so")); got != r || detail != "why: so" || !ok {
			t.Errorf("%d reads as %d, %q, %v", r, got, detail, ok)
		}
		if !strings.HasPrefix(r.Error(), "refused: ") || len(r.Error()) < 12 {
			t.Errorf("%d says %q", r, r.Error())
		}
	}
	for _, message := range []string{
		"", "price", "price: 2", "refused-", "refused-price", "refused-: x", "refused-prices: x", "Refused-price: x", " refused-price: x",
		"Price per byte too low", "\xff",
	} {
		if r, detail, ok := ParseRefusal(message); ok || r != 0 || detail != "" {
			t.Errorf("%q reads as %d, %q, %v", message, r, detail, ok)
		}
	}
	for _, r := range []Refusal{0, 14, 255} {
		if got, _, ok := ParseRefusal(r.Message("x")); !ok || got != RefusedInternal {
			t.Errorf("%d: %q", r, r.Message("x"))
		}
		if r.Error() != fmt.Sprintf("refused: reason %d", r) {
			t.Error(r.Error())
		}
	}
}

func TestRefusalIsFound(t *testing.T) {
	err := fmt.Errorf("deal 7: %w", fmt.Errorf("%w: 2 attoFIL per byte offered, 3 asked", RefusedPrice))
	var r Refusal
	if !errors.As(err, &r) || r != RefusedPrice || !errors.Is(err, RefusedPrice) || errors.Is(err, RefusedBusy) {
		t.Errorf("%v is %d", err, r)
	}
}

// TestRefusalMessage: a message always fits, is text, and keeps its reason.
func TestRefusalMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Refusal(rapid.IntRange(1, 13).Draw(t, "r"))
		detail := rapid.OneOf(genText(), rapid.Map(rapid.String(), func(s string) string {
			return strings.Repeat(s+"☹", 3000)
		})).Draw(t, "detail")
		message := r.Message(detail)
		got, cut, ok := ParseRefusal(message)
		if len(message) > MaxMessage || !utf8.ValidString(message) || !ok || got != r {
			t.Fatalf("%d bytes of %q, reads as %d, %v", len(message), message[:20], got, ok)
		}
		if !strings.HasPrefix(strings.ToValidUTF8(detail, "?"), cut) || len(detail) < 8000 && cut != strings.ToValidUTF8(detail, "?") {
			t.Errorf("%q came as %q", detail, cut)
		}
		if len(detail) > MaxMessage && len(message) < MaxMessage-3 {
			t.Errorf("%d bytes of detail were cut to %d", len(detail), len(message))
		}
	})
}
