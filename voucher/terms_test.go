package voucher

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genWord() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 9), rapid.SampledFrom([]uint64{math.MaxUint64, 1 << 63, 1 << 30}))
}

func genTerms() *rapid.Generator[Terms] {
	return rapid.Custom(func(t *rapid.T) Terms {
		return Terms{
			Unseal: genAmount().Draw(t, "unseal"), Price: Price(genWord().Draw(t, "price")),
			Interval: Bytes(genWord().Draw(t, "interval")), Increase: Bytes(genWord().Draw(t, "increase")),
		}
	})
}

// TestPriceLaws: what a pays for is the most bytes that cost no more than a.
func TestPriceLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, n, a := Price(genWord().Draw(t, "p")), Bytes(genWord().Draw(t, "n")), genAmount().Draw(t, "a")
		cost := new(big.Int).SetUint64(uint64(p))
		cost.Mul(cost, new(big.Int).SetUint64(uint64(n)))
		if p.Of(n).Big().Cmp(cost) != 0 {
			t.Errorf("%d bytes at %d cost %s, want %s", n, p, p.Of(n), cost)
		}
		got := p.Buys(a)
		if a.Less(p.Of(got)) {
			t.Errorf("%s buys %d bytes at %d, which cost %s", a, got, p, p.Of(got))
		}
		if got != MaxBytes && !a.Less(p.Of(got+1)) {
			t.Errorf("%s buys only %d bytes at %d, one more is within", a, got, p)
		}
		if p != 0 && p.Buys(p.Of(n)) != n {
			t.Errorf("the price of %d bytes at %d buys %d", n, p, p.Buys(p.Of(n)))
		}
	})
}

// TestTermsLaws: what an amount covers costs no more than it, and what it does
// not cover costs more.
func TestTermsLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms, a := genTerms().Draw(t, "terms"), genAmount().Draw(t, "a")
		n := terms.Covered(a)
		if n > 0 && a.Less(terms.Cost(n)) {
			t.Errorf("%s covers %d bytes, which cost %s", a, n, terms.Cost(n))
		}
		if cost := terms.Cost(n.Add(1)); n != MaxBytes && !a.Less(cost) && cost != MaxAmount {
			t.Errorf("%s covers %d bytes, one more costs %s", a, n, cost)
		}
		if terms.Free() != (terms.Cost(1) == Amount{}) {
			t.Errorf("%+v is free: %v", terms, terms.Free())
		}
	})
}

func TestPricePerGiB(t *testing.T) {
	for _, c := range []struct {
		text string
		want Price
		back string
	}{
		{"0", 0, "0 FIL"}, {"1atto", 1, "0.000000001073741824 FIL"}, {"1073741824atto", 1, "0.000000001073741824 FIL"},
		{"1073741825atto", 2, "0.000000002147483648 FIL"}, {"0.01FIL", 9313226, "0.010000000272564224 FIL"},
		{"0.01FIL/GiB", 9313226, "0.010000000272564224 FIL"}, {" 0.01 fil/gib ", 9313226, "0.010000000272564224 FIL"},
		{"19807040628.56608439731224576FIL", math.MaxUint64, "19807040628.56608439731224576 FIL"},
	} {
		got, err := ParsePricePerGiB(c.text)
		if err != nil || got != c.want || got.PerGiB().FIL() != c.back {
			t.Errorf("%s: %d (%s), %v; want %d (%s)", c.text, got, got.PerGiB().FIL(), err, c.want, c.back)
		}
	}
	for _, text := range []string{"", "/GiB", "0.01", "0.01FIL/MiB", "0.01FIL/GiB/GiB",
		"19807040628.566084397312245761FIL"} {
		if got, err := ParsePricePerGiB(text); !errors.Is(err, ErrAmount) {
			t.Errorf("%q: %d, %v; want ErrAmount", text, got, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := genAmount().Draw(t, "a")
		p, err := PricePerGiB(a)
		if err != nil {
			if !Price(math.MaxUint64).PerGiB().Less(a) {
				t.Errorf("%s per GiB: %v", a, err)
			}
			return
		}
		if p.PerGiB().Less(a) || p > 0 && !(p-1).PerGiB().Less(a) {
			t.Errorf("%s per GiB is %d per byte", a, p)
		}
	})
}

func TestParseBytes(t *testing.T) {
	for _, c := range []struct {
		text string
		want Bytes
		bad  bool
	}{
		{text: "0"}, {text: "7", want: 7}, {text: "7B", want: 7}, {text: "1KiB", want: KiB}, {text: "1 mib", want: MiB},
		{text: "1.5GiB", want: GiB + GiB/2}, {text: "2TiB", want: 2 * TiB}, {text: "10kB", want: 10000}, {text: "1MB", want: 1e6},
		{text: "1.5GB", want: 1.5e9}, {text: "1TB", want: 1e12}, {text: ".5KiB", want: 512}, {text: " 3 B ", want: 3},
		{text: "18446744073709551615", want: MaxBytes}, {text: "16777215TiB", want: 16777215 * TiB}, {text: "1.0", want: 1},
		{text: "", bad: true}, {text: "B", bad: true}, {text: "KiB", bad: true}, {text: "-1", bad: true}, {text: "1.5", bad: true},
		{text: "0.3KiB", bad: true}, {text: "18446744073709551616", bad: true}, {text: "16777216TiB", bad: true},
		{text: "1.", bad: true}, {text: "1e6", bad: true}, {text: "1PiB", bad: true}, {text: "1KiBKiB", bad: true},
		{text: "0.000000000000000000001", bad: true}, {text: "0x10", bad: true},
	} {
		got, err := ParseBytes(c.text)
		if c.bad != errors.Is(err, ErrBytes) || err == nil && got != c.want {
			t.Errorf("%q: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
}

func TestIEC(t *testing.T) {
	for b, want := range map[Bytes]string{
		0: "0 B", 1023: "1023 B", KiB: "1 KiB", KiB + 10: "1 KiB", KiB + 11: "1.01 KiB", MiB + MiB/2: "1.5 MiB",
		GiB - 1: "1023.99 MiB", 3 * GiB: "3 GiB", MaxBytes: "16777215.99 TiB", TiB + TiB/10: "1.09 TiB",
	} {
		if got := b.IEC(); got != want {
			t.Errorf("%d is %q, want %q", b, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) { // what is shown is never more, and less than 1 % off
		b := Bytes(genWord().Draw(t, "b"))
		shown, text := new(big.Rat), b.IEC()
		for name, size := range map[string]Bytes{"B": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB} {
			if number, ok := strings.CutSuffix(text, " "+name); ok {
				shown.SetString(number)
				shown.Mul(shown, new(big.Rat).SetInt(new(big.Int).SetUint64(uint64(size))))
			}
		}
		exact := new(big.Rat).SetInt(new(big.Int).SetUint64(uint64(b)))
		low := new(big.Rat).Mul(exact, big.NewRat(99, 100))
		if shown.Cmp(exact) > 0 || shown.Cmp(low) < 0 {
			t.Errorf("%d is shown as %s", b, text)
		}
	})
}

func TestBytesLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := Bytes(genWord().Draw(t, "a")), Bytes(genWord().Draw(t, "b"))
		sum := a.Add(b)
		if sum < a || sum < b || sum != MaxBytes && sum-a != b {
			t.Errorf("%d + %d = %d", a, b, sum)
		}
		if diff := a.Sub(b); a >= b && diff != a-b || a < b && diff != 0 {
			t.Errorf("%d - %d = %d", a, b, diff)
		}
	})
}
