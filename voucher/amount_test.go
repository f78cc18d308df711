package voucher

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genAmount() *rapid.Generator[Amount] {
	word := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, math.MaxUint64, 1 << 63, 1e18}))
	return rapid.Custom(func(t *rapid.T) Amount {
		return Amount{hi: word.Draw(t, "hi"), lo: word.Draw(t, "lo")}
	})
}

// clamp is what arithmetic without limits would give, within the limits of an
// Amount.
func clamp(t *rapid.T, z *big.Int) Amount {
	if z.Sign() < 0 {
		return Amount{}
	}
	if z.BitLen() > 128 {
		return MaxAmount
	}
	a, err := AmountFromBig(z)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAmountLaws: arithmetic is that of big integers, saturated.
func TestAmountLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genAmount().Draw(t, "a"), genAmount().Draw(t, "b")
		if got, want := a.Add(b), clamp(t, new(big.Int).Add(a.Big(), b.Big())); got != want {
			t.Errorf("%s + %s = %s, want %s", a, b, got, want)
		}
		if got, want := a.Sub(b), clamp(t, new(big.Int).Sub(a.Big(), b.Big())); got != want {
			t.Errorf("%s - %s = %s, want %s", a, b, got, want)
		}
		if got, want := a.Less(b), a.Big().Cmp(b.Big()) < 0; got != want {
			t.Errorf("%s < %s is %v", a, b, got)
		}
		if lo, hi := a.Min(b), a.Max(b); hi.Less(lo) || lo.Add(hi) != a.Add(b) {
			t.Errorf("min %s, max %s of %s and %s", lo, hi, a, b)
		}
		if a.String() != a.Big().String() {
			t.Errorf("text %s of %s", a, a.Big())
		}
		if a.IsZero() != (a.Big().Sign() == 0) {
			t.Errorf("%s is zero: %v", a, a.IsZero())
		}
	})
}

// TestAmountForms: every form reads back, and each value has one form only.
func TestAmountForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genAmount().Draw(t, "a")
		if back, err := amountFromWire(a.wire()); err != nil || back != a {
			t.Errorf("wire %x of %s reads as %s, %v", a.wire(), a, back, err)
		}
		for _, text := range []string{a.FIL(), a.String() + "atto", strings.ToUpper(a.FIL()), " " + a.String() + " attoFIL "} {
			if back, err := ParseAmount(text); err != nil || back != a {
				t.Errorf("%q of %s reads as %s, %v", text, a, back, err)
			}
		}
		b, err := json.Marshal(map[Amount]Amount{a: a})
		if err != nil {
			t.Fatal(err)
		}
		var back map[Amount]Amount
		if err := json.Unmarshal(b, &back); err != nil || back[a] != a || len(back) != 1 {
			t.Errorf("%s of %s reads as %v, %v", b, a, back, err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "wire")
		if a, err := amountFromWire(b); err == nil && string(a.wire()) != string(b) {
			t.Errorf("%x reads as %s, whose form is %x", b, a, a.wire())
		}
	})
}

func TestAmountWire(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want string // "" is an error
	}{
		{"", "0"}, {"0001", "1"}, {"00ff", "255"}, {"000100", "256"}, {"000de0b6b3a7640000", OneFIL.String()},
		{"00" + strings.Repeat("ff", 16), MaxAmount.String()}, {"00" + "01" + strings.Repeat("00", 8), "18446744073709551616"},
		{"00", ""}, {"0000", ""}, {"000001", ""}, {"0101", ""}, {"01", ""}, {"ff01", ""},
		{"0001" + strings.Repeat("00", 16), ""}, {"00" + strings.Repeat("ff", 127), ""},
	} {
		got, err := amountFromWire(unhex(t, c.hex))
		if c.want == "" {
			if !errors.Is(err, ErrAmount) {
				t.Errorf("%s: %s, %v; want ErrAmount", c.hex, got, err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%s: %s, %v; want %s", c.hex, got, err, c.want)
		}
	}
}

func TestParseAmount(t *testing.T) {
	const maxFIL = "340282366920938463463.374607431768211455"
	for _, c := range []struct{ text, want string }{
		{"0", "0"}, {" 0 ", "0"}, {"0FIL", "0"}, {"0atto", "0"}, {"1FIL", "1000000000000000000"}, {"1 fil", "1000000000000000000"},
		{"0.01FIL", "10000000000000000"}, {".5FIL", "500000000000000000"}, {"2500atto", "2500"}, {"2500 attoFIL", "2500"},
		{"1milliFIL", "1000000000000000"}, {"1 micro", "1000000000000"}, {"1.5nanofil", "1500000000"}, {"2pico", "2000000"},
		{"7femto", "7000"}, {"0.000000000000000001FIL", "1"}, {maxFIL + "FIL", MaxAmount.String()},
		{"007FIL", "7000000000000000000"},
		{"", ""}, {"1", ""}, {"0.0", ""}, {"FIL", ""}, {"atto", ""}, {".FIL", ""}, {"1.FIL", ""}, {"-1FIL", ""}, {"+1FIL", ""},
		{"1.2.3FIL", ""}, {"1e3FIL", ""}, {"0x1FIL", ""}, {"1_0FIL", ""}, {"1,5FIL", ""}, {"٣FIL", ""}, {"1 1FIL", ""},
		{"0.0000000000000000001FIL", ""}, {"1.5atto", ""}, {"1kiloFIL", ""}, {"1FILFIL", ""}, {"1attoatto", ""},
		{"340282366920938463463.374607431768211456FIL", ""}, {strings.Repeat("9", 40) + "FIL", ""},
		{strings.Repeat("0", 1e6) + "1FIL", ""},
	} {
		got, err := ParseAmount(c.text)
		if c.want == "" {
			if !errors.Is(err, ErrAmount) {
				t.Errorf("%.60q: %s, %v; want ErrAmount", c.text, got, err)
			} else if len(err.Error()) > 300 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%q: %s, %v; want %s", c.text, got, err, c.want)
		}
	}
}

func TestAmountText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"0", "0"}, {"00012", "12"}, {MaxAmount.String(), MaxAmount.String()},
		{"", ""}, {"-1", ""}, {"+1", ""}, {" 1", ""}, {"1.0", ""}, {"0x1", ""},
		{"340282366920938463463374607431768211456", ""}, {strings.Repeat("1", 40), ""},
	} {
		a := Atto(7)
		err := a.UnmarshalText([]byte(c.text))
		if c.want == "" {
			if !errors.Is(err, ErrAmount) || a != Atto(7) {
				t.Errorf("%q: %s, %v; want ErrAmount", c.text, a, err)
			}
			continue
		}
		if err != nil || a.String() != c.want {
			t.Errorf("%q: %s, %v; want %s", c.text, a, err, c.want)
		}
	}
}

func TestFIL(t *testing.T) {
	for a, want := range map[Amount]string{
		{}: "0 FIL", Atto(1): "0.000000000000000001 FIL", OneFIL: "1 FIL", OneFIL.Add(OneFIL): "2 FIL",
		Atto(15e17): "1.5 FIL", MaxAmount: "340282366920938463463.374607431768211455 FIL",
	} {
		if got := a.FIL(); got != want {
			t.Errorf("%s is %q, want %q", a, got, want)
		}
	}
}

func TestAmountFromBig(t *testing.T) {
	if a, err := AmountFromBig(nil); err != nil || !a.IsZero() {
		t.Errorf("nil: %s, %v", a, err)
	}
	over := new(big.Int).Lsh(big.NewInt(1), 128)
	for _, z := range []*big.Int{big.NewInt(-1), over, new(big.Int).Neg(over)} {
		if a, err := AmountFromBig(z); !errors.Is(err, ErrAmount) {
			t.Errorf("%s: %s, %v; want ErrAmount", z, a, err)
		}
	}
	z := MaxAmount.Big()
	z.SetInt64(1)
	if MaxAmount.Big().BitLen() != 128 {
		t.Error("Big shares memory")
	}
}
